//! Whatever is quoted comes out of the shell as the same bytes.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::super::args::command_line;
use super::super::script::ansi_c_quoted;
use super::Theatre;

/// Returns what the shell prints that reads this program from its standard input.
fn shell(words: &[&str], program: &[u8]) -> Vec<u8> {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(program).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn evaluated(words: &[&str], bytes: &[u8]) -> Vec<u8> {
    // Through `eval` as well, which is where the scripts have most of it.
    let mut inner = b"printf '%s|' ".to_vec();
    inner.extend(ansi_c_quoted(bytes));
    let mut program = inner.clone();
    program.extend(b"\neval ");
    program.extend(ansi_c_quoted(&inner));
    program.push(b'\n');
    shell(words, &program)
}

fn twice(bytes: &[u8]) -> Vec<u8> {
    [bytes, b"|", bytes, b"|"].concat()
}

#[test]
fn every_byte_beside_every_kind_of_neighbour() {
    let mut all = Vec::new();
    for byte in 1..=255 {
        for neighbour in *b"0aFn'\\\"$`! \n\x01\x7f\xc3" {
            all.extend([byte, neighbour, byte]);
        }
    }
    let busybox = Command::new("busybox").arg("true").output().is_ok();
    let shells = [&["bash"][..], &["bash", "--posix"], &["busybox", "sh"]];
    for words in &shells[..if busybox { 3 } else { 2 }] {
        assert!(evaluated(words, &all) == twice(&all), "{words:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bash_evaluates_the_quoted_bytes_to_the_same(bytes in prop::collection::vec(1_u8.., 0..2000)) {
        prop_assert_eq!(evaluated(&["bash"], &bytes), twice(&bytes));
    }

    #[test]
    fn bash_takes_the_line_apart_into_the_same_words(
        words in prop::collection::vec(prop::collection::vec(1_u8.., 0..20), 1..8)
    ) {
        let line = command_line(&words.iter().map(|word| OsStr::from_bytes(word)).collect::<Vec<_>>());
        let mut program = b"printf '%s\\0' ".to_vec();
        program.extend(line);
        program.push(b'\n');
        let mut expected = words.join(&0);
        expected.push(0);
        prop_assert_eq!(shell(&["bash"], &program), expected);
    }
}

#[test]
fn scripts_and_variables_of_any_bytes_run_as_they_are() {
    let theatre = Theatre::new();
    let value: String = ('\u{1}'..='\u{ff}').chain(['€', '🦀']).collect();
    let raw: Vec<u8> = (1..=255).filter(|b| !b"\n'".contains(b)).collect();
    let mut script = b"cat <<'end'\n".to_vec();
    script.extend(&raw);
    script.extend(b"\nend\nif true; then\n  printf '%s' \"$ODD\" > odd\nfi # no newline");
    let mut plan = theatre.plan(&script);
    plan.job.variables.push(("ODD".into(), value.clone()));
    let played = theatre.play(plan);
    assert_eq!(played.report.failure, None, "{}", played.text());
    assert!(memchr::memmem::find(&played.log, &raw).is_some());
    assert!(
        played
            .text()
            .contains("$ cat <<'end' # collapsed multi-line command\n")
    );
    assert_eq!(
        std::fs::read(theatre.file("builds/try/try/odd")).unwrap(),
        value.as_bytes()
    );
}
