//! A container's own environment in its scripts, and what its control group tells of memory.
//!
//! The machines are `local` ones whose records are given an environment, as `prepare` does on containers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use gitlab_aws_driver::machine::environment::ContainerEnvironment;
use proptest::prelude::*;
use rustix::process::Signal;

use crate::lab::PATIENCE;
use crate::lab::proxy::Cut;
use crate::lab::proxy::Direction;
use crate::lab::proxy::Harm;
use crate::lab::runner::Runner;
use crate::lab::runner::RunnerBuilder;
use crate::lab::servers::Kind;
use crate::lab::servers::Login;
use crate::lab::servers::ServerBuilder;
use crate::lab::tools;
use crate::lab::write_program;
use crate::output::machines;
use crate::scripts::assert_no_spool;
use crate::scripts::record;
use crate::scripts::record_file;

type Variables = BTreeMap<Vec<u8>, Vec<u8>>;

const ORDINARY_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

fn variables(pairs: &[(&str, &[u8])]) -> Variables {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.as_bytes().to_owned(), (*value).to_owned()))
        .collect()
}

/// Returns what `/proc/1/environ` would hold.
fn environ(variables: &Variables) -> Vec<u8> {
    let all = variables.iter();
    all.flat_map(|(name, value)| [&name[..], b"=", value, b"\0"].concat())
        .collect()
}

fn parsed(environ: &[u8]) -> Variables {
    let entries = environ.split(|b| *b == 0).filter(|e| !e.is_empty());
    entries
        .map(|entry| {
            let at = entry.iter().position(|b| *b == b'=').unwrap();
            (entry[..at].to_owned(), entry[at + 1..].to_owned())
        })
        .collect()
}

/// Gives the job's machine an environment.
fn give(runner: &Runner, variables: &Variables) {
    let environment = ContainerEnvironment::read(&environ(variables), "init").unwrap();
    let mut record = record(runner);
    record["environment"] = serde_json::to_value(environment).unwrap();
    std::fs::write(record_file(runner), record.to_string()).unwrap();
}

/// The shells that may read a prelude.
fn shells() -> Vec<(&'static str, Command)> {
    let mut posix = Command::new(tools::program("bash"));
    posix.arg("--posix");
    let mut busybox = Command::new(tools::program("busybox"));
    busybox.arg("sh");
    vec![
        ("dash", Command::new("/bin/dash")),
        ("bash", Command::new(tools::program("bash"))),
        ("bash --posix", posix),
        ("busybox", busybox),
    ]
}

/// Has each shell read the prelude, with GNU's tools and with busybox', and checks what a program finds then.
fn assert_prelude(variables: &Variables) {
    let folder = crate::lab::temp_dir();
    let busybox = folder.path().join("bin");
    std::fs::create_dir(&busybox).unwrap();
    for applet in ["env", "echo", "cat"] {
        symlink(tools::program("busybox"), busybox.join(applet)).unwrap();
    }
    let file = folder.path().join("prelude");
    let environment = ContainerEnvironment::read(&environ(variables), "init").unwrap();
    std::fs::write(&file, environment.prelude()).unwrap();
    for path in [ORDINARY_PATH, busybox.to_str().unwrap()] {
        let mut expected = variables.clone();
        let first = expected.entry(b"PATH".to_vec()).or_default();
        match &first[..] {
            [] => *first = path.into(),
            _ => *first = [&first[..], b":", path.as_bytes()].concat(),
        }
        for (name, mut shell) in shells() {
            shell
                .env_clear()
                .env("PATH", path)
                .args(["-c", ". \"$0\" && exec \"$@\" 2>&1"])
                .arg(&file)
                .args(["/bin/cat", "/proc/self/environ"]);
            let output = shell.output().unwrap();
            let mut seen = parsed(&output.stdout);
            // The shell's own.
            for own in ["_", "PWD", "OLDPWD", "SHLVL"] {
                seen.remove(own.as_bytes());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && said.is_empty(),
                "{name} {path}: {said}"
            );
            for (variable, value) in &expected {
                let shown = String::from_utf8_lossy(variable);
                assert_eq!(seen.get(variable), Some(value), "{name} {path}: {shown}");
            }
            assert_eq!(seen.len(), expected.len(), "{name} {path}");
        }
    }
}

