//! Images of the kinds that users have, for [`super::docker::Docker`]; each is made once for all tests of a process.

use super::docker::Docker;
use super::tree::Tree;

/// Programs of coreutils and the like that the scripts of jobs call.
const ORDINARY: [&str; 38] = [
    "bash",
    "dash",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "echo",
    "env",
    "expr",
    "false",
    "grep",
    "head",
    "id",
    "ls",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mv",
    "nohup",
    "ps",
    "readlink",
    "rm",
    "sed",
    "seq",
    "setsid",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tee",
    "timeout",
    "touch",
    "tr",
    "true",
    "wc",
];

/// What the entrypoints say first, so that a test sees that they ran.
pub(crate) const ENTRYPOINT_RAN: &str = "the entrypoint runs";

/// A variable that [`exporting_entrypoint`] sets, and its value.
pub(crate) const EXPORTED: (&str, &str) = ("FROM_ENTRYPOINT", "two words");

/// What [`staying_entrypoint`] says when its command has ended.
pub(crate) const STAYED: &str = "the entrypoint goes on";

/// The user of [`nameless`].
pub(crate) const NAMELESS: u32 = 12345;

/// Where [`with_volume`] has one.
pub(crate) const VOLUME: &str = "/builds";

/// busybox and nothing else.
pub(crate) fn busybox(docker: &Docker) -> String {
    docker.image("busybox", &Tree::small())
}

/// What Debian has: bash, dash as `sh`, and the programs of coreutils, no busybox.
pub(crate) fn debian(docker: &Docker) -> String {
    let tree = ORDINARY
        .iter()
        .fold(Tree::default(), |tree, name| tree.program(name));
    docker.image("debian", &tree.link("sh", "dash"))
}

/// A user who has neither a line in `/etc/passwd` nor a home.
pub(crate) fn nameless(docker: &Docker) -> String {
    let user = format!("USER {NAMELESS}");
    docker.image("nameless", &Tree::small().line(&user))
}

/// No shell: libraries, and one program that waits for ever.
pub(crate) fn shell_less(docker: &Docker) -> String {
    docker.image("shell-less", &Tree::without_shell())
}

/// `VOLUME` in the image, which docker makes anew for each container.
pub(crate) fn with_volume(docker: &Docker) -> String {
    let line = format!("VOLUME {VOLUME}");
    docker.image("with-volume", &Tree::small().line(&line))
}

/// An entrypoint that becomes its command.
pub(crate) fn becoming_entrypoint(docker: &Docker) -> String {
    entrypoint(docker, "becoming", "exec \"$@\"")
}

/// An entrypoint that exports a variable, goes to another directory and becomes its command.
pub(crate) fn exporting_entrypoint(docker: &Docker) -> String {
    let (name, value) = EXPORTED;
    let body = format!("export {name}='{value}'\ncd /var/tmp\nexec \"$@\"");
    entrypoint(docker, "exporting", &body)
}

/// An entrypoint that ends at TERM, whatever its command does.
pub(crate) fn trapping_entrypoint(docker: &Docker) -> String {
    let body = "trap 'echo \"the entrypoint ends\"; exit 0' TERM\n\"$@\" &\nwait $!";
    entrypoint(docker, "trapping", body)
}

/// An entrypoint that runs its command as a child and then goes on; as process 1, its shell does not see TERM.
pub(crate) fn staying_entrypoint(docker: &Docker) -> String {
    let body = format!("\"$@\"\ncode=$?\necho '{STAYED}'\nexit $code");
    entrypoint(docker, "staying", &body)
}

/// An entrypoint that does not look at its arguments, prints something and ends well.
pub(crate) fn dropping_entrypoint(docker: &Docker) -> String {
    let line = format!("ENTRYPOINT [\"/bin/sh\", \"-c\", \"echo '{ENTRYPOINT_RAN}'\"]");
    docker.image("dropping", &Tree::small().line(&line))
}

/// An entrypoint that takes its first argument for a whole script, and drops the others.
pub(crate) fn shell_entrypoint(docker: &Docker) -> String {
    let line = "ENTRYPOINT [\"/bin/sh\", \"-c\"]";
    docker.image("shell", &Tree::small().line(line))
}

/// An entrypoint that is a tool, which takes the command for a name of something that it does not know.
pub(crate) fn tool(docker: &Docker) -> String {
    docker.image("tool", &Tree::small().line("ENTRYPOINT [\"/bin/busybox\"]"))
}

/// An entrypoint that is a tool, which prints the command's file and ends well.
pub(crate) fn printing_tool(docker: &Docker) -> String {
    docker.image("cat", &Tree::small().line("ENTRYPOINT [\"/bin/cat\"]"))
}

/// Options of `docker run` for a root that nobody can write, with a place for what is temporary.
pub(crate) const READ_ONLY: [&str; 3] = ["--read-only", "--tmpfs", "/tmp"];

fn entrypoint(docker: &Docker, name: &str, body: &str) -> String {
    let script = format!("#!/bin/sh\necho '{ENTRYPOINT_RAN}'\n{body}\n");
    let tree = Tree::small().file("/entrypoint", &script);
    docker.image(name, &tree.line("ENTRYPOINT [\"/entrypoint\"]"))
}
