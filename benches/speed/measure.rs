//! Taking time, processor time and memory of child processes.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// The unit of times in /proc; the same on every Linux that a program sees.
const USER_HZ: f64 = 100.0;

/// Returns the middle one.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Returns the largest.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

/// Returns milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Runs a command to its end and returns how long that took, in milliseconds; what it prints is lost.
pub(crate) fn wall(command: &mut Command) -> Result<f64> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let began = Instant::now();
    let output = command.spawn()?.wait_with_output()?;
    let took = ms(began.elapsed());
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!(
            "{:?} ended with {}: {}",
            command.get_program(),
            output.status,
            said.trim()
        )
        .into());
    }
    Ok(took)
}

/// Starts a command whose output is read by the caller.
pub(crate) fn piped(command: &mut Command) -> Result<(Child, ChildStdout)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no pipe")?;
    Ok((child, stdout))
}

/// Runs a command, drains its output and returns how many bytes there were and how long that took, in seconds.
pub(crate) fn drained(command: &mut Command) -> Result<(u64, f64)> {
    let began = Instant::now();
    let (mut child, mut stdout) = piped(command)?;
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        match stdout.read(&mut buffer)? {
            0 => break,
            n => bytes += n as u64,
        }
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{:?} ended with {status}", command.get_program()).into());
    }
    Ok((bytes, began.elapsed().as_secs_f64()))
}

/// Returns a command that also writes its peak of resident memory to a file. By a small program in between: a
/// process inherits the peak of the one that it was forked from.
pub(crate) fn with_peak(command: &Command, report: &Path) -> Result<Command> {
    const TIME: &str = "/usr/bin/time";
    if !Path::new(TIME).exists() {
        return Err(format!("{TIME} is missing (package time)").into());
    }
    let mut outer = Command::new(TIME);
    outer.args(["-f", "%M", "-o"]).arg(report).arg("--");
    outer.arg(command.get_program()).args(command.get_args());
    outer.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
    Ok(outer)
}

/// Reads what `with_peak` wrote, in MiB.
pub(crate) fn peak(report: &Path) -> Result<f64> {
    let text = fs::read_to_string(report)?;
    let kib: f64 = text.lines().last().unwrap_or_default().trim().parse()?;
    Ok(kib / 1024.0)
}

/// Returns the processor time of all children that were waited for, in seconds. Its unit is a hundredth, but the
/// sum behind it is exact, so a difference over many short processes is right to that hundredth.
pub(crate) fn cpu_of_children() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = text
        .rsplit_once(") ")
        .ok_or("/proc/self/stat")?
        .1
        .split(' ')
        .collect();
    // Fields 16 and 17, of which pid and name are cut off.
    let ticks =
        |at: usize| -> Result<f64> { Ok(fields.get(at).ok_or("/proc/self/stat")?.parse()?) };
    Ok((ticks(13)? + ticks(14)?) / USER_HZ)
}

/// Returns the processor time of a live process, in seconds.
pub(crate) fn cpu_of(pid: u64) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds / 1e9)
}

/// Opens a named pipe so that it neither waits for the other side nor ends with it.
pub(crate) fn both_ends(path: &Path) -> Result<File> {
    Ok(File::options().read(true).write(true).open(path)?)
}