#[test]
fn a_prelude_sets_any_variable_in_any_shell() {
    let each: Vec<u8> = (1..=255).collect();
    let backwards: Vec<u8> = (1..=255).rev().collect();
    let mut all = variables(&[
        ("EACH", &each),
        ("BACKWARDS", &backwards),
        ("EMPTY", b""),
        ("FEEDS", b"\n\n"),
        ("QUOTES", b"''\"'\"`id`$(id)${x}\\\\'"),
        ("INVALID", b"\xff\xfe\xc3(\xe2\x82\n\xf0\x9f\x98'"),
        ("npm.config", b"a b\n'c'"),
        ("BASH_FUNC_x%%", b"() {\n echo y\n}"),
        ("-x", b"${PATH}"),
        ("a b\nc", b"* \xff"),
        ("9", b"1"),
        ("IFS", b"P/:"),
        ("RANDOM", b"x"),
        ("OPTIND", b"none"),
        ("LINENO", b"x"),
        ("POSIXLY_CORRECT", b"1"),
        ("BASH_ENV", b"/nowhere"),
        ("ENV", b"/nowhere"),
        ("n", b"remote.sh's own names"),
        ("d", b""),
        ("GAD_ODD0", b"taken"),
        ("LANG", b"C.UTF-8"),
        ("LC_ALL", b"POSIX"),
        ("PATH", b"/image bin:/*:'\n"),
    ]);
    all.insert(b"\xff\xfe.".to_vec(), b"odd".to_vec());
    assert_prelude(&all);
    assert_prelude(&variables(&[("A", b"no PATH, nothing odd")]));
    assert_prelude(&variables(&[("PATH", b""), ("A", b"")]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_prelude_sets_what_it_is_given(
        random in proptest::collection::btree_map("[a-z][A-Za-z0-9_.%]{0,6}", proptest::collection::vec(1u8.., 0..60), 1..6),
    ) {
        assert_prelude(&random.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect());
    }
}

/// All kinds of far side: with little on PATH too.
fn far_sides() -> Vec<RunnerBuilder> {
    let small = |login| ServerBuilder::new(Kind::OpenSsh, login).busybox_only();
    let small = [Login::Bash, Login::Dash, Login::Busybox].map(small);
    // The agent of the driver's own machine is sent none: it has its container's.
    let all = machines().into_iter().skip(1);
    all.chain(small.map(|m| Runner::builder().machine(m)))
        .collect()
}

/// A value of this test's own: on this host others see what an `env` that is not GNU's is given, for a moment.
fn secret() -> String {
    format!("secret-value-{:?}", std::thread::current().id())
}

fn container() -> Variables {
    let secret = secret();
    variables(&[
        ("PATH", b"/image/bin:/usr/bin"),
        ("IMAGE_NAME", b"an 'image'\n"),
        ("TOKEN", secret.as_bytes()),
        ("odd.name", secret.as_bytes()),
        ("HOME", b"/nowhere"),
        ("USER", b"nobody"),
        ("SSH_PUBLIC_KEY", b"ssh-ed25519 AAAA"),
        ("TERM", b"dumb"),
        ("UID", b"4711"),
    ])
}

fn scripts_find_the_environment(builder: RunnerBuilder, setsid: bool) {
    let runner = builder.build();
    runner.start();
    if !setsid {
        runner.server().remove_applet("setsid");
    }
    let script = "cat /proc/self/environ";
    let before = parsed(&runner.run("build_script", script).assert_success().stdout);
    give(&runner, &container());
    let output = runner.run("build_script", script).assert_success();
    assert!(output.stderr.is_empty(), "{output}");
    let mut found = parsed(&output.stdout);
    let mut expected = before;
    let login = expected.remove(&b"PATH"[..]).unwrap();
    for name in ["IMAGE_NAME", "TOKEN", "odd.name"] {
        let value = container().remove(name.as_bytes()).unwrap();
        expected.insert(name.into(), value);
    }
    let path = String::from_utf8(found.remove(&b"PATH"[..]).unwrap()).unwrap();
    let login = String::from_utf8(login).unwrap();
    let behind: Vec<&str> = login.split(':').filter(|p| *p != "/usr/bin").collect();
    assert_eq!(path, format!("/image/bin:/usr/bin:{}", behind.join(":")));
    for own in ["SSH_CLIENT", "SSH_CONNECTION", "_", "SHLVL"] {
        found.remove(own.as_bytes());
        expected.remove(own.as_bytes());
    }
    assert_eq!(found, expected, "{output}");
    // The script is what it was, and nobody sees what is in the environment.
    let pattern = secret().replacen('v', "[v]", 1);
    let script = format!(
        "echo \"$LINENO $#\"; head -n 1 \"$0\"\n\
         ls -l \"$0\".e | cut -c1-10\n\
         grep -ls '{pattern}' /proc/[0-9]*/cmdline\n\
         echo \"${{0##*/}} $LINENO\"; exit 7"
    );
    let output = runner.run("build_script", &script).assert_code(1);
    let text = output.stdout_text();
    let lines: Vec<&str> = text.lines().collect();
    let first = script.lines().next().unwrap();
    assert_eq!(lines[..3], ["1 0", first, "-rw-------"], "{output}");
    assert!(lines[3].ends_with(" 4") && lines.len() == 4, "{output}");
    assert_eq!(runner.exit_file().as_deref(), Some(&b"7"[..]));
    // A script of no bytes has a prelude too.
    let output = runner.run("build_script", "").assert_success();
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output}"
    );
    assert_no_spool(&runner);
}

