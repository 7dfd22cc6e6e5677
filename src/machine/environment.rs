//! The environment that a container gives its processes (the image's `ENV`, the task's variables, the address of
//! the role's credentials), which a login over SSH does not get: taken from process 1, kept in the job's record,
//! and given to each script.
//!
//! What a script gets is what `env` would give it: every variable of process 1, but for those that belong to a login
//! and those that shells do not let anybody set; `PATH` has process 1's entries first and the login's behind them.
//! It reaches the script as a *prelude*, a piece of shell in a file of its own that a shell reads before it becomes the
//! script's, so that no value stands in a command line, and neither the script's text nor its line numbers change.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// How many bytes of process 1's environment are read; variables that do not lie whole within are left out. No process
/// starts with more than 2 MiB, arguments included (`execve(2)`).
pub const LIMIT: usize = 1 << 20;

/// Variables that belong to the login, or that no shell lets anybody set; beside these, all that begin with [`SSH`].
const NEVER: [&str; 19] = [
    "_",
    "BASHOPTS",
    "BASHPID",
    "BASH_VERSINFO",
    "EGID",
    "EUID",
    "GID",
    "HOME",
    "HOSTNAME",
    "LOGNAME",
    "OLDPWD",
    "PPID",
    "PWD",
    "SHELL",
    "SHELLOPTS",
    "SHLVL",
    "TERM",
    "UID",
    "USER",
];

/// What the SSH server says of the connection, and the task's `SSH_PUBLIC_KEY`.
const SSH: &[u8] = b"SSH_";

/// Variables that some shell reads, counts or computes itself, so that one that was told to export them would export
/// something else, or go wrong.
const SHELLS_OWN: [&str; 34] = [
    "BASH_ALIASES",
    "BASH_ARGC",
    "BASH_ARGV",
    "BASH_ARGV0",
    "BASH_CMDS",
    "BASH_COMMAND",
    "BASH_COMPAT",
    "BASH_LINENO",
    "BASH_SOURCE",
    "BASH_SUBSHELL",
    "BASH_VERSION",
    "BASH_XTRACEFD",
    "COMP_WORDBREAKS",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "ERRNO",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "IFS",
    "KSH_VERSION",
    "LINENO",
    "OPTARG",
    "OPTERR",
    "OPTIND",
    "PGRP",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "RANDOM",
    "SECONDS",
    "SRANDOM",
    "USERNAME",
    "USER_ID",
];

/// What stands in the record before a variable that is no text.
const HEX: &str = "hex:";

/// The variables of a container that its scripts get.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ContainerEnvironment {
    variables: Vec<Variable>,
    /// There was more than is read, and the rest is left out.
    #[serde(default)]
    cut: bool,
}

/// One variable: any bytes but NUL, no `=` in the name.
#[derive(Clone, PartialEq, Eq)]
struct Variable {
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Why a container's environment cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Process 1 does not let this login look.
    Unreadable {
        /// Whether the login is root.
        root: bool,
    },
    /// A program (its name, as the kernel tells it) has written its title over it, as OpenSSH's server does.
    Overwritten(String),
    /// Process 1 has none.
    Empty,
    /// Process 1 belongs to another container of the task, or to the host.
    Foreign,
}

impl ContainerEnvironment {
    /// Reads process 1's environment as `/proc/1/environ` gives it, at most [`LIMIT`] bytes of it.
    ///
    /// # Errors
    /// Where process 1 (its name is `program`) has none, or has written something else there.
    pub fn read(environ: &[u8], program: &str) -> Result<Self, Missing> {
        let cut = environ.len() > LIMIT;
        let mut bytes = &environ[..environ.len().min(LIMIT)];
        if cut {
            let end = memchr::memrchr(0, bytes).map_or(0, |at| at + 1);
            bytes = &bytes[..end];
        }
        if environ.is_empty() {
            return Err(Missing::Empty);
        }
        if is_overwritten(bytes) {
            return Err(Missing::Overwritten(program.to_owned()));
        }
        let mut variables: Vec<Variable> = Vec::new();
        let all = bytes.split(|b| *b == 0).filter_map(Variable::split);
        for variable in all.filter(Variable::is_wanted) {
            // Twice the same name is nobody's intention; shells take the last.
            match variables.iter_mut().find(|v| v.name == variable.name) {
                Some(earlier) => *earlier = variable,
                None => variables.push(variable),
            }
        }
        Ok(Self { variables, cut })
    }

