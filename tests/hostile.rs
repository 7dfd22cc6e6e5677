//! Machines that say anything: floods in SSH's and in the driver's own protocol, and none of it costs the Runner's host more
//! than a little memory; and machines that let in and do no more, which are given up in time.

use std::io;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::connecting::assert_system_failure;
use crate::lab::PATIENCE;
use crate::lab::hostile::Hostile;
use crate::lab::hostile::Message;
use crate::lab::hostile::Talk;
use crate::lab::hostile::message;
use crate::lab::processes;
use crate::lab::runner::Runner;
use crate::lab::stage::Keep;
use crate::lab::stage::Output;
use crate::lab::stage::Stage;
use crate::lab::traces::long;

mod reach;

/// What a stage may hold in memory, whatever comes.
const MOST: u64 = 24 << 20;
/// How soon a cancelled stage ends, whatever comes.
const CANCELLED_WITHIN: Duration = Duration::from_secs(28);
/// How soon a known result is told, whatever comes.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// How much comes.
const FLOOD: u64 = 16 << 20;
const SCRIPT: &str = "echo begun\n";

/// Looks at what a stage holds in memory, for as long as it lives.
struct Watched(std::thread::JoinHandle<u64>);

impl Watched {
    fn begin(stage: &Stage) -> Self {
        let path = format!("/proc/{}/status", stage.pid().as_raw_nonzero());
        Self(std::thread::spawn(move || {
            let mut highest = 0;
            while let Some(peak) = peak(&path) {
                highest = peak.max(highest);
                // Another process' memory is no event that could be waited for.
                std::thread::sleep(Duration::from_millis(20));
            }
            highest
        }))
    }

    /// To be called once the stage has ended.
    #[track_caller]
    fn assert_small(self) {
        let peak = self.0.join().unwrap();
        eprintln!("a peak of {} KiB", peak >> 10);
        assert!((1..=MOST).contains(&peak), "{peak} bytes");
    }
}

