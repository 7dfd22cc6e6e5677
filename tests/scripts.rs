//! What scripts are and do: their size, their quoting, their processes, and the session that they find.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use serde_json::json;

use super::PLACE;
use super::output::machines;
use crate::lab::PATIENCE;
use crate::lab::place::Place;
use crate::lab::runner::Runner;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::ssh::Client;

/// A named pipe that a script waits at until the test opens it, or the other way round. Written out
/// it is the pipe's path as a shell takes it.
pub(crate) struct Gate {
    path: PathBuf,
    /// Open both ways, so that nobody's opening it blocks, and a line waits for whoever comes.
    pipe: File,
}

impl Gate {
    /// Makes a pipe below the directory.
    pub(crate) fn new(directory: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("gate-{number}"));
        let done = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(done.success());
        let mut options = File::options();
        let pipe = options.read(true).write(true).open(&path).unwrap();
        Self { path, pipe }
    }

    /// Lets the script go on with a line.
    pub(crate) fn open(&self, line: &str) {
        (&self.pipe)
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    /// Waits for the line that a script writes to it.
    pub(crate) fn wait(&self) -> String {
        let timeout = PATIENCE.try_into().unwrap();
        let mut polled = [PollFd::new(&self.pipe, PollFlags::IN)];
        let ready = rustix::event::poll(&mut polled, Some(&timeout)).unwrap();
        assert_eq!(ready, 1, "nothing came through {self}");
        let mut bytes = [0; 1000];
        let length = (&self.pipe).read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.path.display())
    }
}

/// Checks that no trace of a script is left on the far side, which is this host.
#[track_caller]
pub(crate) fn assert_no_spool(runner: &Runner) {
    let spool = record(runner)["spool"].as_str().unwrap().to_owned();
    assert!(spool.len() >= 16, "{spool}");
    let home = runner.root().join("home");
    for base in runner.far_temp().into_iter().chain([home]) {
        let path = base.join(format!(".gad-{spool}"));
        assert!(!path.exists(), "{}", tree(&path));
    }
}

fn tree(path: &Path) -> String {
    let done = Command::new("find").arg(path).arg("-ls").output().unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Returns the path of the job's record.
pub(crate) fn record_file(runner: &Runner) -> PathBuf {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(runner.state_directory().join("jobs")).unwrap() {
        let path = entry.unwrap().path().join("record.json");
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        if record["job_id"] == runner.job() {
            found.push(path);
        }
    }
    let [path] = &found[..] else {
        panic!("{found:?}");
    };
    path.clone()
}

/// Returns the job's record.
pub(crate) fn record(runner: &Runner) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(record_file(runner)).unwrap()).unwrap()
}

#[test]
fn scripts_of_any_size_run() {
    let mut text = String::new();
    while text.len() < 2 << 20 {
        text += &format!("line {} 'of' \"the\" $script `here`\n", text.len());
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let digest: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let document = format!("sha256sum <<'EOF'\n{text}EOF\necho end\n");
    let one_line = format!("text='{}'\necho ${{#text}}", "x".repeat(2 << 20));
    let mut many = String::new();
    while many.len() < 2 << 20 {
        many.push_str("n=$((n + 1))\n");
    }
    let count = many.len() / "n=$((n + 1))\n".len();
    many.push_str("echo $n\nexit 42");
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        runner
            .run("build_script", "")
            .assert_success()
            .assert_stdout("");
        runner
            .run("build_script", "\n")
            .assert_success()
            .assert_stdout("");
        runner
            .run("build_script", "#")
            .assert_success()
            .assert_stdout("");
        runner
            .run("build_script", "printf x")
            .assert_success()
            .assert_stdout("x");
        runner
            .run("build_script", &document)
            .assert_success()
            .assert_stdout(format!("{digest}  -\nend\n"));
        runner
            .run("build_script", &one_line)
            .assert_success()
            .assert_stdout(format!("{}\n", 2 << 20));
        runner
            .run("build_script", &many)
            .assert_code(1)
            .assert_stdout(format!("{count}\n"));
        assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
        assert_no_spool(&runner);
    }
}

