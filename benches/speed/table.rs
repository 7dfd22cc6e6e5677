//! What is printed: one row a figure, its peer, its target and the Go driver's figure.

use std::error::Error;
use std::fs;
use std::process::Command;

use crate::Result;

/// The rows so far; each is printed as soon as it is known, since the whole takes minutes.
pub(crate) struct Table {
    measured: u32,
}

/// What is asked of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Not more than that.
    Most(f64, &'static str),
    /// Not less than that.
    Least(f64, &'static str),
    /// It is printed for information.
    None,
}

/// One figure.
pub(crate) struct Row<'a> {
    /// What was measured.
    pub(crate) name: &'a str,
    /// The driver's figure.
    pub(crate) here: String,
    /// The peer's figure, and what the peer is.
    pub(crate) peer: String,
    /// What the target speaks of: a ratio to the peer, or the driver's figure itself.
    pub(crate) value: f64,
    /// The target.
    pub(crate) target: Target,
    /// The Go driver's published figure.
    pub(crate) go: &'a str,
}

impl Table {
    /// Prints what the figures depend on, and the head.
    pub(crate) fn begin() -> Result<Self> {
        let cores = std::thread::available_parallelism()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        println!(
            "{} {}, {cores} cores, Linux {}, {}, load {}",
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            kernel.trim(),
            ssh_version(),
            load(),
        );
        println!("medians; the peers are measured in turn with the driver, on the same server\n");
        line(["", "driver", "peer", "ratio", "target", "", "Go driver"]);
        Ok(Self { measured: 0 })
    }

    /// Prints what the rows that follow have in common.
    pub(crate) fn title(&self, title: &str) {
        println!("\n{title}");
    }

    /// Prints a figure without a ratio.
    pub(crate) fn row(&mut self, row: &Row<'_>) {
        self.print(row, "");
    }

    /// Prints a figure whose value is its ratio to the peer.
    pub(crate) fn ratio(&mut self, row: &Row<'_>) {
        self.print(row, &format!("{:.2}x", row.value));
    }

    fn print(&mut self, row: &Row<'_>, ratio: &str) {
        self.measured += 1;
        let (met, target) = match row.target {
            Target::Most(most, text) => (Some(row.value <= most), text),
            Target::Least(least, text) => (Some(row.value >= least), text),
            Target::None => (None, ""),
        };
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        line([
            row.name, &row.here, &row.peer, ratio, target, verdict, row.go,
        ]);
    }

    /// Prints a figure that could not be taken.
    pub(crate) fn failed(&mut self, name: &str, error: &dyn Error) {
        println!("{name}: not measured: {error}");
    }

    /// Prints the end.
    ///
    /// # Errors
    /// Where nothing was measured.
    pub(crate) fn end(&self) -> Result<()> {
        println!("\nload {}", load());
        let busy = load()
            .split(' ')
            .next()
            .and_then(|l| l.parse::<f64>().ok())
            .unwrap_or_default();
        if busy > std::thread::available_parallelism()?.get() as f64 {
            println!(
                "This machine is busy: ratios hold roughly, times do not. `chrt -r 5 cargo bench --bench speed` goes before the rest."
            );
        }
        if self.measured == 0 {
            Err("nothing could be measured".into())
        } else {
            Ok(())
        }
    }
}

fn line(cells: [&str; 7]) {
    let [name, here, peer, ratio, target, verdict, go] = cells;
    println!("{name:<38} {here:>19}  {peer:<38} {ratio:>6}  {target:<12} {verdict:<7} {go}");
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn ssh_version() -> String {
    let said = Command::new("ssh")
        .arg("-V")
        .output()
        .map(|o| o.stderr)
        .unwrap_or_default();
    String::from_utf8_lossy(&said).trim().to_owned()
}
