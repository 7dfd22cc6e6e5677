//! The user data of an instance: a `#cloud-config` for stock images of Amazon Linux 2023, Debian and Ubuntu. It says who may log
//! in, which host key the instance shows, and when it ends itself.
//!
//! Everything here takes effect in cloud-init's `init` stage, before `sshd` starts, so that it is all in place at the first login.
//! Nothing here needs the network.

use std::fmt::Write as _;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::shell::quote;
use crate::ssh::keys::JobKey;

/// EC2's limit, before base64.
const LIMIT: usize = 16 * 1024;
/// The systemd unit that ends the instance.
const UNIT: &str = "gitlab-aws-driver-lifetime";
/// The longest login name that Linux takes.
const LOGIN_LIMIT: usize = 32;

/// The user data of one instance.
#[derive(Clone, Copy)]
pub struct UserData<'a> {
    /// The login: root, the image's own user, or any other name, for which an account is made.
    pub login: &'a str,
    /// The job's public key, as an OpenSSH line; `None`: it is installed in another way.
    pub public_key: Option<&'a str>,
    /// The private host key that the instance shall show, ed25519, in OpenSSH's format.
    pub host_key: &'a str,
    /// The time from boot until it powers itself off.
    pub lifetime: Duration,
    /// Directories that the login must be able to write to: for builds and caches.
    pub directories: &'a [&'a str],
}

impl std::fmt::Debug for UserData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserData")
            .field("login", &self.login)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl UserData<'_> {
    /// Writes it, not yet in base64.
    ///
    /// # Errors
    /// If no account can have the login's name, the host key is not valid, or the whole is longer than EC2 takes.
    pub fn render(&self) -> Result<String> {
        self.check_login()?;
        let mut keys = vec![
            ("bootcmd", Value::List(self.boot_commands())),
            ("ssh_deletekeys", Value::Bool(true)),
            ("ssh_keys", self.host_keys()?),
            // Only of kinds that are not given above; an image whose default is all kinds takes seconds for RSA.
            ("ssh_genkeytypes", Value::list(["ed25519"])),
            ("package_update", Value::Bool(false)),
            ("package_upgrade", Value::Bool(false)),
        ];
        keys.extend(self.login_keys());
        let mut text = "#cloud-config\n".to_owned();
        for (key, value) in keys {
            text.push_str(key);
            text.push_str(": ");
            value.write(&mut text);
            text.push('\n');
        }
        if text.len() > LIMIT {
            return Err(Error::new(
                Kind::Config,
                format!(
                    "the instance's user data would have {} bytes, and EC2 takes {LIMIT}",
                    text.len()
                ),
            )
            .hint("Shorten builds_dir and cache_dir."));
        }
        Ok(text)
    }

    fn is_root(&self) -> bool {
        self.login == "root"
    }

    /// A name that `useradd` refuses would only show by a login that never succeeds.
    fn check_login(&self) -> Result<()> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
        if self.login.starts_with(begins)
            && self.login.len() <= LOGIN_LIMIT
            && self.login.chars().all(fits)
        {
            return Ok(());
        }
        Err(Error::new(
            Kind::Config,
            format!("no account on an instance can be named {:?}", self.login),
        )
        .hint(format!(
            "`username` under [ec2] or [ssh]: a letter or _, then letters, digits, '_', '-' and '.', {LOGIN_LIMIT} in all."
        )))
    }

    fn host_keys(&self) -> Result<Value> {
        let public = JobKey::from_pem(self.host_key)?.public_line()?;
        if !public.starts_with("ssh-ed25519 ") {
            return Err(Error::new(
                Kind::Bug,
                "the instance's host key is not of the kind ed25519",
            ));
        }
        Ok(Value::Map(vec![
            // sshd takes a key without a last line break for a damaged one, and then does not start.
            (
                "ed25519_private",
                Value::text(format!("{}\n", self.host_key.trim_end())),
            ),
            ("ed25519_public", Value::text(format!("{public}\n"))),
        ]))
    }

    fn login_keys(&self) -> Vec<(&'static str, Value)> {
        let keys = self
            .public_key
            .map(|key| ("ssh_authorized_keys", Value::list([key.trim_end()])));
        if self.is_root() {
            let mut settings = vec![
                ("disable_root", Value::Bool(false)),
                // Amazon Linux lets root in for forced commands only. The first word on it counts, and distributions
                // include this directory before all else.
                (
                    "write_files",
                    Value::List(vec![Value::Map(vec![
                        (
                            "path",
                            Value::text("/etc/ssh/sshd_config.d/01-gitlab-aws-driver.conf"),
                        ),
                        (
                            "content",
                            Value::text("PermitRootLogin prohibit-password\n"),
                        ),
                    ])]),
                ),
            ];
            // For root and the image's own user, which has sudo. An entry of root's own among `users`
            // would lock its password, which servers without PAM take for a locked account.
            settings.extend(keys);
            return settings;
        }
        let mut user = vec![
            ("name", Value::text(self.login)),
            // As the image's own user has it; if this is that user, cloud-init merges the two.
            ("sudo", Value::text("ALL=(ALL) NOPASSWD:ALL")),
            ("shell", Value::text("/bin/bash")),
            ("lock_passwd", Value::Bool(true)),
        ];
        user.extend(keys);
        let users = vec![Value::text("default"), Value::Map(user)];
        vec![("users", Value::List(users))]
    }

    /// Commands of the init stage, before accounts are made, on every boot.
    fn boot_commands(&self) -> Vec<Value> {
        let mut commands = vec![
            Value::text(self.end_after_lifetime()),
            // Their timers start at boot and take the lock that a job's `apt-get install` needs.
            Value::text(
                "[ ! -d /etc/apt/apt.conf.d ] || \
                 echo 'APT::Periodic::Enable \"0\";' >/etc/apt/apt.conf.d/99-gitlab-aws-driver",
            ),
        ];
        // Root's home is there already. In a user's home the account makes it: if it were made before the account, root would
        // own it.
        let own = |path: &&&str| !self.is_root() && !path.starts_with("/home/");
        commands.extend(self.directories.iter().filter(own).map(|path| {
            let path = quote(path);
            // Only this job's login is on the machine, and its account, which could own them, is not made yet.
            Value::text(format!("mkdir -p -- {path} && chmod 1777 -- {path}"))
        }));
        commands
    }

    /// Powers the instance off after its lifetime. Its shutdown behaviour is to terminate.
    ///
    /// No script can kill a timer of process 1. It is set over the private socket of process 1, since D-Bus is not up yet (nor is
    /// logind, which `shutdown +N` needs). It depends on nothing, or it would wait for a stage of the boot that waits for this one.
    /// Without systemd, a sleeping process takes its place.
    fn end_after_lifetime(&self) -> String {
        let seconds = self.lifetime.as_secs();
        format!(
            "systemd-run --quiet --no-block --unit={UNIT} --on-active={seconds}s --timer-property=AccuracySec=1s \
             --timer-property=DefaultDependencies=no --property=DefaultDependencies=no \
             /bin/sh -c 'systemctl --force poweroff || systemctl --force --force poweroff' || \
             {{ (sleep {seconds}; poweroff -f) </dev/null >/dev/null 2>&1 & }}"
        )
    }
}