/// The Runner's generator writes the user's lines as one quoted word.
#[test]
fn scripts_quoted_as_the_runner_quotes_run() {
    // The images of the lab have no locale, and bash says so.
    if PLACE.has_the_agent() {
        return;
    }
    let script = r##"#!/usr/bin/env bash
set -o errexit -o pipefail
(eval $'export A=$\'a\\tb\\\'c\'\necho "$A" "\x41" \'$HOME\' "# no comment" \\\\ \u00e9\nprintf \'%s\\n\' $\'two\\nlines\'\n') < /dev/null
exit 0
"##;
    let expected = "a\tb'c A $HOME # no comment \\ \u{e9}\ntwo\nlines\n";
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        // What `\u` becomes is the locale's affair, as on any machine.
        let script = format!("export LC_ALL=C.UTF-8\n{script}");
        runner
            .run("build_script", script)
            .assert_success()
            .assert_stdout(expected);
    }
}

#[test]
fn a_script_that_reads_its_input_finds_the_end() {
    let script = "cat\nread -r line || echo \"end of input [$line]\"\nwc -c\nexec cat\n";
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        let output = runner.run("build_script", script).assert_success();
        let words: Vec<String> = output
            .stdout_text()
            .lines()
            .map(|l| l.trim().into())
            .collect();
        assert_eq!(words, ["end of input []", "0"], "{output}");
    }
}

#[test]
fn a_script_that_ends_its_own_process_group_is_told_so() {
    // (What happens, the script's code.)
    let scripts = [
        ("echo begun; kill 0; sleep 600", 143),
        ("echo begun; sleep 600 & kill -KILL 0", 137),
        ("echo begun; trap '' TERM; kill 0; exit 5", 5),
        ("echo begun; trap 'exit 6' TERM; kill 0; sleep 600", 6),
        ("echo begun; kill -INT 0; exit 7", 130),
        ("echo begun; kill -HUP 0; exit 7", 129),
        ("echo begun; kill -- -$$; exit 7", 143),
    ];
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        for (script, code) in scripts {
            let output = runner.run("build_script", script).assert_code(1);
            let output = output.assert_stdout("begun\n");
            let file = runner.exit_file().unwrap_or_default();
            assert_eq!(
                String::from_utf8_lossy(&file),
                code.to_string(),
                "{script}: {output}"
            );
        }
        runner.run("build_script", "echo on").assert_stdout("on\n");
        assert_no_spool(&runner);
    }
}

#[test]
fn a_script_finds_a_shell_wherever_the_image_has_one() {
    // Which shells an image has is another test's there.
    if PLACE.has_the_agent() {
        return;
    }
    let machine = ServerBuilder::new(Kind::OpenSsh, Login::Busybox).shells_elsewhere();
    let runner = PLACE.job().machine(machine).build();
    runner.start();
    let script = "ls /bin/sh > /dev/null && /bin/sh -c : 2> /dev/null || echo none; exit 42";
    runner
        .run("build_script", script)
        .assert_code(1)
        .assert_stdout("none\n");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"42"[..]));
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}

#[test]
fn a_script_may_replace_and_close_what_it_runs_in() {
    let scripts = [
        ("exec sh -c 'echo other; exit 5'", "other\n", 5),
        ("echo one; exec > /dev/null; echo two; exit 3", "one\n", 3),
        ("echo one; exec >&- 2>&-; echo two; exit 4", "one\n", 4),
        (
            "echo one; exec 2>&1 >/dev/null; echo two >&2; exit 0",
            "one\ntwo\n",
            0,
        ),
        (
            "exec 3>&1 4>&2 5</dev/null; echo three >&3; echo four >&4",
            "three\nfour\n",
            0,
        ),
        ("rm -f \"$0\"; echo gone", "gone\n", 0),
        (
            "cd /; umask 077; ulimit -n 10; echo limited",
            "limited\n",
            0,
        ),
        (
            "trap 'echo at exit' EXIT; echo one; exit 9",
            "one\nat exit\n",
            9,
        ),
        ("PATH=/nowhere; echo no path", "no path\n", 0),
    ];
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        for (script, expected, code) in scripts {
            let output = runner.run("build_script", script).assert_stdout(expected);
            let (stage, file) = match code {
                0 => (0, None),
                code => (1, Some(code.to_string().into_bytes())),
            };
            assert_eq!(
                (output.code(), runner.exit_file()),
                (Some(stage), file),
                "{script}: {output}"
            );
        }
        assert_no_spool(&runner);
    }
}

