//! The files that make a machine: accounts, login shell, PATH, entrypoint, server configuration.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::super::tools;
use super::super::write_program;
use super::Kind;
use super::Login;
use super::Nologin;
use super::ORDINARY_PATH;
use super::Server;

impl Server {
    /// Lets a user who is not root come as far as its home, which is its own.
    pub(super) fn open_to_all(&self, parent: &Path) {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(parent, open).expect("own directory");
        for folder in [&self.home, &self.home.join(".ssh")] {
            chown(folder, Some(self.uid()), Some(self.uid())).expect("root may");
        }
    }

    pub(super) fn write_accounts(&self) {
        let shell = self.login_shell();
        let home = self.home.display();
        let write = |name: &str, text: String| {
            std::fs::write(self.directory.join(name), text).expect("a writable directory");
        };
        let user = self.builder.user.as_ref();
        let user = |line: &dyn Fn(&str) -> String| user.map_or_else(String::new, |name| line(name));
        write(
            "passwd",
            format!(
                "root:x:0:0:root:{home}:{shell}\n\
                 {user}\
                 sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
                user = user(&|name| format!(
                    "{name}:x:{uid}:{uid}:{name}:{home}:{shell}\n",
                    uid = self.uid()
                )),
            ),
        );
        // Mostly no password, and not locked either (sshd refuses locked accounts even by key).
        let password = self.builder.password;
        let passwordless = |name: &str| format!("{name}:{password}:19000:0:99999:7:::\n");
        let users = user(&passwordless);
        write("shadow", format!("{}{users}", passwordless("root")));
        // dropbear refuses shells that are not listed.
        write("shells", format!("{shell}\n"));
        let mut start_up = self.builder.start_up.clone().unwrap_or_default();
        if let Some(noise) = self.builder.noise.as_ref().filter(|_| self.reads_bashrc()) {
            start_up += &noisy(noise);
        }
        if !start_up.is_empty() {
            assert!(self.reads_bashrc(), "this login reads no start-up file");
            std::fs::write(self.home.join(".bashrc"), start_up).expect("a writable directory");
        }
        match self.builder.nologin {
            Some((Nologin::Pam, words)) => {
                std::fs::write(self.nologin(), words).expect("a writable directory");
                let file = self.nologin();
                let service = format!(
                    "auth required pam_deny.so\n\
                     account required pam_nologin.so file={}\n\
                     account required pam_permit.so\n\
                     session required pam_permit.so\n",
                    file.display()
                );
                write("pam", service);
            }
            Some((Nologin::Server, words)) => write("etc-nologin", words.to_owned()),
            None => {}
        }
    }

    /// Returns the commands that bring in the file that keeps all but root out.
    fn keep_out(&self) -> String {
        let dir = self.directory.display();
        match self.builder.nologin {
            None => String::new(),
            Some((Nologin::Pam, _)) => format!("mount --bind '{dir}/pam' /etc/pam.d/sshd\n"),
            // It has to be made, and in no other machine's /etc.
            Some((Nologin::Server, _)) => format!(
                "cp -a /etc '{dir}/etc'\nmv '{dir}/etc-nologin' '{dir}/etc/nologin'\nmount --bind '{dir}/etc' /etc\n"
            ),
        }
    }

    /// Returns the path of the login shell, made where it does not exist as such.
    fn login_shell(&self) -> String {
        let folder = self.directory.join("shell");
        std::fs::create_dir_all(&folder).expect("a writable directory");
        let (name, shell) = match self.builder.login {
            Login::Bash => ("bash", tools::program("bash")),
            Login::Dash => ("dash", PathBuf::from("/bin/dash")),
            Login::Busybox => {
                // busybox does what its name says.
                let sh = folder.join("sh");
                symlink(tools::program("busybox"), &sh).expect("a writable directory");
                ("busybox-sh", sh)
            }
        };
        let noise = self.builder.noise.as_deref();
        let wrapped_noise = noise.filter(|_| !self.reads_bashrc());
        // dropbear has no other way to be told a PATH.
        let wrapped_path = (self.builder.kind == Kind::Dropbear && !self.has_ordinary_path())
            .then(|| self.login_path());
        if wrapped_noise.is_none() && wrapped_path.is_none() {
            return shell.display().to_string();
        }
        let mut text = "#!/bin/sh\n".to_owned();
        if let Some(path) = wrapped_path {
            text += &format!("export PATH='{path}'\n");
        }
        text += &wrapped_noise.map(noisy).unwrap_or_default();
        text += &format!("exec '{}' \"$@\"\n", shell.display());
        let wrapper = folder.join(format!("noisy-{name}"));
        write_program(&wrapper, &text);
        wrapper.display().to_string()
    }