#[test]
fn scripts_find_the_containers_environment() {
    for builder in far_sides() {
        scripts_find_the_environment(builder, true);
    }
}

#[test]
fn scripts_find_the_containers_environment_without_setsid() {
    for login in [Login::Bash, Login::Dash, Login::Busybox] {
        let machine = ServerBuilder::new(Kind::OpenSsh, login).busybox_only();
        scripts_find_the_environment(Runner::builder().machine(machine), false);
    }
}

/// Whatever an image sets is the script's affair: the far side itself works on.
#[test]
fn a_hostile_environment_harms_the_script_alone() {
    let odd = variables(&[
        ("IFS", b"0123456789/. "),
        ("POSIXLY_CORRECT", b"1"),
        ("LINENO", b"7"),
        ("OPTIND", b"x"),
        ("PATH", b""),
    ]);
    let hostile = variables(&[
        ("PATH", b"/nowhere"),
        ("LD_PRELOAD", b"/nowhere/broken.so"),
        ("BASH_ENV", b"/dev/stdin"),
        ("ENV", b"/nowhere/env"),
        ("LC_ALL", b"xx_XX.broken"),
        ("CDPATH", b"/"),
        ("TMPDIR", b"/nowhere"),
        ("d", b"/"),
        ("n", b"/"),
        ("k", b"/"),
    ]);
    for builder in far_sides() {
        let runner = builder.build();
        runner.start();
        give(&runner, &odd);
        runner
            .run("build_script", "x='a 1'; printf '<%s>\\n' $x; exit 3")
            .assert_code(1)
            .assert_stdout("<a>\n<1>\n");
        give(&runner, &hostile);
        // The loader complains once for each program that starts: the script's shell alone.
        let output = runner
            .run("build_script", "echo one; exit 9")
            .assert_code(1);
        let text = output.stdout_text();
        assert!(text.ends_with("one\n"), "{output}");
        assert_eq!(text.matches("LD_PRELOAD").count(), 1, "{output}");
        assert_eq!(runner.exit_file().as_deref(), Some(&b"9"[..]));
        // A cancel finds its processes.
        let stage = runner.spawn_run("build_script", "echo begun; while :; do sleep 600; done");
        stage.wait_output(b"begun", PATIENCE);
        stage.signal(Signal::TERM);
        stage.wait(PATIENCE).assert_code(1);
        assert_eq!(runner.exit_file().as_deref(), Some(&b"143"[..]));
        assert_no_spool(&runner);
    }
}

