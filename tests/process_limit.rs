//! The machine's limit of processes: used up by what an earlier script left running, or by the script that runs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::PATIENCE;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::stage::Stage;
use crate::lab::tools;
use crate::lab::traces::long;
use crate::lab::traces::until;

pub(crate) mod cgroup;

/// How many processes the login's user may have.
const LIMIT: usize = 60;
/// Within which a stage is told of it: 20 s, and what a busy host adds.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
/// What the driver says.
const TOLD: &str = "limit of processes";

/// For dash, whose `command eval` outlives a failed fork: waits for a line, starts so many processes, each as soon as it can,
/// then makes a file and waits.
const FILLER: &str = "\
read -r _ <$3
i=0
while [ $i -lt $1 ]; do
    if command eval 'sleep 6000 &'; then i=$((i + 1)); else read -r _ </proc/uptime; fi
done
echo >$2
wait
";

/// What `sh` is on the machine, and the login's shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shell {
    Dash,
    Bash,
    Busybox,
}

impl Shell {
    pub(crate) fn machine(self, kind: Kind, sh: &Path) -> ServerBuilder {
        match self {
            Self::Dash => ServerBuilder::new(kind, Login::Dash),
            Self::Bash => ServerBuilder::new(kind, Login::Bash).path_first(sh),
            Self::Busybox => ServerBuilder::new(kind, Login::Busybox).busybox_only(),
        }
    }
}

/// Returns a directory in which `sh` is bash.
pub(crate) fn bash_as_sh(folder: &Path) -> PathBuf {
    let path = folder.join("sh-is-bash");
    std::fs::create_dir(&path).unwrap();
    symlink(tools::program("bash"), path.join("sh")).unwrap();
    path
}

/// A job whose login may have [`LIMIT`] processes.
fn limited(kind: Kind, shell: Shell, folder: &Path) -> Runner {
    // What is set for the machine counts for those of its processes that are not root's.
    let limit = format!("prlimit --pid $$ --nproc={LIMIT}:{LIMIT}");
    let machine = shell.machine(kind, &bash_as_sh(folder));
    Runner::builder()
        .machine(machine.user("ci").first(&limit))
        .exit_codes("70", "71")
        .build()
}

/// Has a script leave a process that starts so many once the script is over, and waits until they are there.
fn leave(runner: &Runner, count: usize) {
    let home = runner.server().home();
    let filler = home.join("filler");
    std::fs::write(&filler, FILLER).unwrap();
    let go = home.join("fill");
    let made = Command::new("mkfifo").arg(&go).status().unwrap();
    assert!(made.success());
    let script = format!(
        "{dash} {filler} {count} {home}/filled {home}/fill </dev/null >/dev/null 2>&1 &",
        dash = tools::program("dash").display(),
        filler = filler.display(),
        home = home.display(),
    );
    runner.run("build_script", script).assert_success();
    std::fs::write(&go, "\n").unwrap();
    until("the limit to be used up", PATIENCE, || {
        home.join("filled").exists()
    });
}

/// Checks that a stage on a machine with little left works truly, or is told what is missing; returns whether it worked.
#[track_caller]
fn works_or_is_told(runner: &Runner, what: &str) -> bool {
    let ran = runner.server().home().join("ran");
    let script = format!(
        "echo ran >>{}\nfor i in 1 2 3; do /bin/echo $i; done | cat\nexit 7",
        ran.display()
    );
    let output = runner.run("after_script", script);
    let text = output.stderr_text();
    eprintln!("{what}: {:?} after {:.1?}", output.code(), output.duration);
    if output.code() == Some(70) {
        assert_eq!(output.stdout, b"1\n2\n3\n", "{what}: {output}");
        assert_eq!(text, "", "{what}: {output}");
        assert_eq!(runner.exit_file().as_deref(), Some(&b"7"[..]), "{what}");
        assert_eq!(std::fs::read(&ran).unwrap(), b"ran\n", "{what}");
        return true;
    }
    let output = output.assert_code(71);
    assert!(text.contains(TOLD), "{what}: {output}");
    assert!(!text.contains("disk"), "{what}: {output}");
    assert!(output.duration < TOLD_WITHIN, "{what}: {output}");
    assert!(!ran.exists(), "{what}: it ran: {output}");
    false
}

/// Does something for each, all at once: it is mostly waiting.
fn at_once<T: Send>(all: impl IntoIterator<Item = T>, act: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for one in all {
            scope.spawn(|| act(one));
        }
    });
}