/// A value in YAML's flow style: nothing depends on indentation, and every text is quoted.
enum Value {
    Bool(bool),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(&'static str, Value)>),
}

impl Value {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn list<const N: usize>(texts: [&str; N]) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Text(text) => write_text(text, out),
            Self::List(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    value.write(out);
                }
                out.push(']');
            }
            Self::Map(pairs) => {
                out.push('{');
                for (i, (key, value)) in pairs.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    out.push_str(key);
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Writes a double-quoted scalar in printable ASCII: parsers differ in how they take other characters.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            ' '..='~' => out.push(c),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(login: &str, host_key: &str, directories: &[&str]) -> Result<String> {
        UserData {
            login,
            public_key: Some("ssh-ed25519 AAAA job\n"),
            host_key,
            lifetime: Duration::from_secs(5400),
            directories,
        }
        .render()
    }

    fn host_key() -> String {
        JobKey::generate().unwrap().to_pem().unwrap()
    }

    #[test]
    fn a_host_key_ends_in_one_line_break() {
        let pem = host_key();
        for given in [pem.trim_end(), &pem] {
            let text = render("admin", given, &[]).unwrap();
            assert!(
                text.contains("-----END OPENSSH PRIVATE KEY-----\\n\""),
                "{text}"
            );
        }
    }

    #[test]
    fn names_that_no_account_can_have_are_refused() {
        let pem = host_key();
        for login in [
            "",
            "1st",
            "-rf",
            "a b",
            "a:b",
            "a\nb",
            "a,b",
            "Jörg",
            &"x".repeat(33),
        ] {
            let error = render(login, &pem, &[]).unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{login:?}");
        }
        for login in [
            "root",
            "admin",
            "ec2-user",
            "_ci",
            "Build.Bot_1",
            &"x".repeat(32),
        ] {
            render(login, &pem, &[]).unwrap();
        }
    }

    #[test]
    fn what_is_no_host_key_is_refused() {
        assert!(render("root", "-----BEGIN OPENSSH PRIVATE KEY-----\n", &[]).is_err());
    }

    #[test]
    fn more_than_ec2_takes_is_refused_with_the_size() {
        let long = format!("/{}", "x".repeat(8 * 1024));
        let error = render("admin", &host_key(), &[&long, &long]).unwrap_err();
        assert!(error.to_string().contains("EC2 takes 16384"), "{error}");
        // Root needs no directories made.
        render("root", &host_key(), &[&long, &long]).unwrap();
    }

    #[test]
    fn a_home_is_left_to_its_account() {
        let directories = ["/builds", "/home/admin/cache"];
        let text = render("admin", &host_key(), &directories).unwrap();
        assert!(text.contains("mkdir -p -- '/builds'"), "{text}");
        assert!(!text.contains("/home/admin"), "{text}");
    }

    #[test]
    fn without_a_key_nobody_is_authorised_and_the_login_is_made_all_the_same() {
        let pem = host_key();
        for (login, wanted) in [
            ("root", "disable_root: false"),
            ("admin", "name: \"admin\""),
        ] {
            let data = UserData {
                login,
                public_key: None,
                host_key: &pem,
                lifetime: Duration::from_secs(1),
                directories: &[],
            };
            let text = data.render().unwrap();
            assert!(text.contains(wanted), "{text}");
            assert!(!text.contains("authorized_keys"), "{text}");
            assert!(text.contains("ed25519_private"), "{text}");
        }
    }

    #[test]
    fn a_debug_line_holds_no_key() {
        let pem = host_key();
        let data = UserData {
            login: "root",
            public_key: Some("ssh-ed25519 AAAA"),
            host_key: &pem,
            lifetime: Duration::from_secs(1),
            directories: &[],
        };
        assert!(!format!("{data:?}").contains("PRIVATE"));
    }
}