/// A start that is cut off on its way comes again, whole.
#[test]
fn a_large_environment_survives_cuts() {
    let mut large = variables(&[("odd.name", &[b'o'; 50_000])]);
    for i in 0..9 {
        large.insert(format!("LARGE{i}").into_bytes(), vec![b'x'; 100_000]);
    }
    let mut script = "echo started >> \"$STARTS\"; echo \"${#LARGE0} ${#LARGE8}\"\n".to_owned();
    while script.len() < 500_000 {
        writeln!(script, "# {}", script.len()).unwrap();
    }
    script += "env | grep -c '^odd.name=o'";
    for (kind, login) in [
        (Kind::OpenSsh, Login::Dash),
        (Kind::Dropbear, Login::Busybox),
        (Kind::Own, Login::Bash),
    ] {
        let runner = Runner::behind_proxy(ServerBuilder::new(kind, login));
        runner.start();
        for at in [12_000, 450_000, 900_000, 1_400_000, 1_470_000] {
            let starts = runner.root().join(format!("starts-{at}"));
            large.insert(b"STARTS".into(), starts.display().to_string().into_bytes());
            give(&runner, &large);
            let harm = Harm::Cut(Cut::Reset);
            runner.proxy().fault_on_next(Direction::Up, at, harm);
            runner
                .run("build_script", &script)
                .assert_success()
                .assert_stdout("100000 100000\n1\n");
            assert_eq!(std::fs::read_to_string(&starts).unwrap(), "started\n");
            assert_no_spool(&runner);
        }
    }
}

/// Returns a job whose machine's control group is a directory of the test's.
fn with_control_group(machine: ServerBuilder) -> Runner {
    let runner = Runner::builder()
        .machine(machine)
        .exit_codes("70", "71")
        .build();
    let root = runner.root().display();
    std::fs::create_dir_all(runner.root().join("cgroup/memory")).unwrap();
    let entrypoint = runner.server().command().remove(0);
    let around = runner.root().join("around");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --propagation private sh -c \
         'mount --bind {root}/cgroup /sys/fs/cgroup && exec {entrypoint}'\n"
    );
    write_program(&around, &text);
    let config = runner.default_config();
    runner.write_config(&config.replace(&entrypoint, around.to_str().unwrap()));
    runner
}

fn write_kills(file: &Path, count: u64) {
    let text = format!("low 0\noom 99\noom_kill {count}\noom_kill_disable 1\noom_group_kill 3\n");
    std::fs::write(file, text).unwrap();
}

#[test]
fn a_script_that_was_killed_for_want_of_memory_is_told_so() {
    let logins = [
        (Kind::OpenSsh, Login::Bash),
        (Kind::Dropbear, Login::Dash),
        (Kind::Own, Login::Busybox),
    ];
    for (kind, login) in logins {
        for file in ["memory.events", "memory/memory.oom_control"] {
            let runner = with_control_group(ServerBuilder::new(kind, login));
            runner.start();
            let path = runner.root().join("cgroup").join(file);
            let shown = path.display();
            // (What the script does, whether it is told of memory.)
            let scripts = [
                ("kill -KILL $$".to_owned(), None),
                (
                    format!("echo oom_kill 4 > {shown}; kill -KILL $$"),
                    Some("killed a process"),
                ),
                (
                    format!("echo oom_kill 6 > {shown}; exit 137"),
                    Some("killed 3 processes"),
                ),
                (format!("rm {shown}; kill -KILL $$"), None),
            ];
            for (script, told) in scripts {
                write_kills(&path, 3);
                let output = runner.run("build_script", &script).assert_code(70);
                assert_eq!(runner.exit_file().as_deref(), Some(&b"137"[..]));
                let said = output.stderr_text();
                match told {
                    Some(text) => assert!(
                        said.contains(text) && said.trim_end().lines().count() == 1,
                        "{script}: {output}"
                    ),
                    None => assert_eq!(said, "", "{script}: {output}"),
                }
                assert!(output.stdout.is_empty(), "{output}");
            }
            // Killed, but not the script: other codes are its own, as is success.
            for (code, expected) in [(0, 0), (1, 70)] {
                write_kills(&path, 3);
                let script = format!("echo oom_kill 4 > {shown}; exit {code}");
                let output = runner.run("build_script", script).assert_code(expected);
                assert!(output.stderr.is_empty(), "{output}");
            }
            // The supervisor was killed.
            write_kills(&path, 3);
            let script = format!("echo oom_kill 5 > {shown}; kill -KILL $PPID; sleep 600");
            let output = runner.run("build_script", script).assert_code(71);
            assert!(output.contains("killed 2 processes"), "{output}");
            write_kills(&path, 3);
            let script = "kill -KILL $PPID; sleep 600";
            let output = runner.run("build_script", script).assert_code(71);
            assert!(output.contains("Out of memory, or"), "{output}");
            assert_no_spool(&runner);
        }
    }
}
