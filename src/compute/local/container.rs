//! A machine of `local` that is a container of this host's docker: the job's image, with the agent as its command.
//!
//! The agent is brought in as in a task. A first container of the same image copies it into a shared directory and opens the
//! directories for builds and caches; the job's container then runs it by its bare path below the image's own ENTRYPOINT. The
//! shared directory is one of this host's, below the job's state, so the driver reaches the agent's socket without any network.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};

use super::agent_file;
use crate::error::{Error, Kind, Result};
use crate::machine::local::{LocalContainer, LocalRequest};

/// Where the shared directory is in the containers.
const SHARED: &str = "/gitlab-aws-agent";
/// The agent in it.
const AGENT: &str = "/gitlab-aws-agent/gitlab-aws-agent";
/// Where the first container sees this host's file.
const SOURCE: &str = "/gitlab-aws-agent-source";
/// The agent's socket in the shared directory.
const SOCKET: &str = "agent.sock";
/// What the agent's parameters are called.
const PARAMETERS: &str = "GITLAB_AWS_AGENT";
/// How long nobody may log in, in seconds: this host's driver does so within seconds of the start, and again for each script.
const IDLE: u32 = 600;
/// How often the containers and volumes of a machine are removed, and the pause between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// How much of the container's words is kept, in bytes.
const WORDS: u64 = 64 << 10;
/// Builds and caches in the container, each a volume that goes with it.
pub const BUILDS: &str = "/builds";
/// See [`BUILDS`].
pub const CACHE: &str = "/cache";

/// Returns the shared directory as this host sees it.
pub(super) fn shared(job_directory: &Path) -> PathBuf {
    job_directory.join("agent")
}

/// Returns the agent's socket as this host sees it.
pub(super) fn socket(job_directory: &Path) -> PathBuf {
    shared(job_directory).join(SOCKET)
}

/// Returns the container's name.
fn name(token: &str) -> String {
    format!("gitlab-aws-driver-{token}")
}

/// Returns the name of the container that installs the agent.
fn installer(token: &str) -> String {
    format!("{}-install", name(token))
}

/// Returns the names of its volumes, each with its place.
fn volumes(token: &str) -> [(String, &'static str); 2] {
    let name = name(token);
    [
        (format!("{name}-builds"), BUILDS),
        (format!("{name}-cache"), CACHE),
    ]
}

/// Returns the arguments of docker that both containers have.
fn common(request: &LocalRequest, container: &LocalContainer, shared: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["run", "--rm"].map(Into::into).into();
    if let Some(platform) = &container.platform {
        words.extend(["--platform".into(), platform.into()]);
    }
    words.push(bind(shared, SHARED));
    for (volume, place) in volumes(&request.token) {
        words.push(format!("--mount=type=volume,source={volume},target={place}").into());
    }
    words
}

fn bind(of_host: &Path, place: &str) -> OsString {
    let mut word = OsString::from("--mount=type=bind,source=");
    word.push(of_host);
    word.push(format!(",target={place}"));
    word
}

/// Returns the arguments of docker for the container that installs the agent.
fn install_words(
    request: &LocalRequest,
    container: &LocalContainer,
    agent: &Path,
    shared: &Path,
) -> Vec<OsString> {
    let mut words = common(request, container, shared);
    if let Some(pull) = &container.pull {
        words.push(format!("--pull={pull}").into());
    }
    let mut source = bind(agent, SOURCE);
    source.push(",readonly");
    words.push(source);
    words.push(format!("--name={}", installer(&request.token)).into());
    let rest = ["--user=0", "--network=none", "--entrypoint", SOURCE];
    words.extend(rest.map(Into::into));
    words.push((&container.image).into());
    words.extend(["install", SHARED, "--open", BUILDS, "--open", CACHE].map(Into::into));
    words
}

/// Returns the arguments of docker for the job's container. The parameters come from docker's own environment: an argument is
/// there for everybody to read.
fn run_words(request: &LocalRequest, container: &LocalContainer, shared: &Path) -> Vec<OsString> {
    let mut words = common(request, container, shared);
    words.push(format!("--name={}", name(&request.token)).into());
    words.push(format!("--env={PARAMETERS}").into());
    if let Some(user) = &container.user {
        words.push(format!("--user={user}").into());
    }
    let (first, rest) = match container.entrypoint.as_deref() {
        None => (None, &[][..]),
        Some([]) => (Some(""), &[][..]),
        Some([first, rest @ ..]) => (Some(&**first), rest),
    };
    if let Some(first) = first {
        words.push(format!("--entrypoint={first}").into());
    }
    words.push((&container.image).into());
    words.extend(rest.iter().map(Into::into));
    words.push(AGENT.into());
    words
}

/// Brings the agent in, and returns the command that is the job's container.
///
/// # Errors
/// Where docker does not run the first container; its own words are on standard error, and so in the machine's log.
pub(super) fn prepare(
    request: &LocalRequest,
    container: &LocalContainer,
    job_directory: &Path,
    host_key: &gitlab_aws_agent::HostKey,
) -> Result<Command> {
    let shared = shared(job_directory);
    // The job's user has to make the socket in it. Nobody else of this host gets here: the state directory is the Runner's.
    std::fs::create_dir_all(&shared)
        .and_then(|()| {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(&shared, open)
        })
        .map_err(|e| fail("cannot make the directory of its agent").because(e))?;
    let agent = agent_file::find(container.agent.as_deref())?;
    let mut install = docker();
    install.args(install_words(request, container, &agent, &shared));
    let done = install.output().map_err(no_docker)?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        // The last line may only be docker's advice to read its help.
        let said = said
            .lines()
            .rfind(|line| !line.trim().is_empty() && !line.contains("--help"))
            .map_or_else(|| done.status.to_string(), crate::error::one_line);
        let what = format!(
            "docker did not bring the agent into {}: {said}",
            container.image
        );
        return Err(fail(&what));
    }
    let login = request.public_key.split_whitespace().nth(1);
    let seed = host_key
        .seed()
        .ok_or_else(|| fail("the host key has no seed"))?;
    let parameters = format!(
        "host-key={} login={} listen=- socket={SHARED}/{SOCKET} until={} idle={IDLE}",
        Base64::encode_string(&seed),
        login.unwrap_or_default(),
        container.until,
    );
    let mut run = docker();
    run.args(run_words(request, container, &shared))
        .env(PARAMETERS, parameters)
        // Whatever an entrypoint prints is docker's to keep.
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(run)
}