/// Returns the most that a process ever had in memory; nothing once it has ended.
fn peak(status: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Returns a machine that says so much, once its far side follows and has written a line, and a job on it.
fn flooded(flood: impl Fn(&mut Talk) -> Vec<Message> + Send + Sync + 'static) -> (Hostile, Runner) {
    let machine = Hostile::start(move |talk| {
        talk.exec()?;
        talk.say("open 0")?;
        talk.out("begun\n")?;
        let messages = flood(talk);
        talk.read_nothing_of_what_comes();
        talk.flood(&messages, u64::MAX)
    });
    let runner = machine.job_with(Runner::builder().keep(Keep::Digest));
    runner.start();
    (machine, runner)
}

/// Has a stage endure a flood: its memory stays small, and in the long form it heeds its cancel.
fn endure(flood: impl Fn(&mut Talk) -> Vec<Message> + Send + Sync + 'static) {
    endure_much(FLOOD, flood);
}

/// As [`endure`], of another amount.
fn endure_much(much: u64, flood: impl Fn(&mut Talk) -> Vec<Message> + Send + Sync + 'static) {
    let (machine, runner) = flooded(flood);
    let run = runner.spawn_run("build_script", SCRIPT);
    let watched = Watched::begin(&run);
    machine.wait_sent(much);
    if long() {
        assert_heeds_cancel(run);
    } else {
        assert!(!run.is_over(), "{}", run.so_far());
        run.signal(Signal::KILL);
        run.wait(PATIENCE);
    }
    watched.assert_small();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[track_caller]
fn assert_heeds_cancel(run: Stage) -> Output {
    let since = Instant::now();
    run.signal(Signal::TERM);
    let output = run.wait(PATIENCE).assert_code(2);
    assert!(since.elapsed() <= CANCELLED_WITHIN, "{output}");
    output
}

/// Returns a message of standard output that is full of frames.
fn frames(talk: &Talk, frame: impl Fn(usize) -> String) -> Message {
    let frames: String = (0..400).map(|number| talk.frame(&frame(number))).collect();
    talk.output(frames)
}

#[test]
fn processes_that_cannot_be_ended_are_named_without_end() {
    endure(|talk| {
        let name = |number| format!("left {number} {}", "x".repeat(40));
        let frames = frames(talk, name);
        vec![frames]
    });
}

#[test]
fn the_same_on_standard_error() {
    endure(|talk| {
        let name = |number| talk.frame(&format!("left {number} {}", "x".repeat(40)));
        let frames: String = (0..400).map(name).collect();
        vec![talk.error(talk.frame("open 0") + &frames)]
    });
}

#[test]
fn receipts_are_asked_for_by_a_machine_that_does_not_read() {
    let machine = Hostile::start(|talk| {
        // The script, and nothing after it.
        let window = SCRIPT.len().try_into().unwrap();
        let exec = talk.exec_with(window)?;
        talk.say_open(&exec)?;
        // After the first GiB there would be new keys, and the connection is lost: it goes on where it was.
        if exec.verb == "start" {
            talk.out("begun\n")?;
        }
        let frames = frames(talk, |_| "next 6".to_owned());
        talk.flood(&[frames], u64::MAX)
    });
    let runner = machine.job();
    runner.start();
    let run = runner.spawn_run("build_script", SCRIPT);
    let watched = Watched::begin(&run);
    machine.wait_sent(FLOOD);
    // In the short form too: with nothing that goes out, a cancel comes through to nobody.
    let output = assert_heeds_cancel(run);
    output.assert_contains("its script did not end within 26 s");
    watched.assert_small();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_frame_has_no_end() {
    let machine = Hostile::start(|talk| {
        talk.exec()?;
        talk.say("open 0")?;
        let begun = talk.frame("left 1 x");
        talk.out(begun.trim_end())?;
        talk.flood(&[talk.output([b'x'; 32 << 10])], u64::MAX)
    });
    let runner = machine.job();
    runner.start();
    let output = runner.run("build_script", SCRIPT);
    assert_system_failure(
        &runner,
        output,
        "it sent a frame that this version does not know",
    );
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn standard_error_has_no_end() {
    endure(|talk| vec![talk.error([b'x'; 32 << 10])]);
}

#[test]
fn messages_are_larger_than_agreed_on() {
    let machine = Hostile::start(|talk| {
        let exec = talk.exec()?;
        talk.say_open(&exec)?;
        // Each byte of output keeps its whole message, if it is let.
        let mut all = "x".to_owned();
        while all.len() < 250 << 10 {
            all += &talk.frame(&format!("left {} {}", all.len(), "x".repeat(400)));
        }
        let large = talk.output(all);
        talk.flood(&[large], u64::MAX)
    });
    let runner = machine.job();
    runner.start();
    let run = runner.spawn_run("build_script", SCRIPT);
    let watched = Watched::begin(&run);
    machine.wait_logins(4);
    run.signal(Signal::KILL);
    run.wait(PATIENCE);
    watched.assert_small();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_runner_does_not_read_bytes_between_frames() {
    let machine = Hostile::start(|talk| {
        talk.exec()?;
        talk.say("open 0")?;
        let mut all = "x".to_owned();
        while all.len() < 60 << 10 {
            all += &talk.frame(&format!("left {} {}", all.len(), "x".repeat(400)));
        }
        let large = talk.output(all);
        // The pipe to the Runner takes 64 KiB of it.
        talk.flood(&[talk.output([b'x'; 32 << 10])], 64 << 10)?;
        talk.flood(&[large], u64::MAX)
    });
    let runner = machine.job();
    runner.start();
    let mut run = crate::lab::unread::spawn_unread(&runner, SCRIPT);
    let status = format!("/proc/{}/status", run.id());
    // All that is kept on the way, and then some.
    machine.wait_sent((9 << 20) / 2);
    let peak = peak(&status).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(peak <= MOST, "{peak} bytes");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn messages_about_nothing_come_without_end() {
    // Each of them is looked at: of as many bytes as elsewhere it would be a million.
    endure_much(FLOOD / 4, |talk| {
        let ignored = Message::new(message::IGNORE).text([0; 100]);
        let request = Message::new(message::GLOBAL_REQUEST);
        let asked = request.clone().text("no-such-request").byte(1);
        let alive = request.clone().text("keepalive@openssh.com").byte(1);
        let keys = request.text("hostkeys-00@openssh.com").byte(0).text("x");
        let about = |number| talk.about_channel(number);
        let adjusted = about(message::CHANNEL_WINDOW_ADJUST).number(u32::MAX);
        let status = about(message::CHANNEL_REQUEST);
        let status = status.text("exit-status").byte(0).number(0);
        let unknown = about(message::CHANNEL_REQUEST).text("x").byte(1);
        let granted = about(message::CHANNEL_SUCCESS);
        let opened = about(message::CHANNEL_OPEN_CONFIRMATION);
        let opened = opened.number(0).number(u32::MAX).number(1 << 15);
        let stranger = opening(&["no-such-channel"]);
        let mut all = vec![
            ignored, asked, alive, keys, adjusted, status, unknown, granted, opened,
        ];
        all.extend(stranger);
        (0..50).flat_map(|_| all.clone()).collect()
    });
}

#[test]
fn requests_are_made_by_a_machine_that_does_not_read() {
    if !long() {
        eprintln!(
            "skipped: it takes half a minute until such a connection counts as lost; GAD_LONG=1 runs it"
        );
        return;
    }
    let machine = Hostile::start(|talk| {
        talk.exec()?;
        talk.say("open 0")?;
        talk.out("begun\n")?;
        let asked = Message::new(message::GLOBAL_REQUEST).text("x").byte(1);
        talk.flood(&vec![asked; 1000], u64::MAX)
    });
    let runner = machine.job_with(Runner::builder().reconnect_timeout("2m"));
    runner.start();
    let run = runner.spawn_run("build_script", SCRIPT);
    run.wait_output(b"begun\n", PATIENCE);
    let watched = Watched::begin(&run);
    // Nothing more goes through once the answers fill what lies between: the connection counts as lost, and another is made.
    machine.wait_logins(3);
    run.signal(Signal::KILL);
    run.wait(PATIENCE);
    watched.assert_small();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

/// Returns how channels of these kinds are opened.
fn opening(kinds: &[&str]) -> Vec<Message> {
    let open = |kind: &&str| {
        let open = Message::new(message::CHANNEL_OPEN).text(kind);
        let open = open.number(7).number(1 << 20).number(1 << 15);
        match *kind {
            "forwarded-tcpip" | "direct-tcpip" => open.text("a").number(1).text("b").number(2),
            "x11" => open.text("a").number(1),
            "forwarded-streamlocal@openssh.com" | "direct-streamlocal@openssh.com" => {
                open.text("a").text("").number(0)
            }
            _ => open,
        }
    };
    kinds.iter().map(open).collect()
}

#[test]
fn channels_are_opened_without_end() {
    for kind in [
        "session",
        "forwarded-tcpip",
        "direct-tcpip",
        "x11",
        "forwarded-streamlocal@openssh.com",
        "auth-agent@openssh.com",
    ] {
        let machine = Hostile::start(move |talk| {
            let exec = talk.exec()?;
            talk.say(&format!(
                "open {}",
                if exec.verb == "start" { 0 } else { exec.number }
            ))?;
            talk.out("begun\n")?;
            talk.read_nothing_of_what_comes();
            talk.flood(&vec![opening(&[kind]).remove(0); 100], u64::MAX)
        });
        let runner = machine.job_with(Runner::builder().keep(Keep::Digest));
        runner.start();
        let run = runner.spawn_run("build_script", SCRIPT);
        let watched = Watched::begin(&run);
        // One connection after the other is ended for it.
        machine.wait_logins(4);
        run.signal(Signal::KILL);
        run.wait(PATIENCE);
        watched.assert_small();
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

#[test]
fn a_channel_that_the_machine_opens_is_refused_and_the_script_goes_on() {
    let machine = Hostile::start(|talk| {
        talk.exec()?;
        talk.say("open 0")?;
        for message in opening(&["session", "forwarded-tcpip", "no-such-channel"]) {
            talk.send(&message)?;
        }
        talk.refusals(3)?;
        talk.out("done\n")?;
        talk.say("end 0")?;
        talk.wait_order("done\n")?;
        talk.say("forgotten")
    });
    let runner = machine.job();
    runner.start();
    runner
        .run("build_script", SCRIPT)
        .assert_success()
        .assert_stdout("done\n");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn output_without_end_is_no_more_than_passed_on() {
    endure(|talk| vec![talk.output([b'x'; 32 << 10])]);
}

#[test]
fn a_script_writes_much() {
    let much = if long() { 1 << 30 } else { 4 * FLOOD };
    let machine = Hostile::start(move |talk| {
        talk.exec()?;
        talk.say("open 0")?;
        let line = talk.output("all is well\n".repeat(2000));
        talk.flood(&[line], much)?;
        talk.say("end 0")?;
        talk.wait_order("done\n")?;
        talk.say("forgotten")?;
        talk.listen()
    });
    let runner = machine.job_with(Runner::builder().keep(Keep::Digest));
    runner.start();
    let run = runner.spawn_run("build_script", SCRIPT);
    let watched = Watched::begin(&run);
    let output = run.wait(4 * PATIENCE).assert_success();
    assert!(output.stdout_len > much / 2, "{}", output.stdout_len);
    watched.assert_small();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_known_result_is_told_in_time_whatever_comes_after_it() {
    type After = fn(&mut Talk) -> io::Result<()>;
    let silence: After = Talk::listen;
    let malformed: After = |talk| {
        talk.say("dance 1")?;
        talk.flood(&[talk.output([b'x'; 32 << 10])], u64::MAX)
    };
    let noise: After = |talk| talk.flood(&[talk.output([b'x'; 32 << 10])], u64::MAX);
    let frames: After = |talk| {
        let frames = frames(talk, |number| format!("left {number} x"));
        talk.flood(&[frames], u64::MAX)
    };
    let hang_up: After = |_| Ok(());
    let threads: Vec<_> = [silence, malformed, noise, frames, hang_up]
        .into_iter()
        .map(|after| {
            std::thread::spawn(move || {
                let machine = Hostile::start(move |talk| {
                    let exec = talk.exec()?;
                    match exec.verb.as_str() {
                        "start" => {
                            talk.say("open 0")?;
                            talk.say("end 0")?;
                        }
                        // Later connections are no better.
                        _ => talk.say_open(&exec)?,
                    }
                    after(talk)
                });
                let runner = machine.job();
                runner.start();
                let run = runner.spawn_run("build_script", SCRIPT);
                machine.wait_logins(2);
                let since = Instant::now();
                let output = run.wait(PATIENCE).assert_success();
                assert!(since.elapsed() <= KNOWN_WITHIN, "{output}");
                runner.cleanup().assert_success();
                runner.assert_nothing_left();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_machine_that_is_gone_talks_on() {
    let (machine, runner) = flooded(|talk| vec![talk.output([b'x'; 32 << 10])]);
    let run = runner.spawn_run("build_script", SCRIPT);
    let watched = Watched::begin(&run);
    machine.wait_sent(FLOOD);
    let since = Instant::now();
    for process in processes::of(runner.root()) {
        if process.to_string().contains("sleep 3600") {
            process.kill();
        }
    }
    let output = run.wait(PATIENCE).assert_code(2);
    assert!(since.elapsed() <= CANCELLED_WITHIN, "{output}");
    output.assert_contains("the machine is gone");
    watched.assert_small();
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn what_is_said_before_the_far_side_speaks_is_bounded() {
    let noise = Hostile::start(|talk| {
        talk.exec()?;
        talk.flood(&[talk.output([b'x'; 32 << 10])], u64::MAX)
    });
    let runner = noise.job();
    runner.start();
    let output = runner.run("build_script", SCRIPT);
    assert_system_failure(&runner, output, "start-up files print more than");
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