#[test]
fn leftovers_that_use_it_up_are_told_whatever_is_left() {
    let few: &[usize] = &[0, 1, 2, 9, 18, 40];
    let all: Vec<usize> = (0..=24).chain([40]).collect();
    let free = if long() { &all } else { few };
    let shells = [
        (Kind::OpenSsh, Shell::Dash),
        (Kind::OpenSsh, Shell::Bash),
        (Kind::OpenSsh, Shell::Busybox),
        (Kind::Dropbear, Shell::Dash),
    ];
    let jobs = shells.into_iter().flat_map(|(kind, shell)| {
        // One server is as good as the other where its shell is under way.
        let free = free.iter().copied();
        let free = free.filter(move |n| long() || kind == Kind::OpenSsh || *n < 1);
        free.map(move |free| (kind, shell, free))
    });
    // Some at a time: each is dozens of processes.
    let jobs: Vec<_> = jobs.collect();
    for some in jobs.chunks(20) {
        at_once(some, |(kind, shell, free)| {
            let folder = crate::lab::temp_dir();
            let runner = limited(*kind, *shell, folder.path());
            runner.start();
            leave(&runner, LIMIT - 1 - free);
            let what = format!("{kind:?}, {shell:?}, {free} free");
            let worked = works_or_is_told(&runner, &what);
            assert!(!worked || *free >= 8, "{what}: there was no room for it");
            assert!(worked || *free < 40, "{what}: there was room for it");
            runner.cleanup().assert_success();
            runner.assert_nothing_left();
        });
    }
}

/// For dash: leaves as many processes as there may be, says so and waits for a line.
const BOMB: &str = "\
while command eval 'sleep 6000 >/dev/null 2>&1 &'; do :; done
echo full
read -r _
echo ends
exit 9
";

/// The same, and then says more than one segment of the spool holds, and more than are kept once they were received.
fn loud_bomb() -> String {
    let loud = "x=xxxxxxxxxxxxxxxx i=0
while [ $i -lt 12 ]; do x=$x$x i=$((i + 1)); done
while [ $i -lt 652 ]; do printf %s \"$x\"; i=$((i + 1)); done
echo ends";
    BOMB.replace("echo ends", loud)
}

/// A script that has used it up.
fn burst(runner: &Runner, bomb: &str) -> Stage {
    runner.start();
    let home = runner.server().home();
    std::fs::write(home.join("bomb"), bomb).unwrap();
    let script = format!(
        "echo begins; mkfifo {home}/go; exec {dash} {home}/bomb 2>/dev/null <>{home}/go",
        dash = tools::program("dash").display(),
        home = home.display(),
    );
    let running = runner.spawn_run("build_script", script);
    running.wait_output(b"full\n", PATIENCE);
    running
}

/// However much it says: what was received cannot be removed just then.
#[test]
fn a_loud_script_that_uses_it_up_has_its_own_result() {
    at_once([Shell::Dash, Shell::Busybox], |shell| {
        let folder = crate::lab::temp_dir();
        let runner = limited(Kind::OpenSsh, shell, folder.path());
        let running = burst(&runner, &loud_bomb());
        std::fs::write(runner.server().home().join("go"), "\n").unwrap();
        let output = running.wait(PATIENCE);
        let length = output.stdout.len();
        assert_eq!(
            output.code(),
            Some(70),
            "{shell:?}: {length} bytes, {}",
            output.stderr_text()
        );
        assert_eq!(
            length,
            "begins\nfull\nends\n".len() + (640 << 16),
            "{shell:?}"
        );
        assert_eq!(runner.exit_file().as_deref(), Some(&b"9"[..]), "{shell:?}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    });
}

#[test]
fn a_script_that_uses_it_up_can_be_cancelled() {
    at_once([Shell::Dash, Shell::Bash, Shell::Busybox], |shell| {
        let folder = crate::lab::temp_dir();
        let runner = limited(Kind::OpenSsh, shell, folder.path());
        let running = burst(&runner, BOMB);
        running.signal(Signal::TERM);
        let output = running.wait(PATIENCE).assert_code(70);
        assert_eq!(output.stdout, b"begins\nfull\n", "{shell:?}: {output}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    });
}

/// The script's result is its own: the far side has all that it needs before the script begins.
#[test]
fn a_script_that_uses_it_up_has_its_own_result() {
    let shells = [Shell::Dash, Shell::Bash, Shell::Busybox];
    at_once(shells, |shell| {
        let folder = crate::lab::temp_dir();
        let runner = limited(Kind::OpenSsh, shell, folder.path());
        let running = burst(&runner, BOMB);
        std::fs::write(runner.server().home().join("go"), "\n").unwrap();
        let output = running.wait(PATIENCE).assert_code(70);
        assert_eq!(
            output.stdout, b"begins\nfull\nends\n",
            "{shell:?}: {output}"
        );
        assert_eq!(runner.exit_file().as_deref(), Some(&b"9"[..]), "{shell:?}");
        let worked = works_or_is_told(&runner, &format!("{shell:?} after it"));
        assert!(!worked, "{shell:?}");
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    });
}
