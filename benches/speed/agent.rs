//! Figures of the agent alone: the static binary that containers of other people's images run.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::Result;
use crate::machine::{Bench, HERE};
use crate::measure::{self, largest, median};
use crate::table::{Row, Table, Target};

/// Longer than any start that is worth a figure.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Between two attempts to connect to an agent that does not listen yet.
const LOOK: Duration = Duration::from_micros(200);

/// What the greeting of a server of SSH begins with.
const VERSION: &[u8] = b"SSH-2.0-";

/// How often the peak is measured; it varies by pages only.
const PEAK_ROUNDS: u32 = 3;

/// What streams 1 GiB.
const GIB: &str = "head -c 1073741824 /dev/zero";

/// An agent on a port of its own, which is ended when it is dropped.
struct Agent(Child, u16);

impl Agent {
    fn start(binary: &Path, bench: &Bench) -> Result<Self> {
        // Free until the agent takes it, which is soon.
        let port = TcpListener::bind((HERE, 0))?.local_addr()?.port();
        let child = Command::new(binary)
            .args(["--listen", &format!("{HERE}:{port}")])
            .env_clear()
            .env("SSH_PUBLIC_KEY", fs::read_to_string(bench.at("peer.pub"))?)
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", bench.at("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child, port))
    }

    /// Waits for the first byte of a connection.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing tells that a port is listened on"
    )]
    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Ok(mut stream) = TcpStream::connect((HERE, self.1)) {
                stream.set_read_timeout(Some(START_LIMIT))?;
                let mut greeting = [0; VERSION.len()];
                stream.read_exact(&mut greeting)?;
                return match greeting == VERSION {
                    true => Ok(()),
                    false => Err("another server answers".into()),
                };
            }
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("the agent ended with {status}").into());
            }
            thread::sleep(LOOK);
        }
        Err("the agent does not listen".into())
    }

    /// Returns the most memory that it had, in MiB.
    fn peak(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: f64 = line
            .and_then(|line| line.split_whitespace().next())
            .ok_or("no VmHWM")?
            .parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Builds the static agent, if it is not there.
fn binary() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/agent");
    let done = Command::new(script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !done.status.success() {
        return Err(format!("packaging/agent ended with {}", done.status).into());
    }
    Ok(PathBuf::from(String::from_utf8(done.stdout)?.trim_end()))
}

/// The agent's size, how soon it answers, and its memory while it streams.
pub(crate) fn agent(table: &mut Table, bench: &mut Bench, rounds: u32) -> Result<()> {
    let binary = binary()?;
    let value = fs::metadata(&binary)?.len() as f64 / f64::from(1 << 20);
    table.row(&Row {
        name: "agent, static binary",
        here: format!("{value:.2} MiB"),
        peer: String::new(),
        value,
        target: Target::Most(7.0, "<= 7 MiB"),
        go: "",
    });

    let (mut here, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        let mut agent = Agent::start(&binary, bench)?;
        agent.wait()?;
        here.push(measure::ms(began.elapsed()));
        peer.push(measure::wall(&mut Command::new("/bin/true"))?);
    }
    let value = median(&mut here);
    table.row(&Row {
        name: "agent, start -> first greeting",
        here: format!("{value:.1} ms, {:.1} at most", largest(&here)),
        peer: format!("{:.1} ms  /bin/true", median(&mut peer)),
        value,
        target: Target::Most(20.0, "<= 20 ms"),
        go: "",
    });

    let command: Vec<&str> = GIB.split(' ').collect();
    let (mut peaks, mut logins) = (Vec::new(), Vec::new());
    for _ in 0..PEAK_ROUNDS {
        let mut agent = Agent::start(&binary, bench)?;
        agent.wait()?;
        let unknown = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"];
        let options: Vec<&str> = unknown.iter().flat_map(|it| ["-o", it]).collect();
        let ssh = |words: &[&str]| bench.ssh(HERE, agent.1, &options, words);
        logins.push(measure::wall(&mut ssh(&["true"]))?);
        measure::drained(&mut ssh(&command))?;
        peaks.push(agent.peak()?);
    }
    let value = largest(&peaks);
    table.row(&Row {
        name: "agent, peak memory, 1 GiB of output",
        here: format!("{value:.1} MiB"),
        peer: format!("{:.0} ms  ssh true through it", median(&mut logins)),
        value,
        target: Target::Most(10.0, "<= 10 MiB"),
        go: "",
    });
    Ok(())
}
