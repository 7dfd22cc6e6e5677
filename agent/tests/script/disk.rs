//! What the machine does not have is named: room, processes, a shell, `/proc`.

use crate::harness::Agent;
use crate::script::client::{Event, Line, Name};

/// Starts an agent whose view of the file system was changed by a piece of shell, which nobody else sees.
///
/// `$program` may be out of sight then, and is run through a descriptor.
fn agent_after(change: &str) -> Agent {
    let script = format!(
        "program=$1; shift; exec 9<\"$program\"; {change}; exec $wrapper /proc/self/fd/9 \"$@\" $more"
    );
    Agent::start_under(&["unshare", "-m", "sh", "-ec", &script, "sh"])
}

#[tokio::test]
async fn a_disk_that_fills_up_ends_the_script() {
    let agent = agent_after("mount -t tmpfs -o size=2m none /var/tmp");
    let session = agent.login().await;
    let name = Name::new();
    let script =
        "setsid sleep 1000 & echo pid $!; seq 1 1000000; echo not reached >~/reached; sleep 1000";
    let mut line = Line::start(&session, &name, script).await;
    let told = line.rest().await;
    assert_eq!(told.last, format!("full {}", name.directory()));
    let text = told.text();
    // What fits is there, in order.
    assert!(told.bytes.len() > 1 << 20, "{}", told.bytes.len());
    let (first, numbers) = text.split_once('\n').unwrap();
    let mut all = String::new();
    for number in 1..=400_000 {
        all.push_str(&format!("{number}\n"));
    }
    assert!(all.starts_with(numbers));
    line.done(&name).await;
    agent.wait_gone(first.strip_prefix("pid ").unwrap()).await;
    let mut line = Line::start(
        &session,
        &name.again(),
        "df --output=used /var/tmp | tail -n 1; exit 6",
    )
    .await;
    let told = line.rest().await;
    assert_eq!(told.last, "end 6 0");
    assert!(told.text().trim().parse::<u64>().unwrap() < 64, "{told:?}");
    line.order("done").await;
    assert_eq!(line.rest().await.last, "forgotten");
}

#[tokio::test]
async fn without_room_no_script_is_taken() {
    let agent = agent_after(
        "for directory in /var/tmp /tmp; do mount -t tmpfs -o size=64k none $directory; done; \
         mkdir -p \"$HOME\"; mount -t tmpfs -o size=64k none \"$HOME\"; cd \"$HOME\"",
    );
    let session = agent.login().await;
    let name = Name::new();
    let mut line = Line::start(&session, &name, "echo hello").await;
    let home = agent.home.path().display();
    let no = "No space left on device";
    line.frame(&format!("fail /var/tmp: {no}, /tmp: {no}, {home}: {no}"))
        .await;
    line.closed().await;
    let left = agent.run("ls -A /var/tmp /tmp ~ | grep gad").await;
    assert_eq!(left.text(), "");
}

#[tokio::test]
async fn the_next_directory_is_taken_where_the_first_has_no_room() {
    let agent = agent_after("mount -t tmpfs -o size=64k none /var/tmp");
    let session = agent.login().await;
    let name = Name::new();
    let mut line = Line::start(&session, &name, "echo ${0%/*}").await;
    let told = line.rest().await;
    assert_eq!(told.text(), format!("/tmp/.gad-{}\n", name.key));
    line.done(&name).await;
    assert!(!std::path::Path::new(&format!("/tmp/.gad-{}", name.key)).exists());
}

#[tokio::test]
async fn without_a_shell_no_script_is_taken() {
    let agent = agent_after(
        "mkdir -p /usr/local/bin; mount -t tmpfs none /usr/local/bin; export PATH=/usr/bin; \
         more='--shell /proc/self/fd/9'; [ -h /bin ] || mount -t tmpfs none /bin; mount -t tmpfs none /usr/bin",
    );
    let session = agent.login().await;
    let mut line = Line::start(&session, &Name::new(), "echo hello").await;
    line.frame("lacks shell").await;
    line.closed().await;
}

#[tokio::test]
async fn without_proc_no_script_is_taken() {
    let agent = Agent::start_under(&[
        "unshare",
        "-m",
        "sh",
        "-ec",
        "mount -t tmpfs none /proc; exec \"$@\"",
        "sh",
    ]);
    let session = agent.login().await;
    let mut line = Line::start(&session, &Name::new(), "echo hello").await;
    line.frame("lacks /proc").await;
    line.closed().await;
    let mut line = Line::follow(&session, &Name::new(), 0).await;
    line.frame("lacks /proc").await;
}

#[tokio::test]
async fn without_free_processes_nothing_is_started() {
    let agent = agent_after("wrapper='setpriv --reuid 64123 --clear-groups prlimit --nproc=8'");
    let session = agent.login().await;
    let name = Name::new();
    let mut line = Line::start(&session, &name, "echo hello").await;
    line.frame("crowded").await;
    line.closed().await;
    assert!(!std::path::Path::new(&name.directory()).exists());
    // As if it had never been asked for.
    let mut line = Line::follow(&session, &name, 0).await;
    line.frame("gone 0").await;
}

#[tokio::test]
async fn without_free_descriptors_nothing_is_started() {
    let agent = agent_after("wrapper='prlimit --nofile=40'");
    let session = agent.login().await;
    let mut running = Vec::new();
    loop {
        let name = Name::new();
        let mut line = Line::start(&session, &name, "echo up; exec sleep 1000").await;
        match line.next().await {
            Event::Frame(frame) if frame == "open 0" => line.until("up\n").await,
            Event::Frame(frame) if frame == "crowded" => {
                assert!(!std::path::Path::new(&name.directory()).exists());
                break;
            }
            other => panic!("{other:?}"),
        };
        running.push((name, line));
        assert!(running.len() < 40);
    }
    for (name, mut line) in running {
        line.order("kill").await;
        assert_eq!(line.rest().await.last, "end 137 0");
        line.done(&name).await;
    }
    let name = Name::new();
    let mut line = Line::start(&session, &name, "echo again").await;
    assert_eq!(line.rest().await.text(), "again\n");
    line.done(&name).await;
}

#[tokio::test]
async fn memory_kills_are_counted_from_the_start() {
    for file in ["memory.events", "memory/memory.oom_control"] {
        let file = format!("/sys/fs/cgroup/{file}");
        let agent = agent_after(&format!(
            "mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/memory; echo oom_kill 3 >{file}"
        ));
        let session = agent.login().await;
        let name = Name::new();
        let script = format!("(echo oom 9; echo oom_kill 5) >{file}; exit 137");
        let mut line = Line::start(&session, &name, &script).await;
        assert_eq!(line.rest().await.last, "end 137 2");
        line.done(&name).await;
    }
}