/// Neither one that holds the output open nor one that goes on writing holds up anybody; a plain session
/// would leave them alive, and so does this one.
#[test]
fn background_children_are_left_alone() {
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        let root = runner.root().display().to_string();
        let (begin, written) = (Gate::new(runner.root()), Gate::new(runner.root()));
        let script = format!(
            "sleep 600 & echo $! > {root}/quiet\n\
             setsid sleep 600 & echo $! > {root}/apart\n\
             nohup sleep 600 > /dev/null 2>&1 & echo $! > {root}/nohup\n\
             (trap '' PIPE; while echo tick; do sleep .1; done) & echo $! > {root}/ticking\n\
             (read -r go < {begin}; head -c 3000000 /dev/zero; echo \"late $?\" > {written}; exec sleep 600) & \
             echo $! > {root}/late\n\
             echo done\n"
        );
        let output = runner.run("build_script", script).assert_success();
        assert!(output.stderr.is_empty(), "{output}");
        let text = output.stdout_text().replace("tick\n", "");
        assert_eq!(text, "done\n", "{output}");
        // The traces are gone though their writers live.
        assert_no_spool(&runner);
        let alive = format!(
            "for name in quiet apart nohup ticking late; do\n\
             kill -0 \"$(cat {root}/$name)\" && echo \"$name lives\"\ndone\n"
        );
        let expected = "quiet lives\napart lives\nnohup lives\nticking lives\nlate lives\n";
        runner.run("after_script", &alive).assert_stdout(expected);
        // More than any pipe holds, after the stage's end: it neither blocks nor ends its writer.
        begin.open("go");
        assert_eq!(written.wait(), "late 0\n");
        runner
            .run("upload_artifacts_on_success", &alive)
            .assert_stdout(expected);
        assert_no_spool(&runner);
        runner.cleanup().assert_success();
        runner.assert_nothing_left();
    }
}

/// A child in the background writes while the script ends: what came before the end is the script's.
#[test]
fn output_of_children_before_the_end_is_the_scripts() {
    let script = "for i in 1 2 3 4 5 6 7 8; do (echo child; sleep 600) & done\n\
                  (echo waited for) & wait $!\necho end\n";
    for builder in machines() {
        let runner = builder.build();
        runner.start();
        let output = runner.run("build_script", script).assert_success();
        let text = output.stdout_text().replace("child\n", "");
        assert_eq!(text, "waited for\nend\n", "{output}");
    }
}

/// What a script finds: printed by the script itself and by an ordinary child of it.
const PROBE: &str = r#"
echo "umask $(umask)"
echo "pwd $PWD $(pwd -P)"
grep '^Sig[IBC]' /proc/self/status | sed 's/^/child /'
grep '^SigIgn' /proc/$$/status | sed 's/^/script /'
for fd in $(ls /proc/self/fd); do echo "child fd $fd"; done
for fd in /proc/$$/fd/*; do echo "script fd ${fd##*/}"; done
(trap - INT; kill -INT $BASHPID; sleep 1; echo "SIGINT was ignored") 2>/dev/null
echo "after SIGINT $?"
ulimit -a | sed 's/^/limit /'
echo "nice $(cut -d" " -f19 /proc/self/stat)"
echo "oom $(cat /proc/self/oom_score_adj)"
echo "groups $(id)"
tty | sed 's/^/tty /'
echo "options $-"
env | sed 's/^/env /' | LC_ALL=C sort
"#;

/// Differences that have a reason of their own: the port of the very connection, the program that was
/// called last, how many shells deep.
const OWN: [&str; 4] = [
    "env SSH_CLIENT=",
    "env SSH_CONNECTION=",
    "env _=",
    "env SHLVL=",
];

fn comparable(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    for own in OWN {
        let mut count = 0;
        for line in &mut lines {
            if line.starts_with(own) {
                own.clone_into(line);
                count += 1;
            }
        }
        assert!(count <= 1, "{text}");
    }
    // Every shell on the way counts itself and names what it calls; which ones there are differs.
    lines.retain(|line| line != "env _=" && line != "env SHLVL=");
    // dropbear's word for the comment of the very key; the job's has none.
    lines.retain(|line| !line.starts_with("env SSH_PUBKEYINFO="));
    lines
}

