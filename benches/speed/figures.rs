//! The figures themselves.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Result;
use crate::machine::Bench;
use crate::measure::{self, largest, median};
use crate::table::{Row, Table, Target};

/// Sub-stages of the job whose processor time counts.
const SUB_STAGES: u32 = 10;

/// How much a script prints in `output`.
const GIB: u64 = 1 << 30;

/// How long a task stays in each state on its way up that takes 30 s.
const ORDINARY_START: [(&str, f64); 3] = [
    ("provisioning", 10.0),
    ("pending", 15.0),
    ("activating", 5.0),
];

/// Peaks vary by pages only.
const PEAK_ROUNDS: u32 = 5;

/// `config` as a whole process, beside the smallest process there is.
pub(crate) fn config(table: &mut Table, bench: &mut Bench, rounds: u32) -> Result<()> {
    let job = bench.new_job()?;
    let (mut here, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        here.push(measure::wall(&mut bench.stage(job, "config"))?);
        peer.push(measure::wall(&mut Command::new("/bin/true"))?);
    }
    let value = median(&mut here);
    table.row(&Row {
        name: "config, whole process",
        here: format!("{value:.1} ms"),
        peer: format!("{:.1} ms  /bin/true", median(&mut peer)),
        value,
        target: Target::Most(5.0, "<= 5 ms"),
        go: "4-6 ms",
    });
    let report = bench.at("peak");
    let mut peaks = Vec::new();
    for _ in 0..PEAK_ROUNDS {
        measure::wall(&mut measure::with_peak(
            &bench.stage(job, "config"),
            &report,
        )?)?;
        peaks.push(measure::peak(&report)?);
    }
    let value = median(&mut peaks);
    table.row(&Row {
        name: "config, peak memory",
        here: format!("{value:.1} MiB"),
        peer: String::new(),
        value,
        target: Target::Most(12.0, "<= 12 MiB"),
        go: "13 MiB",
    });
    Ok(())
}

/// Sub-stages that do nothing, beside `ssh` that does nothing.
pub(crate) fn sub_stage(table: &mut Table, bench: &mut Bench, rounds: u32) -> Result<()> {
    let job = bench.prepare()?;
    let nothing = job.bench().script("nothing.sh", "")?;
    let colon = job.bench().script("colon.sh", ":\n")?;
    let (mut empty, mut line, mut ssh) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        empty.push(measure::wall(&mut job.run(&nothing))?);
        ssh.push(measure::wall(&mut job.ssh(&[], &["sh", "-c", "true"]))?);
        line.push(measure::wall(&mut job.run(&colon))?);
    }
    let peer = median(&mut ssh);
    let target = match job.bench().is_own() {
        true => Target::Most(0.4, "<= 0.4x"),
        false => Target::Most(0.8, "<= 0.8x"),
    };
    for (name, mut values) in [
        ("sub-stage, script of 0 bytes", empty),
        ("sub-stage, script of one line", line),
    ] {
        let here = median(&mut values);
        table.ratio(&Row {
            name,
            here: format!("{here:.0} ms"),
            peer: format!("{peer:.0} ms  ssh, curve25519-sha256"),
            value: here / peer,
            target,
            go: "0.8x",
        });
    }
    job.cleanup().map(|_| ())
}

