//! Many jobs at once on this host, all with one state directory.

use std::sync::Barrier;

use crate::lab;
use crate::lab::runner::Runner;
use crate::lab::traces;
use crate::lab::traces::Traces;
use crate::lab::traces::long;
use crate::lab::traces::until;

#[test]
fn a_crowd_of_jobs_is_told_apart() {
    let count = if long() { 50 } else { 15 };
    let directory = lab::temp_dir();
    let state = directory.path().join("state");
    let together = Barrier::new(count);
    let all = Barrier::new(count + 1);
    let found = std::thread::scope(|scope| {
        for number in 0..count {
            let runner = Runner::builder().state_directory(&state).build();
            let (together, all) = (&together, &all);
            scope.spawn(move || {
                together.wait();
                // Whoever fails must still meet the others.
                let job = std::panic::AssertUnwindSafe(|| play(&runner, number));
                let played = std::panic::catch_unwind(job);
                all.wait();
                all.wait();
                match played {
                    Ok(()) => end(&runner),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            });
        }
        all.wait();
        let found = Traces::of(&state);
        all.wait();
        found
    });
    found.assert_gone();
    traces::assert_only_tombstones(&state, count);
}

/// Everything up to the cleanup.
fn play(runner: &Runner, number: usize) {
    let place = runner.root().join("builds/project");
    let place = place.display();
    runner.start();
    runner
        .run("prepare_script", format!("echo job {number}"))
        .assert_success()
        .assert_stdout(format!("job {number}\n"));
    let sources = format!("mkdir -p {place}; cd {place}; echo source {number} > source");
    runner.run("get_sources", sources).assert_stdout("");
    let code = number % 4;
    let build = format!(
        "cd {place}; cat source\n\
         setsid sleep 7000.{job} </dev/null >/dev/null 2>&1 &\n\
         i=0; while [ $i -lt 2000 ]; do echo \"{number}: line $i\"; i=$((i + 1)); done\n\
         exit {code}\n",
        job = runner.job()
    );
    let mut expected = format!("source {number}\n");
    for line in 0..2_000 {
        expected += &format!("{number}: line {line}\n");
    }
    let output = runner.run("build_script", build);
    output
        .assert_code(i32::from(code != 0))
        .assert_stdout(expected);
    let file = runner.exit_file();
    let wanted = (code != 0).then(|| code.to_string().into_bytes());
    assert_eq!(file, wanted, "job {number}");
    runner.set_status(if code == 0 { "success" } else { "failed" });
    let output = runner.run("after_script", format!("cat {place}/source"));
    output.assert_stdout(format!("source {number}\n"));
    assert!(daemon_lives(runner), "job {number} has lost its daemon");
    runner
        .run("cleanup_file_variables", format!("rm -rf {place}.tmp"))
        .assert_stdout("");
}

fn end(runner: &Runner) {
    runner.cleanup().assert_success();
    until("the daemon's end", lab::PATIENCE, || !daemon_lives(runner));
    runner.assert_nothing_left();
}

fn daemon_lives(runner: &Runner) -> bool {
    let name = format!("sleep 7000.{}", runner.job());
    let all = runner.processes();
    all.iter()
        .any(|process| process.to_string().contains(&name))
}