    /// Tells whether a command's shell reads `.bashrc`: bash does where it finds itself started by a
    /// server that sets `SSH_CLIENT`.
    fn reads_bashrc(&self) -> bool {
        self.builder.login == Login::Bash && self.builder.kind != Kind::Own
    }

    fn has_ordinary_path(&self) -> bool {
        !self.builder.busybox_only && self.builder.path_first.is_empty()
    }

    fn login_path(&self) -> String {
        let mut parts: Vec<String> = self
            .builder
            .path_first
            .iter()
            .map(|directory| directory.display().to_string())
            .collect();
        if self.builder.busybox_only {
            let folder = self.directory.join("busybox");
            if !folder.exists() {
                install_busybox(&folder);
            }
            parts.push(folder.display().to_string());
        } else {
            parts.push(ORDINARY_PATH.to_owned());
        }
        parts.join(":")
    }

    pub(super) fn write_entrypoint(&self) {
        let dir = self.directory.display();
        let home = self.home.display();
        let serve = self.serve_command();
        let listen = self.listen_option();
        let listen_late = seconds(self.builder.listen_late)
            .map_or_else(String::new, |late| format!("sleep {late}\n"));
        let host_key = self.take_host_key();
        let keep_out = self.keep_out();
        let asking = match self.builder.instance_connect {
            true => self.ask_for_keys(),
            false => String::new(),
        };
        let path = match self.builder.kind == Kind::OpenSsh && !self.has_ordinary_path() {
            true => format!("PATH={}", self.login_path()),
            false => String::new(),
        };
        let authorise = seconds(self.builder.authorise_late).map_or_else(
            || "authorise\n".to_owned(),
            |late| format!("(sleep {late}; authorise) </dev/null >/dev/null 2>&1 &\n"),
        );
        let mut disk = self
            .var_tmp()
            .map_or_else(String::new, |path| mount_var_tmp(&path));
        if let Some(megabytes) = self.builder.small_disk {
            disk += &self.mount_small_disk(megabytes);
        }
        if self.builder.shells_elsewhere {
            disk += "for shell in bash sh; do\n    \
                     mount --bind /dev/null \"$(readlink -f \"$(command -v $shell)\")\"\ndone\n";
        }
        let run = if self.builder.init {
            // The shell stays, ends the server when it is told to end, and collects all that is orphaned. The
            // server must not have the signals ignored that shells ignore for what they start aside.
            format!(
                "env --default-signal=INT,QUIT {serve} 2>> '{dir}/log' &\n\
                 server=$!\n\
                 trap 'kill -TERM $server' TERM\n\
                 code=0\n\
                 while kill -0 $server 2>/dev/null; do\n    code=0\n    wait $server || code=$?\ndone\n\
                 exit $code"
            )
        } else {
            format!("exec {serve} 2>> '{dir}/log'")
        };
        let first = &self.builder.first;
        let text = format!(
            r#"#!/bin/sh
# A job machine of the test lab. Its arguments are the addresses that it serves at.
if [ "${{1-}}" != inside ]; then
    exec unshare --mount --propagation private "$0" inside "$@"
fi
shift
set -eu
umask 022
cd /
mkdir -p /run/sshd
[ $# -gt 0 ] || set -- 127.0.0.1
listen=
for address; do
    {listen}
done
{host_key}setenv='{path}'
if [ -n "${{AWS_EC2_METADATA_SERVICE_ENDPOINT-}}" ]; then
    setenv="$setenv AWS_EC2_METADATA_SERVICE_ENDPOINT=$AWS_EC2_METADATA_SERVICE_ENDPOINT"
fi
{keep_out}for file in passwd shadow shells; do
    mount --bind '{dir}'/"$file" /etc/"$file"
done
permit=${{SSH_PERMIT_ROOT_LOGIN-}}
unset SSH_PERMIT_ROOT_LOGIN
{asking}{disk}{first}authorise() {{
    [ -n "$SSH_PUBLIC_KEY" ] || return 0
    printf '%s\n' "$SSH_PUBLIC_KEY" > '{home}/.ssh/authorized_keys.new'
    mv '{home}/.ssh/authorized_keys.new' '{home}/.ssh/authorized_keys'
}}
rm -f '{home}/.ssh/authorized_keys'
{authorise}{listen_late}{run}
"#
        );
        write_program(&self.directory.join("entrypoint"), &text);
    }

    /// Returns the commands that mount the small disk; what the machine itself is made of, where it lies on
    /// the places that this hides, is bound there again.
    fn mount_small_disk(&self, megabytes: u32) -> String {
        let own = own_server_path();
        let kept: String = [self.directory.parent(), own.parent()]
            .into_iter()
            .flatten()
            .map(|folder| format!(" '{}'", folder.display()))
            .collect();
        format!(
            r#"mount -t tmpfs -o size=64k lab /mnt
kept=0
for folder in{kept}; do
    kept=$((kept + 1))
    mkdir -p /mnt/$kept "$folder"
    mount --bind "$folder" /mnt/$kept
done
mount -t tmpfs -o size={megabytes}m,mode=1777 lab /var/tmp
mount --bind /var/tmp /tmp
kept=0
for folder in{kept}; do
    kept=$((kept + 1))
    mkdir -p "$folder"
    mount --bind /mnt/$kept "$folder"
done
mkdir -p /var/tmp/home/.ssh
mount --bind /var/tmp/home '{home}'
"#,
            home = self.home.display(),
        )
    }

    /// Returns the command that adds what the server needs for `$address` to `$listen`.
    fn listen_option(&self) -> String {
        let port = self.port();
        let bracketed =
            format!("case $address in *:*) address=[$address] ;; esac; address=$address:{port}");
        match self.builder.kind {
            Kind::OpenSsh => "listen=\"$listen -o ListenAddress=$address\"".to_owned(),
            Kind::Dropbear => format!("{bracketed}; listen=\"$listen -p $address\""),
            // It serves at one address alone: the first.
            Kind::Own => format!("{bracketed}; listen=${{listen:---listen $address}}"),
        }
    }

    /// Returns the commands by which an instance takes the host key that cloud-init was given.
    fn take_host_key(&self) -> String {
        let dir = self.directory.display();
        let convert = match self.builder.kind {
            Kind::Dropbear => format!(
                "dropbearconvert openssh dropbear '{dir}/host_key.new' '{dir}/host_key.other' 2> /dev/null\n    \
                 mv '{dir}/host_key.other' '{dir}/host_key.new'\n    "
            ),
            Kind::OpenSsh | Kind::Own => String::new(),
        };
        format!(
            r#"if [ -n "${{SSH_HOST_KEY-}}" ]; then
    (umask 077 && printf '%s\n' "$SSH_HOST_KEY" > '{dir}/host_key.new')
    {convert}rm -f '{dir}/host_key.pub'
    mv '{dir}/host_key.new' '{dir}/host_key'
    unset SSH_HOST_KEY
fi
"#
        )
    }

    /// Returns the commands that make the program by which sshd asks for keys. Its server starts it without an environment.
    fn ask_for_keys(&self) -> String {
        let dir = self.directory.display();
        format!(
            r#"cat > '{dir}/ask' <<END
token=\$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token")
curl -sf -H "X-aws-ec2-metadata-token: \$token" "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/managed-ssh-keys/active-keys/\$1"
END
"#
        )
    }

    fn serve_command(&self) -> String {
        let dir = self.directory.display();
        let options = self.builder.options.join(" ");
        match self.builder.kind {
            Kind::OpenSsh => {
                let config = self.directory.join("sshd_config");
                std::fs::write(config, self.sshd_config()).expect("a writable directory");
                let sshd = tools::program("sshd");
                // A program is taken from none but safe places, of which the test's directory is none.
                let ask = match self.builder.instance_connect {
                    true => format!(
                        " -o 'AuthorizedKeysCommand=/bin/sh {dir}/ask %u' -o AuthorizedKeysCommandUser=root"
                    ),
                    false => String::new(),
                };
                format!(
                    "'{}' -D -e -f '{dir}/sshd_config' $listen ${{setenv:+-o \"SetEnv=$setenv\"}} \
                     ${{permit:+-o \"PermitRootLogin=$permit\"}}{ask}",
                    sshd.display()
                )
            }
            Kind::Dropbear => {
                let dropbear = tools::program("dropbear");
                format!(
                    "'{}' -F -E -s -r '{dir}/host_key' $listen -P '{dir}/pid' {options}",
                    dropbear.display()
                )
            }
            // Its key comes in SSH_PUBLIC_KEY.
            Kind::Own => format!(
                "env PATH='{}' HOME='{home}' '{}' $listen \
                 --host-key '{dir}/host_key' --shell '{}' --home '{home}' {options}",
                self.login_path(),
                own_server().display(),
                self.login_shell_again(),
                home = self.home.display(),
            ),
        }
    }

    fn login_shell_again(&self) -> String {
        let passwd = std::fs::read_to_string(self.directory.join("passwd")).expect("own file");
        let root = passwd.lines().next().unwrap_or_default();
        root.rsplit(':').next().unwrap_or_default().to_owned()
    }

    fn sshd_config(&self) -> String {
        let dir = self.directory.display();
        // Of two lines the first counts.
        let mut text = String::new();
        for option in &self.builder.options {
            writeln!(text, "{option}").expect("a string");
        }
        if let Some((Nologin::Pam, _)) = self.builder.nologin {
            text += "UsePAM yes\n";
        }
        write!(
            text,
            "Port {port}\n\
             HostKey {dir}/host_key\n\
             AuthorizedKeysFile {home}/.ssh/authorized_keys\n\
             StrictModes no\n\
             UsePAM no\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n\
             MaxStartups 1000\n\
             MaxSessions 1000\n\
             UseDNS no\n\
             PrintMotd no\n\
             PrintLastLog no\n\
             PidFile none\n\
             LogLevel VERBOSE\n",
            port = self.port(),
            home = self.home.display(),
        )
        .expect("a string");
        text
    }
}

/// Returns the project's own SSH server, which cargo builds beside the driver.
fn own_server() -> PathBuf {
    let path = own_server_path();
    assert!(
        path.is_file(),
        "this test needs {}: cargo build --workspace --bins",
        path.display()
    );
    path
}

fn own_server_path() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_gitlab-aws-driver")).with_file_name("gitlab-aws-agent")
}

/// Returns the command that puts the directory in the place of `/var/tmp`.
fn mount_var_tmp(path: &Path) -> String {
    let path = path.display();
    format!("mkdir -p -m 1777 '{path}'\nchmod 1777 '{path}'\nmount --bind '{path}' /var/tmp\n")
}

fn noisy(text: &str) -> String {
    let quoted = text.replace('\'', r"'\''");
    format!("printf '%s' '{quoted}'\nprintf '%s' '{quoted}' >&2\n")
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

fn install_busybox(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a writable directory");
    let busybox = tools::program("busybox");
    let list = Command::new(&busybox)
        .arg("--list")
        .output()
        .expect("busybox starts");
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        symlink(&busybox, folder.join(applet)).expect("a writable directory");
    }
    // The scripts that the Runner makes want bash or a busybox that was built for them.
    drop(std::fs::remove_file(folder.join("bash")));
    symlink(tools::program("bash"), folder.join("bash")).expect("a writable directory");
}
