//! The shell texts that the machine is sent, each on the standard input of a shell: so no value of theirs is cut off by a
//! server's limit on commands, and no credential stands in anybody's list of processes.
//!
//! POSIX sh. Each may be sent again after a cut: it ends what it made before.

use std::time::Duration;

use super::auth::Login;
use crate::image::{self, ecr_region};
use crate::plan::containers::ContainerPlan;
use crate::runner::containers::{Image, Service};
use crate::shell::quote;

/// What the idle command says before its process number, once the image's entrypoint has come to it.
pub const READY: &str = "gad-ready ";

/// What parts a text's outputs from whatever was printed there before it began.
pub const MARK: &[u8] = b"\x1egad-begin\n";

/// What keeps the job's own container alive: it waits for children that are not its own too, so that they leave no
/// zombies. Without a sleep it would spin. It sleeps once for all: a shell that finds no process left for another one ends, and the
/// container with it.
const IDLE: &str = "command -v sleep >/dev/null || exit 127; echo \"gad-ready $$\"; trap 'exit 0' TERM; \
                    while :; do sleep 2147483647 & wait $!; done";

/// What [`look`] prints, parted by bars: the image's id, its exposed ports, its names with digests.
const LOOK: &str = "{{.Id}}|{{json .Config.ExposedPorts}}|{{join .RepoDigests \" \"}}";

/// The instance's docker socket.
const SOCKET: &str = "/var/run/docker.sock";

/// Where docker in docker leaves its clients' certificates.
const CERTIFICATES: &str = "/certs/client";

/// Has a text say [`MARK`] first, on both of its outputs.
#[must_use]
pub fn marked(text: &str) -> String {
    format!("printf '\\036gad-begin\\n'\nprintf '\\036gad-begin\\n' >&2\n{text}")
}

/// Makes sure that docker answers: right after its boot the machine's may still be starting. Prints its version.
#[must_use]
pub fn probe(patience: Duration) -> String {
    format!(
        "command -v docker >/dev/null 2>&1 || {{ echo 'docker: not found' >&2; exit 127; }}\n\
         failures=0\n\
         until docker version --format '{{{{.Server.Version}}}}' 2>/dev/null </dev/null; do\n\
         failures=$((failures + 1))\n\
         error=$(docker version --format '{{{{.Server.Version}}}}' 2>&1 </dev/null)\n\
         case $error in *[Pp]ermission\\ denied*) failures={most} ;; esac\n\
         [ $failures -lt {most} ] || {{ printf '%s\\n' \"$error\" >&2; exit 1; }}\n\
         sleep 1\n\
         done\n",
        most = patience.as_secs().max(1)
    )
}

/// Makes the directories that the containers share with the machine. Everybody may write there, since containers run
/// as whoever their image says.
#[must_use]
pub fn directories(paths: &[String]) -> String {
    let mut text = String::new();
    for path in paths {
        let path = quote(path);
        text += &format!(
            "{{ mkdir -p {path} && chmod 777 {path}; }} 2>/dev/null || sudo -n install -d -m 777 {path} 2>/dev/null || \
             {{ [ -d {path} ] && [ -w {path} ]; }} || {{ echo {path} >&2; exit 1; }}\n"
        );
    }
    text
}

/// Gets an image by the first of its policies that does, and says what it is: see [`look`].
#[must_use]
pub fn pull(image: &Image, login: &Login) -> String {
    let name = quote(&image.name);
    let platform = match &image.platform {
        Some(platform) => format!(" --platform {}", quote(platform)),
        None => String::new(),
    };
    let pull = format!("pull -q{platform} {name} >/dev/null </dev/null");
    let pull = match login {
        Login::Machine => format!("docker {pull}"),
        Login::Config(config) => with_config(&format!(
            "{}\ndocker --config \"$config\" {pull}",
            write(&quote(&config.0))
        )),
        Login::Ecr { registry, region } => {
            let helper = format!("{{\"credHelpers\":{{\"{registry}\":\"ecr-login\"}}}}");
            with_config(&format!(
                "if command -v docker-credential-ecr-login >/dev/null 2>&1; then\n{write}\n\
                 elif command -v aws >/dev/null 2>&1; then\n\
                 password=$(aws ecr get-login-password --region {region} </dev/null) || exit 1\n\
                 said=$(printf %s \"$password\" | docker --config \"$config\" login --username AWS --password-stdin {registry} 2>&1) \
                 || {{ printf '%s\\n' \"$said\" >&2; exit 1; }}\n\
                 else\ndocker {pull}\nexit\nfi\n\
                 docker --config \"$config\" {pull}",
                write = write(&quote(&helper)),
                region = quote(region),
                registry = quote(registry),
            ))
        }
    };
    let mut text = format!(
        "look() {{\ndocker image inspect --format {} {name} </dev/null\n}}\npull() {{\n{pull}\n}}\n",
        quote(LOOK)
    );
    let policies = match &image.pull_policy[..] {
        [] => vec!["always"],
        policies => policies.iter().map(String::as_str).collect(),
    };
    let ways = policies.iter().map(|policy| match *policy {
        "never" => "look",
        "if-not-present" => "{ look 2>/dev/null || { pull && look; }; }",
        _ => "{ pull && look; }",
    });
    text += &ways.collect::<Vec<_>>().join(" || ");
    text + "\n"
}

