//! Brings up the job's containers on a machine: sends commands over its SSH session, and reports the progress to the job log.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::container::Tokens;
use crate::container::auth::{self, Login};
use crate::container::commands::{self, Looked};
use crate::container::trouble::{self, Trouble};
use crate::error::{Error, Kind, one_line};
use crate::image;
use crate::machine::Endpoint;
use crate::machine::environment::{self, ContainerEnvironment};
use crate::plan::containers::ContainerPlan;
use crate::runner::containers::Image;
use crate::runner::substage::Role;
use crate::script::failures;
use crate::script::silent_login::{self, Quiet};
use crate::ssh::connect::connect_within;
use crate::ssh::first_line::is_astray;
use crate::ssh::keys::JobKey;
use crate::ssh::memory_limit::MemoryLimit;
use crate::ssh::session::{CommandOutput, Session};
use crate::ui::Ui;

/// How often a command is sent, each time on a connection of its own, before the machine is out of reach.
const ATTEMPTS: u32 = 3;
/// How long the login may take until it runs its first command.
const LOGIN_TIME: Duration = Duration::from_secs(90);
/// How long docker may take for its first answer: the login may work before docker's daemon does.
const DOCKER_TIME: Duration = Duration::from_secs(60);
/// How long an entrypoint may take before it runs the command it was given.
const ENTRYPOINT_TIME: Duration = Duration::from_secs(300);
/// The pauses before a failed pull is tried again: registries ask for about that.
const PULL_PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];
/// How many bytes of a command's output are kept: more than any environment has.
const KEPT: usize = environment::LIMIT + 4096;
/// How much of a log is shown where something went wrong.
const LOG_LINES: u32 = 20;

/// What is needed to bring the containers up.
#[derive(Debug)]
pub struct SetUp<'a> {
    /// The machine's endpoint.
    pub endpoint: &'a Endpoint,
    /// The job's key.
    pub key: &'a JobKey,
    /// The containers.
    pub plan: &'a ContainerPlan,
    /// The password for ECR's registries, if the driver's role gets it.
    pub tokens: &'a Tokens,
    /// The timeout of another connection, if one is lost.
    pub connect_timeout: Duration,
    /// The job log.
    pub ui: Ui,
}

/// The job's own container, running.
#[derive(Debug)]
pub struct Inside {
    /// The endpoints: the machine itself for helper scripts, the container for the job's own scripts.
    pub endpoints: Vec<Endpoint>,
    /// What the image's entrypoint added to the environment, if anything.
    pub environment: Option<ContainerEnvironment>,
}

type Result<T> = std::result::Result<T, Trouble>;

impl SetUp<'_> {
    /// Brings them up over the session of the first login, and over new sessions if that is lost.
    ///
    /// # Errors
    /// If one of them does not come up.
    pub async fn run(&self, session: Session) -> Result<Inside> {
        let mut far = Far {
            set_up: self,
            session,
            memory_limit: MemoryLimit::beside(0),
        };
        far.login().await?;
        far.docker().await?;
        far.done(&commands::directories(&self.plan.shared), no_directory)
            .await?;
        if let Some(problem) = auth::problem(&self.plan.job) {
            self.ui.warn(&format!(
                "DOCKER_AUTH_CONFIG is not used: {problem}; correct the variable"
            ));
        }
        if let Some(network) = self.plan.network() {
            far.done(&commands::network(network), |err| {
                trouble::docker(err)
                    .unwrap_or_else(|| failed("the job's network cannot be made", err))
            })
            .await?;
        }
        far.services().await?;
        let environment = far.build().await?;
        far.session.hang_up().await;
        Ok(Inside {
            endpoints: self.endpoints(),
            environment,
        })
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let on = |role, inside| Endpoint {
            roles: vec![role],
            inside,
            ..self.endpoint.clone()
        };
        vec![
            on(Role::Helper, None),
            on(Role::Build, Some(self.plan.build())),
        ]
    }
}

/// The far side of the first login.
struct Far<'a> {
    set_up: &'a SetUp<'a>,
    session: Session,
    memory_limit: MemoryLimit,
}

