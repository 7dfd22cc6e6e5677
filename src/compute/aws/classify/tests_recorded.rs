//! The table against wordings that were recorded from public reports and AWS's documentation, each with what is right for it.
//!
//! The records are not part of the project. They are looked for in the directory that the variable `GAD_AWS_WORDS` names, or
//! else in `../shared/data/aws-words` beside the project. Where they are missing the test says so and passes (`tests_forms.rs` holds
//! wordings of the same shapes that are always read); under `CI=true`, where nobody reads what passes, it fails.

#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test tells people what it skipped, and finds its data by the environment"
)]

use std::path::{Path, PathBuf};

use super::*;
use crate::compute::fargate::stopped::stopped;
use crate::compute::fargate::task::{Container, Stop, Task};

/// What the job log ends with after AWS's words and the remedy, where rungs have no room.
const LATER: &str = "Otherwise retry the job later, or raise `capacity_wait`.";

/// One recorded wording.
struct Row {
    id: String,
    code: String,
    words: String,
    place: String,
    class: String,
    remedy: String,
}

fn records() -> Option<PathBuf> {
    let named = std::env::var_os("GAD_AWS_WORDS").map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/aws-words");
    let folder = named.unwrap_or_else(beside);
    folder.is_dir().then_some(folder)
}

fn rows(folder: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for file in ["task-stops", "task-calls", "fleet-errors", "instance-ends"] {
        let text = std::fs::read_to_string(folder.join(format!("{file}.tsv"))).unwrap();
        for line in text.lines().skip(1) {
            let [id, code, words, place, class, remedy, _] =
                line.split('\t').collect::<Vec<_>>()[..]
            else {
                panic!("{file}: {line}");
            };
            rows.push(Row {
                id: id.into(),
                code: code.into(),
                words: words.into(),
                place: place.into(),
                class: class.into(),
                remedy: remedy.into(),
            });
        }
    }
    rows
}

impl Row {
    /// Reads the row as the driver does.
    fn verdict(&self) -> Verdict {
        let Self { code, words, .. } = self;
        match self.place.as_str() {
            "RunTask answer" => service_error(Action::RunTask, code, words),
            "RunTask failures[]" => match words.split_once(": ") {
                Some((reason, detail)) => failure(Action::RunTask, reason, Some(detail)),
                None => failure(Action::RunTask, words, None),
            },
            "CreateFleet answer" => service_error(Action::CreateFleet, code, words),
            "CreateFleet errors[]" => fleet_error(code, words, "m5.large", 1),
            "StateReason" => instance_ended(code, &said(code, words), false),
            "stoppedReason" => stop(code, words, None, words),
            "container reason" => {
                let (_, rest) = words.split_once(" exited with ").unwrap();
                let (exit, reason) = rest.split_once(": ").unwrap();
                let code_of = exit.parse().ok();
                stop(code, "Essential container in task exited", code_of, reason)
            }
            other => panic!("{}: {other}", self.id),
        }
    }

    /// Whether what the driver does about a verdict is what is right.
    fn is_of_class(&self, why: Why) -> bool {
        // Only these are told as something to correct.
        let told_to_correct = why.is_final()
            || matches!(why, Why::Network | Why::Credentials)
            || (why == Why::NotFound && self.code.contains("LaunchTemplate"))
            || (why == Why::Exited && self.place == "container reason");
        let may_pass = !why.is_final() && !told_to_correct;
        match self.class.as_str() {
            "next-rung" => why.hands_over() && !why.passes(),
            "settings" => told_to_correct && !why.hands_over() && !why.repeats_call(),
            "again" => {
                let known = why.repeats_call() || why.passes();
                may_pass && (known || matches!(why, Why::Registry | Why::Conflict))
            }
            "host" => may_pass && (why.passes() || why == Why::Outage),
            "job" => why == Why::Memory,
            other => panic!("{}: {other}", self.id),
        }
    }

    /// Returns the parts of the remedy that a text does not have.
    fn missing(&self, text: &str) -> Vec<&str> {
        let parts = self
            .remedy
            .split(',')
            .map(str::trim)
            .filter(|p| !p.is_empty());
        let lacks = |part: &&str| match part.strip_prefix('!') {
            Some(word) => has(text, word),
            None => !part.split('/').any(|word| has(text, word)),
        };
        parts.filter(lacks).collect()
    }
}

/// Whether a word stands in a text from its beginning on, in any case; one in capitals exactly so.
fn has(text: &str, word: &str) -> bool {
    let plain: String = text.chars().filter(|c| !"`*".contains(*c)).collect();
    let exact = word.chars().any(char::is_alphabetic) && word == word.to_uppercase();
    let (text, word) = match exact {
        true => (plain, word.to_owned()),
        false => (plain.to_lowercase(), word.to_lowercase()),
    };
    text.match_indices(&word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || c == '_'))
    })
}

fn stop(code: &str, reason: &str, exit: Option<i32>, of_container: &str) -> Verdict {
    let container = Container {
        name: "ci-coordinator".into(),
        exit_code: exit,
        reason: Some(of_container.into()),
    };
    let task = Task {
        stop: Some(Stop {
            code: Some(code.into()),
            reason: Some(reason.into()),
            containers: vec![container],
        }),
        ..Task::default()
    };
    stopped(&task, "ci-coordinator")
}

#[test]
fn every_recorded_wording_is_read_as_what_is_right_for_it() {
    let Some(folder) = records() else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "the recorded wordings are missing: set GAD_AWS_WORDS"
        );
        eprintln!("skipped: there are no recorded wordings beside the project");
        return;
    };
    let rows = rows(&folder);
    assert!(rows.len() >= 143, "{}", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let verdict = row.verdict();
        let told = match verdict.why.hands_over() {
            true => format!("{} {LATER}", verdict.remedy),
            false => verdict.remedy.clone(),
        };
        let missing = row.missing(&told);
        if !row.is_of_class(verdict.why) || !missing.is_empty() {
            wrong.push(format!(
                "{} ({}): {:?}, without {missing:?}: {told}\n    {}",
                row.id, row.class, verdict.why, row.words
            ));
        }
        // AWS's own sentence is told with it, and one that is not known is told as such nowhere.
        assert!(
            row.words.chars().count() > 600
                || verdict
                    .cause
                    .contains(row.words.rsplit(": ").next().unwrap()),
            "{}: {verdict:?}",
            row.id
        );
        assert_ne!(verdict.why, Why::Other, "{}", row.id);
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}
