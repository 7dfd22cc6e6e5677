//! Machines that let in and do no more: logins come ever more rarely, and the job ends within its `reconnect_timeout`.

use std::io;
use std::time::Duration;
use std::time::Instant;

use crate::connecting::assert_system_failure;
use crate::lab::PATIENCE;
use crate::lab::hostile::Hostile;
use crate::lab::hostile::Talk;
use crate::lab::runner::Runner;
use crate::lab::stage::Output;
use crate::lab::traces::long;

use super::SCRIPT;

/// `reconnect_timeout` of these jobs.
const LIMIT: Duration = Duration::from_secs(8);

/// Returns how a run ended on a machine that does this, and how many logins it took after the first.
fn given_up(
    behaviour: impl Fn(&mut Talk) -> io::Result<()> + Send + Sync + 'static,
) -> (Output, usize) {
    let machine = Hostile::start(behaviour);
    let runner = machine.job_with(Runner::builder().reconnect_timeout("8s"));
    runner.start();
    let before = machine.logins().len();
    let output = runner.spawn_run("build_script", SCRIPT).wait(PATIENCE);
    let logins = machine.logins().len() - before;
    assert!(output.duration >= LIMIT, "{output}");
    assert_system_failure(&runner, output.clone(), "");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
    (output, logins)
}

#[test]
fn a_machine_that_lets_in_and_hangs_up_is_given_up() {
    let (output, logins) = given_up(|_| Ok(()));
    let output =
        output.assert_contains("the machine lets in, but its script was out of reach for 8s");
    assert!((3..12).contains(&logins), "{logins} logins:\n{output}");
}

/// As one does that can start no process: no job waits for that as long as for a network.
#[test]
fn a_machine_that_lets_in_no_more_than_that_is_taken_for_one_without_processes() {
    let machine = Hostile::start(|_| Ok(()));
    let runner = machine.job_with(Runner::builder().reconnect_timeout("5m"));
    runner.start();
    let output = runner.run("build_script", SCRIPT);
    assert!(output.duration < Duration::from_secs(20), "{output}");
    assert_system_failure(&runner, output, "its limit of processes may be reached");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_machine_that_says_open_and_ends_is_given_up() {
    let (output, logins) = given_up(|talk| {
        talk.exec()?;
        talk.say("open 0")?;
        talk.close()
    });
    let output = output.assert_contains("its far side ended at once");
    assert!((3..12).contains(&logins), "{logins} logins:\n{output}");
}

#[test]
fn a_machine_that_opens_no_channel_is_given_up() {
    let (output, _) = given_up(|talk| {
        talk.channel_asked_for()?;
        talk.listen()
    });
    output.assert_contains("it began no command");
}

#[test]
fn a_machine_that_takes_the_command_and_says_nothing_is_given_up() {
    let (output, _) = given_up(|talk| {
        talk.exec()?;
        talk.listen()
    });
    output.assert_contains("its far side said nothing");
}

#[test]
fn noise_is_no_word() {
    let (output, _) = given_up(|talk| {
        talk.exec()?;
        talk.read_nothing_of_what_comes();
        talk.flood(&[talk.error([b'x'; 32 << 10])], u64::MAX)
    });
    // A fast host reads a GiB in that time: then there would be new keys, and the connection is lost.
    output.assert_contains("the machine lets in, but its script was out of reach for 8s");
}

#[test]
fn a_far_side_that_ends_without_a_word_is_told_at_once() {
    let machine = Hostile::start(|talk| {
        talk.exec()?;
        talk.send(&talk.error("sh: no such thing"))?;
        talk.close()
    });
    let runner = machine.job_with(Runner::builder().reconnect_timeout("5m"));
    runner.start();
    let output = runner.run("build_script", SCRIPT);
    let reason = "the machine cannot run the driver's far side: sh: no such thing";
    assert_system_failure(&runner, output, reason);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_quiet_script_is_not_lost() {
    // Longer than it may be out of reach, and than what counts as progress.
    let quiet = Duration::from_secs(if long() { 90 } else { 12 });
    let machine = Hostile::start(move |talk| {
        let exec = talk.exec()?;
        match exec.verb.as_str() {
            "start" => {
                talk.say("open 0")?;
                std::thread::sleep(quiet);
                // Lost, with all the time it may be.
                Ok(())
            }
            _ => {
                talk.say("open 0")?;
                talk.out("done\n")?;
                talk.say("end 0")?;
                talk.wait_order("done\n")?;
                talk.say("forgotten")
            }
        }
    });
    let runner = machine.job_with(Runner::builder().reconnect_timeout("8s"));
    runner.start();
    let run = runner.spawn_run("build_script", SCRIPT);
    let output = run.wait(quiet + PATIENCE).assert_success();
    assert_eq!(output.stderr_text(), "");
    assert_eq!(machine.logins().len(), 3);
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_loss_is_told_wherever_it_happens() {
    if !long() {
        eprintln!("skipped: takes over a minute; GAD_LONG=1 runs it");
        return;
    }
    let behaviours: [fn(&mut Talk) -> io::Result<()>; 3] = [
        // Of a script that has begun; before that this would be a machine without a process left.
        |talk| match talk.exec()?.verb.as_str() {
            "start" => talk.say("open 0"),
            _ => Ok(()),
        },
        |talk| {
            talk.channel_asked_for()?;
            talk.listen()
        },
        |talk| {
            talk.exec()?;
            talk.listen()
        },
    ];
    let threads = behaviours.map(|behaviour| {
        std::thread::spawn(move || {
            let machine = Hostile::start(behaviour);
            let runner = machine.job_with(Runner::builder().reconnect_timeout("5m"));
            runner.start();
            let since = Instant::now();
            let run = runner.spawn_run("build_script", SCRIPT);
            run.wait_output(b"no connection to the machine for 60 s", 2 * PATIENCE);
            assert!(since.elapsed() >= Duration::from_secs(59));
            run.signal(rustix::process::Signal::KILL);
            run.wait(PATIENCE);
            runner.cleanup().assert_success();
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn lines_before_the_version_are_read_over() {
    for before in [
        "starting\r\n".repeat(30),
        "x".repeat(300) + "\r\n",
        "y\n".repeat(1000),
        "z".repeat(8000) + "\n",
    ] {
        let machine = Hostile::start_after(before.as_bytes(), |talk| {
            talk.exec()?;
            talk.say("open 0")?;
            talk.say("end 0")?;
            talk.wait_order("done\n")?;
            talk.say("forgotten")
        });
        let runner = machine.job();
        runner.start();
        runner.run("build_script", SCRIPT).assert_success();
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn a_greeting_without_end_is_told() {
    let before = "z\n".repeat(2000);
    let machine = Hostile::start_after(before.as_bytes(), |_| Ok(()));
    let runner = machine.job_with(Runner::builder().connect_timeout("3s"));
    runner.config().assert_success();
    let output = runner.prepare();
    assert_system_failure(&runner, output, "before its SSH version");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
