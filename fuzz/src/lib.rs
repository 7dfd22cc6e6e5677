//! What each fuzz target does with its input, and what must hold whatever the input is.
//!
//! The targets in `targets/` call these under libFuzzer; `tests/fuzz_short.rs` includes this file and calls
//! them with the seeds and with changed seeds.

use std::path::Path;

use gitlab_aws_driver::config;
use gitlab_aws_driver::runner::payload::Payload;
use gitlab_aws_driver::script::frames::{Frame, Item, Malformed, Scanner};
use gitlab_aws_driver::state::record::Record;

/// The nonce that inputs of [`frames`] have to use for something to happen.
const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// Parses a configuration file: right, or one error; whatever is printed stays on its line.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match config::parse(text, Path::new("aws-driver.toml")) {
        Ok(loaded) => loaded.warnings.iter().for_each(|warning| one_line(warning)),
        Err(error) => {
            one_line(&error.to_string());
            error.remedy().into_iter().for_each(one_line);
        }
    }
}

/// Parses a job's record: what is taken says the same when it is written and read again.
pub fn record(data: &[u8]) {
    match Record::parse(data) {
        Ok(record) => {
            let Ok(written) = serde_json::to_vec(&record) else {
                panic!("a record that was read cannot be written");
            };
            assert_eq!(Record::parse(&written).ok(), Some(record));
        }
        Err(error) => one_line(&error.to_string()),
    }
}

/// Parses a job's payload, which is read leniently: any JSON will do.
pub fn payload(data: &[u8]) {
    let taken = Payload::parse(data);
    let json = serde_json::from_slice::<serde_json::Value>(data);
    assert_eq!(taken.is_ok(), json.is_ok());
    if let Ok(payload) = taken {
        assert!(payload.id != Some(0) && payload.pipeline_id != Some(0));
        assert!(
            payload
                .services
                .iter()
                .all(|service| !service.image.name.is_empty())
        );
    }
}

/// Scans what a machine sends: in pieces it gives what it gives at once.
///
/// The first byte says how the rest is cut.
pub fn frames(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let length = usize::from(*cut).max(1);
    let (bytes, frames, error) = scan(stream.chunks(length));
    let (all_bytes, all_frames, all_error) = scan(std::iter::once(stream));
    // A frame that is too long may be refused before its end is seen, so errors come earlier in pieces.
    if error.is_none() {
        assert_eq!(all_error, None);
        assert_eq!(bytes, all_bytes);
        assert_eq!(frames, all_frames);
    } else {
        assert!(all_bytes.starts_with(&bytes));
        assert!(all_frames.starts_with(&frames));
    }
}

fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<Frame>, Option<Malformed>) {
    let mut scanner = Scanner::new(NONCE);
    let (mut bytes, mut frames) = (Vec::new(), Vec::new());
    for piece in pieces {
        scanner.push(piece);
        loop {
            match scanner.take() {
                Ok(Some(Item::Bytes(some))) => bytes.extend_from_slice(&some),
                Ok(Some(Item::Frame(frame))) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (bytes, frames, Some(error)),
            }
        }
    }
    (bytes, frames, None)
}

/// Nothing from outside may forge a line of the job log.
fn one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