/// Processor time of all processes of a job, beside as many `ssh`.
pub(crate) fn cpu(table: &mut Table, bench: &mut Bench, rounds: u32) -> Result<()> {
    let (mut here, mut keeper, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    let nothing = bench.script("nothing.sh", "")?;
    for _ in 0..rounds {
        let began = measure::cpu_of_children()?;
        let number = bench.new_job()?;
        measure::wall(&mut bench.stage(number, "config"))?;
        let job = bench.prepare()?;
        for _ in 0..SUB_STAGES {
            measure::wall(&mut job.run(&nothing))?;
        }
        if job.bench().account().is_none() {
            keeper.push(job.keeper_cpu()?);
        }
        let driver = measure::cpu_of_children()?;
        for _ in 0..SUB_STAGES {
            measure::wall(&mut job.ssh(&[], &["sh", "-c", "true"]))?;
        }
        let ssh = measure::cpu_of_children()?;
        job.cleanup()?;
        let cleanup = measure::cpu_of_children()? - ssh;
        here.push(driver - began + cleanup);
        peer.push(ssh - driver);
    }
    let value = median(&mut here);
    table.row(&Row {
        name: "CPU of a job, 10 empty sub-stages",
        here: format!("{value:.2} s"),
        peer: format!("{:.2} s  10 ssh", median(&mut peer)),
        value,
        target: Target::Most(0.3, "<= 0.3 s"),
        go: "0.77 s, 0.54 s of it its RSA key",
    });
    if !keeper.is_empty() {
        table.row(&Row {
            name: "  the machine's keeper besides",
            here: format!("{:.3} s", median(&mut keeper)),
            peer: String::new(),
            value: 0.0,
            target: Target::None,
            go: "",
        });
    }
    Ok(())
}

/// Much output, beside the same through `ssh`.
pub(crate) fn output(table: &mut Table, bench: &mut Bench, rounds: u32) -> Result<()> {
    const COMMAND: &str = "head -c 1073741824 /dev/zero";
    let job = bench.prepare()?;
    let script = job.bench().script("output.sh", &format!("{COMMAND}\n"))?;
    let report = job.bench().at("peak");
    let command: Vec<&str> = COMMAND.split(' ').collect();
    let (mut here, mut ssh, mut gcm, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        here.push(rate(&mut measure::with_peak(&job.run(&script), &report)?)?);
        peaks.push(measure::peak(&report)?);
        ssh.push(rate(&mut job.ssh(&[], &command))?);
        gcm.push(rate(
            &mut job.ssh(&["-c", "aes128-gcm@openssh.com"], &command),
        )?);
    }
    let value = median(&mut here);
    let target = match job.bench().is_own() {
        true => Target::Least(1.2, ">= 1.2x"),
        false => Target::Least(0.7, ">= 0.7x"),
    };
    for (mut values, peer, target, go) in [
        (ssh, "ssh", target, "1.2-1.6x"),
        (gcm, "ssh -c aes128-gcm", Target::None, ""),
    ] {
        let other = median(&mut values);
        table.ratio(&Row {
            name: "1 GiB of output",
            here: format!("{value:.0} MiB/s"),
            peer: format!("{other:.0} MiB/s  {peer}"),
            value: value / other,
            target,
            go,
        });
    }
    let value = median(&mut peaks);
    table.row(&Row {
        name: "1 GiB of output, peak memory",
        here: format!("{value:.1} MiB"),
        peer: String::new(),
        value,
        target: Target::Most(24.0, "<= 24 MiB"),
        go: "27-30 MiB",
    });
    job.cleanup().map(|_| ())
}

fn rate(command: &mut Command) -> Result<f64> {
    let (bytes, seconds) = measure::drained(command)?;
    if bytes != GIB {
        return Err(format!("{bytes} bytes came of {GIB}").into());
    }
    Ok((bytes >> 20) as f64 / seconds)
}

/// From a server that listens to a session.
pub(crate) fn login(table: &mut Table, bench: &mut Bench, rounds: u32) -> Result<()> {
    let mut waits = Vec::new();
    let mut ssh = Vec::new();
    for round in 0..rounds {
        // Spread over the pauses between two attempts, so that luck evens out.
        bench.delay(0.5 + 0.037 * f64::from(round % 8))?;
        let job = bench.prepare()?;
        waits.push(measure::ms(job.login));
        ssh.push(measure::wall(&mut job.ssh(&[], &["true"]))?);
        job.cleanup()?;
    }
    bench.delay(0.0)?;
    let value = median(&mut waits);
    table.row(&Row {
        name: "server listens -> prepare is done",
        here: format!("{value:.0} ms, {:.0} at most", largest(&waits)),
        peer: format!("{:.0} ms  ssh true, once it listens", median(&mut ssh)),
        value,
        target: Target::Most(300.0, "<= 300 ms"),
        go: "",
    });
    Ok(())
}

/// From a line that the script prints to the same line on the driver's standard output.
pub(crate) fn line(table: &mut Table, bench: &mut Bench, rounds: u32) -> Result<()> {
    let job = bench.prepare()?;
    let text = format!(
        "i=0\nwhile [ $i -lt {rounds} ]; do\nsleep 0.0$((i * 7 % 90 + 10))\ndate +%s%N\ni=$((i + 1))\ndone\n"
    );
    let script = job.bench().script("lines.sh", &text)?;
    let quoted = format!("'{text}'");
    let mut here = delays(&mut job.run(&script))?;
    let mut ssh = delays(&mut job.ssh(&[], &["bash", "-c", &quoted]))?;
    let value = median(&mut here);
    table.row(&Row {
        name: "line printed -> on standard output",
        here: format!("{value:.1} ms, {:.1} at most", largest(&here)),
        peer: format!(
            "{:.1} ms, {:.1} at most  ssh",
            median(&mut ssh),
            largest(&ssh)
        ),
        value,
        target: Target::Most(60.0, "<= 60 ms"),
        go: "",
    });
    job.cleanup().map(|_| ())
}

/// Reads lines that are the time at which they were printed, and returns how late each came, in milliseconds.
fn delays(command: &mut Command) -> Result<Vec<f64>> {
    let (mut child, stdout) = measure::piped(command.stderr(Stdio::null()))?;
    let mut delays = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let came = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let nanoseconds: u64 = line?.trim().parse()?;
        delays.push((came - nanoseconds as f64 / 1e9) * 1e3);
    }
    let status = child.wait()?;
    if delays.is_empty() || !status.success() {
        return Err(format!("{:?} ended with {status}", command.get_program()).into());
    }
    Ok(delays)
}

/// AWS API calls of a job whose task takes as long to come up as on AWS.
pub(crate) fn calls(table: &mut Table, bench: &mut Bench, rounds: u32) -> Result<()> {
    let account = bench.account().ok_or("only tasks have an account")?;
    account.timings(&ORDINARY_START);
    let mut counts = Vec::new();
    for _ in 0..rounds {
        let count = |bench: &Bench| bench.account().map_or(0, |a| a.calls("*").len());
        let before = count(bench);
        let job = bench.prepare()?;
        job.cleanup()?;
        counts.push((count(bench) - before) as f64);
    }
    let value = largest(&counts);
    table.row(&Row {
        name: "AWS calls of a job that starts in 30 s",
        here: format!("{value:.0}"),
        peer: String::new(),
        value,
        target: Target::Most(8.0, "<= 8"),
        go: "",
    });
    Ok(())
}