/// Hands on what docker and the container say on standard error, up to a bound: an entrypoint may speak without end, and the
/// machine's log is on this host's disk.
pub(super) fn keep_words(stderr: ChildStderr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut first = stderr.take(WORDS);
        drop(std::io::copy(&mut first, &mut std::io::stderr()));
        drop(std::io::copy(&mut first.into_inner(), &mut std::io::sink()));
    })
}

/// Ends the container and removes what belongs to it, if any of it is there.
///
/// # Errors
/// Where docker does not say that it is gone.
pub(super) async fn end(token: &str) -> Result<()> {
    let volumes = volumes(token).map(|(volume, _)| volume);
    let (name, installer) = (name(token), installer(token));
    let mut attempt = 1;
    loop {
        run_quietly(&["rm", "--force", "--volumes", &name]).await?;
        run_quietly(&["rm", "--force", "--volumes", &installer]).await?;
        // The daemon may be about to make a container for a client that was killed: then a volume is in use.
        match run_quietly(&["volume", "rm", "--force", &volumes[0], &volumes[1]]).await {
            Err(_) if attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn run_quietly(words: &[&str]) -> Result<()> {
    let mut command = tokio::process::Command::from(docker());
    let done = match command.args(words).output().await {
        // Without its program it has started nothing either.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        done => done.map_err(no_docker)?,
    };
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    // Older versions of docker fail where it is not there, --force or not.
    match done.status.success() || said.contains("No such") {
        true => Ok(()),
        false => {
            let said = crate::error::one_line(&said);
            let what = format!("docker does not remove the job's container: {said}");
            Err(Error::new(Kind::State, what)
                .hint("The next cleanup tries again; is the docker daemon running?"))
        }
    }
}

fn docker() -> Command {
    let mut docker = Command::new("docker");
    docker.stdin(Stdio::null());
    docker
}

fn no_docker(error: std::io::Error) -> Error {
    fail("cannot start docker")
        .because(error)
        .hint("Jobs run in containers of this host's docker: install it, and let this user use it.")
}

fn fail(what: &str) -> Error {
    Error::new(Kind::Launch, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(change: fn(&mut LocalContainer)) -> String {
        let mut container = LocalContainer {
            image: "debian:12".into(),
            entrypoint: None,
            user: None,
            platform: None,
            pull: Some("missing".into()),
            agent: None,
            until: 5,
        };
        change(&mut container);
        let request = LocalRequest {
            token: "t".into(),
            command: Vec::new(),
            port: 22,
            user: "root".into(),
            public_key: "ssh-ed25519 AAAA".into(),
            container: None,
        };
        let of = |words: Vec<OsString>| words.join(" ".as_ref()).into_string().unwrap();
        let shared = Path::new("/state/agent");
        format!(
            "{}\n{}",
            of(install_words(
                &request,
                &container,
                Path::new("/usr/lib/agent"),
                shared
            )),
            of(run_words(&request, &container, shared))
        )
    }

    #[test]
    fn the_image_keeps_its_entrypoint_unless_the_job_replaces_it() {
        let plain = words(|_| {});
        assert!(
            plain.ends_with("--env=GITLAB_AWS_AGENT debian:12 /gitlab-aws-agent/gitlab-aws-agent")
        );
        assert!(plain.contains("--pull=missing"));
        let none = words(|c| c.entrypoint = Some(vec![String::new()]));
        assert!(none.ends_with("--entrypoint= debian:12 /gitlab-aws-agent/gitlab-aws-agent"));
        let own = words(|c| c.entrypoint = Some(vec!["/bin/sh".into(), "/e".into(), "-x".into()]));
        assert!(
            own.ends_with(
                "--entrypoint=/bin/sh debian:12 /e -x /gitlab-aws-agent/gitlab-aws-agent"
            )
        );
    }

    #[test]
    fn the_installing_container_is_roots_whatever_the_job_asks_for() {
        let both = words(|c| c.user = Some("1000:1000".into()));
        let (install, run) = both.split_once('\n').unwrap();
        assert!(install.contains("--user=0 ") && !install.contains("1000"));
        assert!(run.contains("--user=1000:1000 "));
    }
}