    /// Returns what is not also in another environment, with the same value.
    #[must_use]
    pub fn beyond(mut self, other: &Self) -> Self {
        self.variables.retain(|v| !other.variables.contains(v));
        self
    }

    /// Returns the number of variables.
    #[must_use]
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// Returns whether there is no variable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// Returns what people should know of it, on one line: that not all of it was taken.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.cut.then(|| {
            format!(
                "the container's environment is longer than {} KiB: variables beyond that are not set in scripts",
                LIMIT / 1024
            )
        })
    }

    /// Returns the shell text that sets the variables in a shell whose arguments are a command, which may have other
    /// words before it afterwards. Empty where there is nothing to set.
    #[must_use]
    pub fn prelude(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let (plain, odd): (Vec<_>, Vec<_>) = self
            .variables
            .iter()
            .partition(|variable| variable.is_plain());
        if !odd.is_empty() {
            self.carry(&odd, &mut text);
        }
        // A locale changes how some shells read what follows.
        let (locale, plain): (Vec<_>, Vec<_>) =
            plain.into_iter().partition(|variable| variable.is_locale());
        for variable in plain.into_iter().chain(locale) {
            match &variable.name[..] {
                b"PATH" if variable.value.is_empty() => {}
                b"PATH" => path(&variable.value, &mut text),
                _ => export(&variable.name, &variable.value, &mut text),
            }
        }
        text
    }

    /// Writes what sets variables that no shell can export: `env` has to, as the command's first word. GNU's takes them
    /// from variables; others know no way but arguments, where every user of the machine sees them for a moment.
    fn carry(&self, odd: &[&Variable], text: &mut Vec<u8>) {
        let mut prefix = "GAD_ODD".to_owned();
        while self
            .variables
            .iter()
            .any(|v| v.name.starts_with(prefix.as_bytes()))
        {
            prefix.push('_');
        }
        let (mut unset, mut taken, mut exports) = (String::new(), String::new(), Vec::new());
        let mut words = Vec::new();
        for (index, variable) in odd.iter().enumerate() {
            let whole = variable.joined();
            unset += &format!(" -u {prefix}{index}");
            taken += &format!(" ${{{prefix}{index}}}");
            export(format!("{prefix}{index}").as_bytes(), &whole, &mut exports);
            words.push(b' ');
            quote(&whole, &mut words);
        }
        // Looked up while PATH is still the login's.
        let pieces: [&[u8]; 9] = [
            b"if [ \"$(GAD_ODD=x env -S 'echo ${GAD_ODD}' 2>/dev/null)\" = x ]; then\nset -- \"$(command -v env)\"",
            unset.as_bytes(),
            b" -S '--",
            taken.as_bytes(),
            b"' \"$@\"\n",
            &exports,
            b"elif command -v env >/dev/null; then\nset -- \"$(command -v env)\" --",
            &words,
            b" \"$@\"\nfi\n",
        ];
        text.extend(pieces.concat());
    }
}

impl Missing {
    /// Says on one line what is missing, why, and what helps.
    #[must_use]
    pub fn warning(&self) -> String {
        let (why, remedy) = match self {
            Self::Unreadable { root: false } => (
                "process 1 shows it to root only".to_owned(),
                "have the image's SSH server let in root, and set `username` under [fargate] or [ssh]",
            ),
            Self::Unreadable { root: true } => (
                "process 1 does not show it even to root".to_owned(),
                INIT_PROCESS,
            ),
            Self::Overwritten(program) => (
                format!("process 1, `{program}`, has overwritten it"),
                INIT_PROCESS,
            ),
            Self::Empty => ("process 1 has none".to_owned(), INIT_PROCESS),
            Self::Foreign => (
                "process 1 is not this container's".to_owned(),
                "remove `pidMode` from the task definition",
            ),
        };
        format!(
            "scripts do not get the container's environment (variables of the image and of the task, credentials of \
             its role): {why}; remedy: {remedy}"
        )
    }
}

