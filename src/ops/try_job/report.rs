//! The report at the end: the table of times and the JSON object.

use std::time::Duration;

use serde::Serialize;

use super::verdict::Failure;

/// One process that was started.
#[derive(Clone, Debug)]
pub(super) struct StageTime {
    pub(super) name: &'static str,
    pub(super) attempt: u32,
    pub(super) took: Duration,
    /// The process's; `None` where a signal ended it, or where it could not be started or ended.
    pub(super) exit_code: Option<i32>,
    /// The script's own, where that is what failed.
    pub(super) script_exit_code: Option<i64>,
}

/// How the job went.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) job_id: u64,
    /// The file that the stages got, where one was named.
    pub(super) configuration: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) stages: Vec<StageTime>,
    pub(super) total: Duration,
}

#[derive(Serialize)]
struct Json<'a> {
    job_id: u64,
    configuration: Option<&'a str>,
    status: &'a str,
    exit_code: u8,
    failure_reason: Option<&'a str>,
    stages: Vec<JsonStage<'a>>,
}

#[derive(Serialize)]
struct JsonStage<'a> {
    name: &'a str,
    attempt: u32,
    seconds: f64,
    exit_code: Option<i32>,
    script_exit_code: Option<i64>,
}

impl Report {
    /// Returns the exit code that `try` ends with.
    pub(super) fn exit_code(&self) -> u8 {
        self.failure.as_ref().map_or(0, Failure::exit_code)
    }

    /// Returns GitLab's word for how the job ended.
    pub(super) fn status(&self) -> &'static str {
        match &self.failure {
            None => "success",
            Some(Failure::Cancelled { .. }) => "canceled",
            Some(_) => "failed",
        }
    }

    /// Returns one line a stage, and the total.
    pub(super) fn table(&self) -> Vec<String> {
        let names: Vec<String> = self
            .stages
            .iter()
            .map(|stage| match stage.attempt {
                1 => stage.name.to_owned(),
                n => format!("{} ({n})", stage.name),
            })
            .collect();
        let width = names.iter().map(String::len).max().unwrap_or_default();
        let mut lines: Vec<String> = names
            .iter()
            .zip(&self.stages)
            .map(|(name, stage)| {
                let code = stage.script_exit_code.or(stage.exit_code.map(i64::from));
                let note = match code {
                    Some(0) => String::new(),
                    Some(code) => format!("  exit code {code}"),
                    None => "  no exit code".to_owned(),
                };
                format!("{name:width$}  {:>9.3} s{note}", stage.took.as_secs_f64())
            })
            .collect();
        lines.push(format!(
            "{:width$}  {:>9.3} s",
            "total",
            self.total.as_secs_f64()
        ));
        lines
    }

    /// Returns the JSON object, on one line.
    pub(super) fn json(&self) -> String {
        let stages = self
            .stages
            .iter()
            .map(|stage| JsonStage {
                name: stage.name,
                attempt: stage.attempt,
                seconds: whole_milliseconds(stage.took),
                exit_code: stage.exit_code,
                script_exit_code: stage.script_exit_code,
            })
            .collect();
        let object = Json {
            job_id: self.job_id,
            configuration: self.configuration.as_deref(),
            status: self.status(),
            exit_code: self.exit_code(),
            failure_reason: self.failure.as_ref().map(Failure::reason),
            stages,
        };
        // Strings and numbers alone: it cannot fail.
        serde_json::to_string(&object).unwrap_or_default()
    }
}

fn whole_milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
