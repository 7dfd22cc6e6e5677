//! What a job writes, and what is reported of it.

use std::fs;

use super::super::Theatre;
use super::WHOLE;

/// The whole log, line by line; what the driver and the job say themselves is easy to tell apart.
#[test]
fn a_failing_job_reads_as_the_runners_log_does() {
    let theatre = Theatre::new();
    theatre.on(
        "prepare",
        r#"[ "$(grep -c prepare "$here/calls")" -ge 2 ] || exit $SYSTEM_FAILURE_EXIT_CODE"#,
    );
    let mut plan = theatre.plan("echo said; exit 42");
    plan.job.after_script = Some(b"exit 3".to_vec());
    let played = theatre.play(plan);
    let log = played.text();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| !line.starts_with("Running on "))
        .collect();
    assert_eq!(
        lines,
        [
            "Running with gitlab-runner 19.4.0 (d79f3e7b)",
            "  on try trytrytry, system ID: s_000000000000",
            "Preparing the \"custom\" executor",
            "Using Custom executor with driver fake 1.2...",
            "ERROR: Preparation failed: exit status 2",
            "Will be retried in 20ms ...",
            "Using Custom executor with driver fake 1.2...",
            "Preparing environment",
            "Getting source from Git repository",
            "Skipping Git repository setup",
            "Skipping Git checkout",
            "Skipping Git submodules setup",
            "Executing \"step_script\" stage of the job script",
            "WARNING: Starting with version 17.0 the 'build_script' stage will be replaced with 'step_script': \
             https://gitlab.com/groups/gitlab-org/-/epics/6112",
            "$ echo said; exit 42",
            "said",
            "Running after_script",
            "$ exit 3",
            "WARNING: after_script failed, but job will continue unaffected: exit status 3",
            "Cleaning up project directory and file based variables",
            "ERROR: Job failed: exit status 42",
        ]
    );
}

#[test]
fn output_is_passed_on_to_its_last_byte_whatever_it_is() {
    let theatre = Theatre::new();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    fs::write(theatre.file("bytes"), &bytes).unwrap();
    // A child that is left behind delays the stage until it closes the output.
    theatre.on("prepare", r#"cat "$here/bytes"; ( read -r _ < "$here/go"; printf late ) & echo > "$here/go" & exit 0"#);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        theatre.file("go"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let played = theatre.play(theatre.plan("true"));
    let mut expected = bytes;
    expected.extend(b"latePreparing environment\n");
    let there = memchr::memmem::find(&played.log, &expected);
    assert!(
        there.is_some(),
        "the bytes are not all there, in their order"
    );
}

#[test]
fn output_is_passed_on_before_the_line_ends() {
    let theatre = Theatre::new();
    let go = theatre.file("go");
    let script = format!(
        "printf part; until [ -e {} ]; do sleep 0.01; done; echo ial",
        go.display()
    );
    let played = theatre.play_with(theatre.plan(script), async |_, mut log, _| {
        log.wait_for(|all| all.ends_with(b"part")).await.unwrap();
        fs::write(&go, "").unwrap();
    });
    assert!(played.text().contains("partial\n"));
}

#[test]
fn the_report_names_every_process() {
    let theatre = Theatre::new();
    let played = theatre.play(theatre.plan("exit 42"));
    let json: serde_json::Value = serde_json::from_str(&played.report.json()).unwrap();
    assert_eq!(json["status"], "failed");
    assert_eq!(json["exit_code"], 42);
    assert_eq!(json["failure_reason"], "script_failure");
    assert_eq!(
        json["job_id"].to_string(),
        theatre.env(1)["CUSTOM_ENV_CI_JOB_ID"]
    );
    let names: Vec<_> = json["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, WHOLE);
    assert_eq!(json["stages"][4]["exit_code"], 1);
    assert_eq!(json["stages"][4]["script_exit_code"], 42);
    assert_eq!(
        json["stages"][3]["script_exit_code"],
        serde_json::Value::Null
    );
    assert_eq!(json["stages"][4]["attempt"], 1);
    assert!(json["stages"][4]["seconds"].is_f64());
    let table = played.report.table();
    assert_eq!(table.len(), WHOLE.len() + 1);
    assert!(
        table[4].starts_with("build_script  ") && table[4].ends_with(" s  exit code 42"),
        "{table:?}"
    );
}