impl Far<'_> {
    /// Runs a shell text that may fail.
    async fn say(&mut self, text: &str) -> Result<CommandOutput> {
        let text = &commands::marked(text);
        for _ in 1..ATTEMPTS {
            if let Some(said) = self.session.run(text, KEPT).await {
                return Ok(without_greeting(said));
            }
            let deadline = Instant::now() + self.set_up.connect_timeout;
            let (endpoint, key) = (self.set_up.endpoint, self.set_up.key);
            let again = connect_within(endpoint, key, &self.memory_limit, || deadline).await;
            self.session = again.map_err(retryable)?;
        }
        let last = self.session.run(text, KEPT).await;
        last.map(without_greeting).ok_or_else(|| {
            retryable(
                Error::new(
                    Kind::Unreachable,
                    "the connection to the machine was lost again and again while its containers were made",
                )
                .hint("Check the network between this host and the machine; retry the job."),
            )
        })
    }

    /// Runs a shell text that must succeed; returns its output.
    async fn done(&mut self, text: &str, otherwise: impl Fn(&str) -> Trouble) -> Result<Vec<u8>> {
        let said = self.say(text).await?;
        match said.code {
            Some(0) => Ok(said.out),
            _ => Err(otherwise(&String::from_utf8_lossy(&said.err))),
        }
    }

    /// Waits until the login runs a command at all.
    async fn login(&mut self) -> Result<()> {
        let mut quiet = Quiet::new(self.set_up.ui, &self.set_up.endpoint.user);
        let first = quiet.watch(&self.session, self.session.run("", KEPT));
        match timeout(LOGIN_TIME, first).await {
            Ok(Some(said)) if is_astray(&said.err, &said.out) => Err(retryable(failures::astray())),
            // If the connection was lost, the next command makes a new one.
            Ok(_) => Ok(()),
            Err(_) => Err(retryable(silent_login::error(LOGIN_TIME))),
        }
    }

    /// Waits for docker: right after the boot of the instance it may still be starting. The job log says so, since it takes long.
    async fn docker(&mut self) -> Result<()> {
        let otherwise = |err: &str| {
            trouble::docker(err).unwrap_or_else(|| failed("docker does not answer", err))
        };
        let at_once = commands::probe(Duration::ZERO);
        match self.done(&at_once, otherwise).await {
            Ok(_) => return Ok(()),
            Err(trouble) if trouble.hopeless => return Err(trouble),
            Err(_) => {}
        }
        self.set_up.ui.progress(&format!(
            "Waiting for docker on the instance (for {} s at most)...",
            DOCKER_TIME.as_secs()
        ));
        let patient = commands::probe(DOCKER_TIME);
        self.done(&patient, otherwise).await.map(|_| ())
    }

    async fn services(&mut self) -> Result<()> {
        let set_up = self.set_up;
        let (plan, ui) = (set_up.plan, set_up.ui);
        let patience = plan.services_timeout;
        let mut started = Vec::new();
        for (number, service) in plan.job.services.iter().enumerate() {
            let name = &*service.image.name;
            let looked = self.image(&service.image).await?;
            ui.progress(&format!("Starting service {name}..."));
            let start = commands::service(plan, number, &looked.id);
            self.done(&start, |err| trouble::start("service", name, err))
                .await?;
            started.push((number, commands::ports(service, &looked)));
        }
        started.retain(|(_, ports)| !ports.is_empty());
        if started.is_empty() {
            return Ok(());
        }
        ui.progress(&format!(
            "Waiting for services to answer (for {} at most)...",
            humantime::format_duration(patience)
        ));
        let until = Instant::now() + patience;
        for (number, ports) in started {
            let left = until.saturating_duration_since(Instant::now());
            let container = plan.service(number);
            let said = self
                .say(&commands::answers(&container, &ports, left))
                .await?;
            let Some(why) = silence(&said, patience) else {
                continue;
            };
            let name = &plan.job.services[number].image.name;
            let log = self
                .say(&commands::exit_and_log(&container, LOG_LINES))
                .await?;
            ui.warn(&format!(
                "the service {name} probably did not start properly: {why}; the job goes on without waiting for it"
            ));
            let log = String::from_utf8_lossy(&log.out).into_owned();
            for line in log.lines().skip(1) {
                ui.progress(&format!("  {name}: {}", one_line(line)));
            }
        }
        Ok(())
    }

    /// Pulls an image. A failure that may pass is tried again here, so that it does not need another machine.
    async fn image(&mut self, wanted: &Image) -> Result<Looked> {
        let set_up = self.set_up;
        let (ui, name) = (set_up.ui, &*wanted.name);
        let login = auth::login(name, &set_up.plan.job);
        let text = commands::pull(wanted, &login.clone().by(set_up.tokens));
        let by = match &login {
            Login::Machine => String::new(),
            Login::Config(_) => {
                let registry = image::registry(name).unwrap_or_default();
                format!(" with the job's credentials for {registry}")
            }
            Login::Ecr { .. } => format!(" by the {}'s role", set_up.plan.ecr_login.name()),
        };
        ui.progress(&format!("Pulling image {name}{by}..."));
        let began = Instant::now();
        let mut pauses = PULL_PAUSES.into_iter();
        loop {
            let said = self.say(&text).await?;
            if said.code == Some(0) {
                let out = String::from_utf8_lossy(&said.out);
                let Some(looked) = commands::look(&out) else {
                    return Err(failed(&format!("docker does not say what {name} is"), &out));
                };
                let shown = looked.digest.as_ref().unwrap_or(&looked.id);
                let seconds = began.elapsed().as_secs_f64();
                ui.progress(&format!(
                    "Image {name} is there after {seconds:.1} s: {shown}"
                ));
                return Ok(looked);
            }
            let trouble = trouble::pull(name, &String::from_utf8_lossy(&said.err));
            match pauses.next().filter(|_| !trouble.hopeless) {
                None => return Err(trouble),
                Some(pause) => {
                    let seconds = pause.as_secs();
                    ui.progress(&format!("{}; trying again in {seconds} s.", trouble.error));
                    sleep(pause).await;
                }
            }
        }
    }

    /// Starts the job's own container and returns what its entrypoint added to the environment.
    async fn build(&mut self) -> Result<Option<ContainerEnvironment>> {
        let set_up = self.set_up;
        let (plan, ui) = (set_up.plan, set_up.ui);
        let (name, container) = (&*plan.image.name, plan.build());
        let looked = self.image(&plan.image).await?;
        let start = commands::build(plan, &looked.id);
        self.done(&start, |err| trouble::start("image", name, err))
            .await?;
        let ready = commands::ready(&container);
        let Ok(said) = timeout(ENTRYPOINT_TIME, self.say(&ready)).await else {
            return Err(trouble::stuck(name, ENTRYPOINT_TIME.as_secs()));
        };
        let said = said?;
        let out = String::from_utf8_lossy(&said.out);
        let Some(process) = out.trim().parse().ok().filter(|_| said.code == Some(0)) else {
            let last = self
                .say(&commands::exit_and_log(&container, LOG_LINES))
                .await?;
            return Err(trouble::ended(name, &String::from_utf8_lossy(&last.out)));
        };
        for line in String::from_utf8_lossy(&said.err).lines() {
            ui.progress(&one_line(line));
        }
        ui.progress(&format!(
            "The job's own lines run in the container {container} of {name}."
        ));
        self.environment(&container, process).await
    }

    async fn environment(
        &mut self,
        container: &str,
        process: u32,
    ) -> Result<Option<ContainerEnvironment>> {
        let ui = self.set_up.ui;
        let of_entrypoint = self
            .say(&commands::environment(container, Some(process)))
            .await?;
        let of_image = self.say(&commands::environment(container, None)).await?;
        let read = |said: &CommandOutput| {
            let whole = (said.code == Some(0)).then_some(&said.out)?;
            ContainerEnvironment::read(whole, "sh").ok()
        };
        let (Some(all), Some(image)) = (read(&of_entrypoint), read(&of_image)) else {
            ui.warn(
                "what the image's entrypoint exports is not set in scripts: the container's user may not look at it; \
                 export it in the image (ENV) or in the job",
            );
            return Ok(None);
        };
        Ok(Some(all.beyond(&image)).filter(|added| !added.is_empty()))
    }
}