/// Runs a text with `$config`, a directory of this user's own, in memory where there is such a place; it goes when the text
/// ends, however it ends.
fn with_config(text: &str) -> String {
    format!(
        "(\numask 077\n\
         config=$(mktemp -d /dev/shm/gad-XXXXXXXX 2>/dev/null || mktemp -d) || exit 1\n\
         trap 'rm -rf \"$config\"' EXIT\n\
         trap 'exit 1' HUP INT PIPE TERM\n\
         {text}\n)"
    )
}

fn write(quoted: &str) -> String {
    format!("printf %s {quoted} >\"$config/config.json\" || exit 1")
}

/// Makes the job's network.
#[must_use]
pub fn network(name: &str) -> String {
    let name = quote(name);
    format!(
        "docker network inspect {name} >/dev/null 2>&1 </dev/null || docker network create {name} >/dev/null </dev/null\n"
    )
}

/// Starts a service from the image of that id.
#[must_use]
pub fn service(plan: &ContainerPlan, number: usize, id: &str) -> String {
    let service: &Service = &plan.job.services[number];
    let mut words = options(plan, &plan.service(number));
    for alias in ContainerPlan::aliases(service) {
        words.extend(["--network-alias".to_owned(), alias]);
    }
    variables(&plan.job.variables, &mut words);
    variables(&service.variables, &mut words);
    start(
        words,
        &service.image,
        id,
        &service.command,
        &plan.service(number),
    )
}

/// Starts the job's own container from the image of that id.
#[must_use]
pub fn build(plan: &ContainerPlan, id: &str) -> String {
    let mut words = options(plan, &plan.build());
    // Read back for what the entrypoint says; another driver may not let anybody.
    words.extend(["--log-driver", "json-file"].map(str::to_owned));
    if plan.docker_socket {
        words.extend(["-v".to_owned(), format!("{SOCKET}:{SOCKET}")]);
    }
    variables(&plan.job.variables, &mut words);
    let idle = ["sh", "-c", IDLE].map(str::to_owned);
    start(words, &plan.image, id, &idle, &plan.build())
}

/// The options that all containers have.
fn options(plan: &ContainerPlan, name: &str) -> Vec<String> {
    let mut words = vec!["--name".to_owned(), name.to_owned()];
    if let Some(network) = plan.network() {
        words.extend(["--network".to_owned(), network.to_owned()]);
    }
    for path in &plan.shared {
        words.extend(["-v".to_owned(), format!("{path}:{path}")]);
    }
    if plan.privileged {
        let volume = format!("{}-certificates:{CERTIFICATES}", plan.names);
        words.extend(["--privileged".to_owned(), "-v".to_owned(), volume]);
    }
    words
}

fn variables(all: &[(String, String)], words: &mut Vec<String>) {
    for (name, value) in all {
        words.extend(["-e".to_owned(), format!("{name}={value}")]);
    }
}

/// Starts a container. Docker takes one word as `--entrypoint`; the rest of it goes before the command, which is where
/// the container finds it. A container of that name can only be one that a lost connection left.
fn start(
    mut words: Vec<String>,
    image: &Image,
    id: &str,
    command: &[String],
    name: &str,
) -> String {
    let mut rest: &[String] = &[];
    if let Some(user) = &image.user {
        words.extend(["--user".to_owned(), user.clone()]);
    }
    if let Some(platform) = &image.platform {
        words.extend(["--platform".to_owned(), platform.clone()]);
    }
    if let Some([first, more @ ..]) = image.entrypoint.as_deref() {
        words.extend(["--entrypoint".to_owned(), first.clone()]);
        rest = more;
    }
    words.push(id.to_owned());
    words.extend(rest.iter().chain(command).cloned());
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!(
        "docker rm -f {} >/dev/null 2>&1 </dev/null\ndocker run -d {} >/dev/null </dev/null\n",
        quote(name),
        quoted.join(" ")
    )
}

/// Waits until the job's own container has come to its idle command, and prints that command's process number. What the
/// entrypoint says before goes to standard error. Fails where the container ends.
#[must_use]
pub fn ready(name: &str) -> String {
    let name = quote(name);
    // A FIFO, and not a pipe: a shell waits for all of a pipe's commands, and this one has no end.
    format!(
        "folder=$(mktemp -d) || exit 1\n\
         trap 'rm -rf \"$folder\"' EXIT\n\
         mkfifo \"$folder/log\" || exit 1\n\
         docker logs -f {name} >\"$folder/log\" 2>&1 </dev/null &\n\
         reader=$! code=1\n\
         exec 3<\"$folder/log\"\n\
         while IFS= read -r line <&3; do\n\
         case $line in '{READY}'*) printf '%s\\n' \"${{line#{READY}}}\"; code=0; break ;; esac\n\
         printf '%s\\n' \"$line\" >&2\n\
         done\n\
         exec 3<&-\n\
         kill $reader 2>/dev/null\n\
         wait $reader 2>/dev/null\n\
         exit $code\n"
    )
}

