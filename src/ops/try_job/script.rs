//! The scripts of the sub-stages, in the form of GitLab Runner's generator.
//!
//! All that a sub-stage does is one text, which the script evaluates in a subshell without standard
//! input. Each command is announced before it runs.

use super::job::{Job, JobState};

const GREEN: &[u8] = b"\x1b[32;1m";
const RESET: &[u8] = b"\x1b[0;m";

/// What all scripts of one try share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer<'a> {
    pub(super) job: &'a Job,
    pub(super) state: &'a JobState,
    /// The host on which the driver says that the job runs.
    pub(super) hostname: Option<&'a str>,
    /// The shell that the driver asked for.
    pub(super) shell: &'a str,
    pub(super) colour: bool,
}

impl Writer<'_> {
    /// Names the machine and removes what an earlier job may have left.
    pub(super) fn prepare_script(&self) -> Vec<u8> {
        let mut text = b"echo \"Running on $(hostname)\"".to_vec();
        if let Some(host) = self.hostname {
            text.extend(b"' via '");
            text.extend(shell_word(host.as_bytes()));
        }
        text.extend(b"...\n");
        text.extend(self.forget_variables());
        self.whole(&text)
    }

    /// Makes the project's directory. It fetches no repository.
    pub(super) fn get_sources(&self) -> Vec<u8> {
        let mut text = self.exports();
        if let Some(hook) = &self.job.pre_get_sources {
            text.extend(self.command(hook));
        }
        text.extend(self.say(b"Skipping Git repository setup"));
        text.extend(b"mkdir -p ");
        text.extend(self.project_dir());
        text.push(b'\n');
        text.extend(self.say(b"Skipping Git checkout"));
        text.extend(self.say(b"Skipping Git submodules setup"));
        self.whole(&text)
    }

    /// Empties the working tree of a repository that could not be brought up to date.
    pub(super) fn clear_worktree(&self) -> Vec<u8> {
        let mut text = self.say(b"Deleting tracked and untracked files...");
        let project = self.project_dir();
        text.extend(b"if [ -d ");
        text.extend(&project);
        text.extend(b"/.git ]; then\n  cd ");
        text.extend(&project);
        text.extend(b"\n  git rm -rfq --ignore-unmatch .\n  git clean -ffdxq\nfi\n");
        self.whole(&text)
    }

    /// Runs the job's own script.
    pub(super) fn build_script(&self) -> Vec<u8> {
        self.users(&self.job.script)
    }

    /// Runs the job's `after_script`, if it has one.
    pub(super) fn after_script(&self) -> Option<Vec<u8>> {
        self.job.after_script.as_ref().map(|text| self.users(text))
    }

    /// Removes the files with variables.
    pub(super) fn cleanup_file_variables(&self) -> Vec<u8> {
        let mut text = self.exports();
        text.extend(self.forget_variables());
        self.whole(&text)
    }

    fn users(&self, script: &[u8]) -> Vec<u8> {
        let mut text = self.exports();
        text.extend(b"cd ");
        text.extend(self.project_dir());
        text.push(b'\n');
        text.extend(self.command(script));
        self.whole(&text)
    }

    /// Wraps the text into the frame that all scripts have.
    fn whole(&self, text: &[u8]) -> Vec<u8> {
        let mut script = format!("#!/usr/bin/env {}\n\n", self.shell).into_bytes();
        script.extend(b"trap 'exit 1' TERM\n\n");
        script.extend(
            b"if (set -o pipefail) 2> /dev/null; then set -o pipefail; fi; set -o errexit\n",
        );
        script.extend(b"set +o noclobber\n");
        script.extend(b"(trap 'exit 1' TERM; eval ");
        script.extend(ansi_c_quoted(text));
        script.extend(b") < /dev/null\nexit 0\n");
        script
    }

    /// Sets the job's variables, and those that earlier sub-stages left in the `GITLAB_ENV` file.
    fn exports(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (name, value) in self.job.variables(self.state) {
            text.extend(format!("export {name}=").into_bytes());
            text.extend(quoted_if_needed(value.as_bytes()));
            text.push(b'\n');
        }
        let (directory, file) = (self.project_temp(), self.variables_file());
        text.extend(b"export GITLAB_ENV=");
        text.extend(&file);
        text.extend(b"\nmkdir -p ");
        text.extend(directory);
        text.extend(b"\n: >> ");
        text.extend(&file);
        text.extend(b"\nwhile read -r assignment; do export \"$assignment\"; done < ");
        text.extend(&file);
        text.push(b'\n');
        text
    }

    fn forget_variables(&self) -> Vec<u8> {
        let mut text = b"rm -f ".to_vec();
        text.extend(self.variables_file());
        text.push(b'\n');
        text
    }

    fn project_dir(&self) -> Vec<u8> {
        quoted_if_needed(self.state.project_dir.as_bytes())
    }

    fn project_temp(&self) -> Vec<u8> {
        quoted_if_needed(self.state.project_temp().as_bytes())
    }

    fn variables_file(&self) -> Vec<u8> {
        quoted_if_needed(format!("{}/gitlab_runner_env", self.state.project_temp()).as_bytes())
    }

    /// Announces a command and runs it; of one with several lines the first is shown.
    fn command(&self, command: &[u8]) -> Vec<u8> {
        let command = command.strip_suffix(b"\n").unwrap_or(command);
        if command.is_empty() {
            return Vec::new();
        }
        let mut shown = b"$ ".to_vec();
        match command.iter().position(|byte| *byte == b'\n') {
            None => shown.extend(command),
            Some(at) => {
                shown.extend(&command[..at]);
                shown.extend(b" # collapsed multi-line command");
            }
        }
        let mut text = self.say(&shown);
        text.extend(command);
        text.push(b'\n');
        text
    }

    fn say(&self, words: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        if self.colour {
            line.extend(GREEN);
        }
        line.extend(words);
        if self.colour {
            line.extend(RESET);
        }
        let mut text = b"echo ".to_vec();
        text.extend(ansi_c_quoted(&line));
        text.push(b'\n');
        text
    }
}

/// Returns `$'…'` that bash and busybox evaluate to exactly these bytes, NUL excepted, which no shell
/// can hold. Anything but printable ASCII is escaped, so the locale does not matter.
pub(super) fn ansi_c_quoted(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 3);
    text.extend(b"$'");
    for byte in bytes {
        match byte {
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            b'\'' | b'\\' => text.extend([b'\\', *byte]),
            b' '..=b'~' => text.push(*byte),
            // Two digits are the most that the shell reads, so a digit that follows stays itself.
            other => text.extend(format!("\\x{other:02x}").into_bytes()),
        }
    }
    text.push(b'\'');
    text
}

/// Returns the value as it is where the shell takes it as one plain word, quoted otherwise.
fn quoted_if_needed(bytes: &[u8]) -> Vec<u8> {
    if is_plain(bytes) {
        bytes.to_vec()
    } else {
        ansi_c_quoted(bytes)
    }
}

/// Returns the word as a person would quote it.
pub(super) fn shell_word(bytes: &[u8]) -> Vec<u8> {
    if is_plain(bytes) {
        return bytes.to_vec();
    }
    let mut text = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            other => text.push(*other),
        }
    }
    text.push(b'\'');
    text
}

fn is_plain(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"_@%+:,./-".contains(b))
}
