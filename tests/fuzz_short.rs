//! The fuzz targets' short form: every seed, and a few thousand changed seeds that are the same each time.
//!
//! `tests/run --long` gives each target two minutes of libFuzzer instead.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    reason = "it is the library of the fuzz targets, included here"
)]
mod targets;

/// Changed seeds per target.
const ROUNDS: usize = 4000;
/// The same, where each takes a directory of its own.
const ROUNDS_ON_DISK: usize = 1000;

/// Bits of the languages that the targets read: changes made of them get further than random bytes.
const WORDS: [&[u8]; 29] = [
    b"\x1e0123456789abcdef0123456789abcdef ",
    b"open 0\n",
    b"next 7\n",
    b"end 0\n",
    b"full ",
    b"\n",
    b"=",
    b"[[profile]]\n",
    b"[limits]\n",
    b"\"\"\"",
    b"\\u0000",
    b"\x1b[0m",
    b"\xff\xfe",
    b"{",
    b"]",
    b",",
    b"null",
    b"-1",
    b"18446744073709551616",
    b"\"version\":1,",
    b"docker.io/",
    b"registry.example.com/",
    b"@sha256:",
    b":",
    b"\"auths\":{",
    b"1e308",
    b"-1e308",
    b"0.5",
    b"NOW",
];

#[test]
fn config_takes_or_refuses_whatever_it_is_given() {
    run("config", ROUNDS, targets::config);
}

#[test]
fn record_takes_or_refuses_whatever_it_is_given() {
    run("record", ROUNDS, targets::record);
}

#[test]
fn frames_are_the_same_however_they_come() {
    run("frames", ROUNDS, targets::frames);
}

#[test]
fn payload_takes_or_refuses_whatever_it_is_given() {
    run("payload", ROUNDS, targets::payload);
}

#[test]
fn containers_are_named_and_logged_in_to_whatever_a_job_says() {
    run("containers", ROUNDS, targets::containers);
}

#[test]
fn what_jobs_share_hinders_nobody_however_it_is_damaged() {
    run("shared", ROUNDS_ON_DISK, targets::shared);
}

fn run(target: &str, rounds: usize, entry: fn(&[u8])) {
    let seeds = seeds(target);
    for seed in &seeds {
        try_one(target, entry, seed);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..rounds {
        let mut input = random.of(&seeds).clone();
        for _ in 0..=random.below(4) {
            change(&mut input, &seeds, &mut random);
        }
        try_one(target, entry, &input);
    }
}

/// Calls a target; where it panics, says with what.
fn try_one(target: &str, entry: fn(&[u8]), input: &[u8]) {
    if panic::catch_unwind(AssertUnwindSafe(|| entry(input))).is_err() {
        panic!(
            "{target} failed with the input b\"{}\"",
            input.escape_ascii()
        );
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    // Directories have no order of their own, and a failure should come again.
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(32)).min(input.len());
    match random.below(6) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        3 => {
            let other = random.of(seeds);
            let from = random.below(other.len() + 1);
            input.splice(at.., other[from..].iter().copied());
        }
        4 => {
            let word = *random.of(&WORDS);
            input.splice(at..end, word.iter().copied());
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// Marsaglia's xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