/// Runs the probe through the driver and through `ssh`, on the same server.
fn sessions_are_alike(
    kind: Kind,
    login: Login,
    change: impl Fn(ServerBuilder) -> ServerBuilder,
    setsid: bool,
) {
    if PLACE != Place::Here {
        eprintln!("skipped: a script in a container finds the container's environment as well");
        return;
    }
    let runner = PLACE
        .job()
        .machine(change(ServerBuilder::new(kind, login)))
        .build();
    runner.start();
    let server = runner.server();
    if !setsid {
        server.remove_applet("setsid");
    }
    let client = Client::new(runner.root());
    let keys = server.home().join(".ssh/authorized_keys");
    let text = format!("{}\n{}\n", server.authorised_key(), client.public_key());
    std::fs::write(&keys, text).unwrap();
    let folder = runner.root().join("probe");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("script");
    std::fs::write(&file, PROBE).unwrap();

    let plain = client.spawn(server.port(), &format!("exec bash {}", file.display()));
    let plain = plain.wait(PATIENCE).assert_success();
    assert!(plain.stderr.is_empty(), "{plain}");
    let driven = runner.run("build_script", PROBE).assert_success();
    let [expected, seen] = [&plain, &driven].map(|output| comparable(&output.stdout_text()));
    assert!(expected.len() > 30, "{plain}");
    assert_eq!(
        difference(&expected, &seen),
        Vec::<String>::new(),
        "{kind:?} {login:?}\nplain ssh: {plain}\ndriver: {driven}"
    );
    assert_eq!(expected, seen, "{kind:?} {login:?}");
}

/// Returns the lines that only one of both has.
fn difference(expected: &[String], seen: &[String]) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for line in expected {
        *counts.entry(line).or_insert(0) -= 1;
    }
    for line in seen {
        *counts.entry(line).or_insert(0) += 1;
    }
    let list = counts.into_iter().filter(|(_, count)| *count != 0);
    list.map(|(line, count)| {
        format!(
            "{} {line}",
            if count < 0 {
                "ssh only:"
            } else {
                "driver only:"
            }
        )
    })
    .collect()
}

#[test]
fn a_script_finds_the_session_that_ssh_gives_with_bash() {
    sessions_are_alike(Kind::OpenSsh, Login::Bash, |m| m, true);
}

#[test]
fn a_script_finds_the_session_that_ssh_gives_with_dash() {
    sessions_are_alike(Kind::OpenSsh, Login::Dash, |m| m, true);
}

#[test]
fn a_script_finds_the_session_that_ssh_gives_with_busybox() {
    sessions_are_alike(Kind::OpenSsh, Login::Busybox, |m| m, true);
}

#[test]
fn a_script_finds_the_session_that_ssh_gives_with_little_on_path() {
    for login in [Login::Bash, Login::Dash, Login::Busybox] {
        sessions_are_alike(Kind::OpenSsh, login, ServerBuilder::busybox_only, true);
    }
}

#[test]
fn a_script_finds_the_session_that_ssh_gives_without_setsid() {
    for login in [Login::Bash, Login::Dash, Login::Busybox] {
        sessions_are_alike(Kind::OpenSsh, login, ServerBuilder::busybox_only, false);
    }
}

#[test]
fn a_script_finds_the_session_that_dropbear_gives() {
    for login in [Login::Bash, Login::Dash, Login::Busybox] {
        sessions_are_alike(Kind::Dropbear, login, |m| m, true);
    }
}

/// GitLab Runner's own tests hand over jobs without a number, a name or anybody who started them.
#[test]
fn a_job_with_the_number_0_is_a_job() {
    if PLACE == Place::Instance {
        eprintln!("skipped: the lab tells instances apart by their jobs' numbers");
        return;
    }
    let runner = PLACE
        .job()
        .payload_field("id", json!(0))
        .payload_field("token", json!(""))
        .payload_field(
            "job_info",
            json!({ "name": "", "stage": "", "project_id": 0, "project_name": "" }),
        )
        .payload_field("runner_info", json!({ "timeout": 0 }))
        .payload_field("variables", json!([]))
        .payload_field("services", json!(null))
        .build();
    runner.start();
    runner
        .run("build_script", "echo runs; exit 3")
        .assert_code(1)
        .assert_stdout("runs\n");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"3"[..]));
    runner.cleanup().assert_success();
    runner.assert_nothing_left();
}