/// Prints a process's environment as it was when its program began; without a number, that of a new command.
#[must_use]
pub fn environment(name: &str, process: Option<u32>) -> String {
    let process = process.map_or("self".to_owned(), |p| p.to_string());
    format!(
        "docker exec {} cat /proc/{process}/environ </dev/null\n",
        quote(name)
    )
}

/// Waits until one of a service's ports answers, as the docker executor does, or its container ends. Nothing announces
/// a listener, so it is asked for. A container that has ended leaves an address that the network around may answer for: a
/// gateway that accepts connections to anywhere has been seen to.
#[must_use]
pub fn answers(name: &str, ports: &[u16], patience: Duration) -> String {
    let name = quote(name);
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!(
        "address=$(docker inspect --format '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}} {{{{end}}}}' {name} </dev/null) || exit 1\n\
         address=${{address%% *}}\n\
         if command -v bash >/dev/null 2>&1; then\n\
         try() {{ timeout 2 bash -c \": <>/dev/tcp/$address/$1\" 2>/dev/null; }}\n\
         elif command -v nc >/dev/null 2>&1; then\n\
         try() {{ nc -z -w 2 \"$address\" \"$1\" 2>/dev/null; }}\n\
         else echo 'neither bash nor nc here to ask its ports with' >&2; exit 3; fi\n\
         read -r uptime _ </proc/uptime\n\
         deadline=$((${{uptime%.*}} + {seconds}))\n\
         answered=\n\
         while :; do\n\
         for port in {ports}; do ! try \"$port\" </dev/null || answered=1; done\n\
         [ \"$(docker inspect --format '{{{{.State.Running}}}}' {name} </dev/null)\" = true ] || exit 2\n\
         [ -z \"$answered\" ] || exit 0\n\
         read -r uptime _ </proc/uptime\n\
         [ \"${{uptime%.*}}\" -lt \"$deadline\" ] || exit 1\n\
         sleep .2 2>/dev/null || sleep 1\n\
         done\n",
        ports = ports.join(" "),
        seconds = patience.as_secs(),
    )
}

/// Prints the exit code of a container and the last lines of what it said.
#[must_use]
pub fn exit_and_log(name: &str, lines: u32) -> String {
    let name = quote(name);
    format!(
        "docker inspect --format '{{{{.State.ExitCode}}}}' {name} </dev/null\n\
         docker logs --tail {lines} {name} 2>&1 </dev/null\n"
    )
}

/// What an image is, as [`pull`] prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Its id.
    pub id: String,
    /// The TCP ports that it says its containers listen on, lowest first.
    pub ports: Vec<u16>,
    /// Its name with the digest, where it came from a registry.
    pub digest: Option<String>,
}

/// Reads what [`pull`] printed.
#[must_use]
pub fn look(said: &str) -> Option<Looked> {
    let line = said.lines().rfind(|line| line.contains('|'))?;
    let mut parts = line.splitn(3, '|');
    let (id, ports, digests) = (parts.next()?, parts.next()?, parts.next()?);
    let is_id = |b: u8| b.is_ascii_alphanumeric() || b == b':';
    if id.is_empty() || !id.bytes().all(is_id) {
        return None;
    }
    let exposed: serde_json::Value = serde_json::from_str(ports).unwrap_or_default();
    let exposed = exposed.as_object().into_iter().flat_map(|map| map.keys());
    let mut ports: Vec<u16> = exposed.filter_map(|port| tcp(port)).collect();
    ports.sort_unstable();
    let digest = digests.split(' ').find(|digest| !digest.is_empty());
    Some(Looked {
        id: id.to_owned(),
        ports,
        digest: digest.map(str::to_owned),
    })
}

/// `5432/tcp`, or without the protocol.
fn tcp(port: &str) -> Option<u16> {
    match port.split_once('/') {
        Some((number, "tcp")) => number.parse().ok(),
        Some(_) => None,
        None => port.parse().ok(),
    }
}

/// Returns the TCP ports to ask a service at: what the job says (`HEALTHCHECK_TCP_PORT`), else what its image says.
#[must_use]
pub fn ports(service: &Service, looked: &Looked) -> Vec<u16> {
    let said = service.variables.iter();
    let said = said.filter(|(name, _)| name == "HEALTHCHECK_TCP_PORT");
    match said.filter_map(|(_, port)| port.parse().ok()).next_back() {
        Some(port) => vec![port],
        None => looked.ports.clone(),
    }
}

/// Whether an image's registry is one of ECR that this machine's role opens.
#[must_use]
pub fn is_ecr(name: &str) -> bool {
    image::registry(name).is_some_and(|registry| ecr_region(&registry).is_some())
}