/// The remedy for a process 1 that does not keep its environment.
const INIT_PROCESS: &str = "`initProcessEnabled` in the task definition's linuxParameters, or tini as the image's entrypoint";

/// Recognises a process title: setproctitle writes over arguments and environment, which lie in one piece, and fills
/// up with NULs. A long title's end is then all that is left at the beginning, and at the end may be the last byte, which
/// OpenSSH forgets.
fn is_overwritten(environ: &[u8]) -> bool {
    let mut entries = environ
        .strip_suffix(b"\0")
        .unwrap_or(environ)
        .split(|b| *b == 0);
    let first = entries.next().and_then(Variable::split);
    let mut gap = false;
    for entry in entries {
        gap |= entry.is_empty();
        if Variable::split(entry).is_some() {
            return false;
        }
    }
    gap || first.is_none()
}

impl Variable {
    fn split(entry: &[u8]) -> Option<Self> {
        let at = memchr::memchr(b'=', entry).filter(|at| *at > 0)?;
        Some(Self {
            name: entry[..at].to_owned(),
            value: entry[at + 1..].to_owned(),
        })
    }

    fn joined(&self) -> Vec<u8> {
        [&self.name[..], b"=", &self.value[..]].concat()
    }

    fn is_wanted(&self) -> bool {
        !self.name.starts_with(SSH) && !NEVER.iter().any(|name| name.as_bytes() == self.name)
    }

    /// Whether every shell can export it.
    fn is_plain(&self) -> bool {
        let is_identifier = !self.name[0].is_ascii_digit()
            && self
                .name
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        is_identifier && !SHELLS_OWN.iter().any(|name| name.as_bytes() == self.name)
    }

    fn is_locale(&self) -> bool {
        self.name.starts_with(b"LC_") || self.name.starts_with(b"LANG")
    }
}

/// Values are often secrets.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=..", String::from_utf8_lossy(&self.name))
    }
}

impl Serialize for Variable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.joined();
        match str::from_utf8(&whole) {
            Ok(text) if !text.starts_with(HEX) => serializer.serialize_str(text),
            _ => serializer.serialize_str(&(HEX.to_owned() + &crate::hash::hex(&whole))),
        }
    }
}

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let whole = match text.strip_prefix(HEX) {
            Some(digits) => crate::hash::from_hex(digits),
            None => Some(text.into_bytes()),
        };
        whole
            .filter(|whole| !whole.contains(&0))
            .and_then(|whole| Self::split(&whole))
            .ok_or_else(|| D::Error::custom("a variable is NAME=VALUE, or hex: and digits"))
    }
}

fn export(name: &[u8], value: &[u8], text: &mut Vec<u8>) {
    text.extend(b"export ");
    text.extend(name);
    text.push(b'=');
    quote(value, text);
    text.push(b'\n');
}

/// Writes what puts entries at the front of PATH; the login's own follow, but for those that are there already. The dot
/// keeps line feeds at the end, which a command substitution would drop.
fn path(first: &[u8], text: &mut Vec<u8>) {
    text.extend(b"export PATH=\"$(\nIFS=:\nset -f\nset -- ");
    quote(first, text);
    text.extend(
        br#"
for entry in $PATH; do
case ":$1::" in *":$entry:"*) ;; *) set -- "$1:$entry" ;; esac
done
printf '%s.' "$1")"
PATH=${PATH%.}
"#,
    );
}

fn quote(value: &[u8], text: &mut Vec<u8>) {
    text.push(b'\'');
    for byte in value {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            other => text.push(*other),
        }
    }
    text.push(b'\'');
}

#[cfg(test)]
mod tests;