/// Removes what a login shell's start-up files print.
fn without_greeting(mut said: CommandOutput) -> CommandOutput {
    for output in [&mut said.out, &mut said.err] {
        if let Some(at) = memchr::memmem::find(output, commands::MARK) {
            output.drain(..at + commands::MARK.len());
        }
    }
    said
}

/// Why a service is not known to answer; `None` if it answers.
fn silence(said: &CommandOutput, patience: Duration) -> Option<String> {
    match said.code {
        Some(0) => None,
        Some(2) => Some("its container ended".to_owned()),
        Some(3) => Some(one_line(&String::from_utf8_lossy(&said.err))),
        _ => Some(format!(
            "none of its ports answered within {}",
            humantime::format_duration(patience)
        )),
    }
}

fn retryable(error: Error) -> Trouble {
    Trouble {
        error,
        hopeless: false,
    }
}

fn failed(what: &str, said: &str) -> Trouble {
    retryable(
        Error::new(Kind::Launch, format!("{what}: {}", one_line(said)))
            .hint("See the words of docker on the instance; retry the job."),
    )
}

fn no_directory(said: &str) -> Trouble {
    Trouble {
        error: Error::new(
            Kind::Launch,
            format!(
                "the instance's login can neither make nor write the directory {}",
                one_line(said)
            ),
        )
        .hint("Set builds_dir and cache_dir to directories that it may make, allow it sudo without a password, or log in as root."),
        hopeless: true,
    }
}
