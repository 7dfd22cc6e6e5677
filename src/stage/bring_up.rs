//! One attempt of `prepare`: for each rung it writes the intent, launches, and waits until it can log in to the machine.
//! Then it writes the record.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use super::Context;
use super::agents::FirstContact;
use super::cleanup::end_launches;
use super::containers::SetUp;
use super::first_command::FirstCommand;
use super::first_login::{Failed, FirstLogin};
use super::prepare::final_failure;
use super::try_rungs::{Ready, RungResult};
use crate::compute::kind::{ComingUp, Launched, News, Refused, Settled};
use crate::compute::local::{self, machine_process};
use crate::compute::{self, Coming};
use crate::error::{Error, Kind, Result};
use crate::machine::environment::ContainerEnvironment;
use crate::machine::launch::{Launch, LaunchState};
use crate::machine::{Endpoint, FarSide, Machine, Place};
use crate::plan::containers::ContainerPlan;
use crate::plan::{Attempt, Plan, Step};
use crate::runner::substage::Role;
use crate::ssh::keys::JobKey;
use crate::ssh::session::Session;
use crate::state::record::{Intent, Record};
use crate::state::shared::Shared;
use crate::state::{Job, Locked};
use crate::ui::Ui;

/// The login deadline before the machine runs. The driver connects earlier; until then only the machine's own [`News`] give it up,
/// mostly by `rung_wait`.
const UNTIL_RUNNING: Duration = Duration::from_secs(24 * 3600);

/// One attempt of `prepare`.
pub(super) struct Preparation<'a> {
    pub(super) context: &'a Context,
    pub(super) job: &'a Job,
    pub(super) plan: &'a Plan,
    pub(super) key: &'a JobKey,
    pub(super) shared: Shared,
    pub(super) intent: Intent,
    /// Whether the role lacks the permission to tag.
    pub(super) untagged: bool,
    /// Whether the job log already says on which rung a machine is requested.
    pub(super) announced: bool,
}

impl Preparation<'_> {
    /// Brings the machine up and writes the record.
    ///
    /// # Errors
    /// If the job gets no machine.
    pub(super) async fn run(&mut self) -> Result<()> {
        let began = Instant::now();
        self.write_first_intent().await?;
        let Ready {
            machine,
            session,
            mut coming,
            step,
        } = self.try_rungs().await?;
        let rung = &self.plan.steps[step].name;
        // Without this, a machine that ends meanwhile would only be noticed once the login times out.
        tokio::select! {
            biased;
            gone = self.gone(&mut coming) => {
                if gone.kind() == Kind::TakenBack {
                    self.context.note_spot_loss(rung, &gone.to_string()).await;
                }
                return Err(gone);
            }
            done = self.finish(machine, session, rung) => done?,
        }
        self.context.ui.progress(&format!(
            "Machine ready after {:.1} s.",
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    pub(super) fn final_failure(&self, error: Error) -> Error {
        final_failure(error, self.job, &self.intent)
    }

    /// Launches on one rung and waits until the machine lets the driver in.
    pub(super) async fn try_rung(&mut self, step: usize) -> Result<RungResult> {
        let launched = match self.launch(step).await? {
            Launched::Untaggable(cause) => {
                self.give_up_tags(&cause);
                self.launch(step).await?
            }
            launched => launched,
        };
        let (verdict, over) = match launched {
            Launched::Coming(coming) => return self.accepted(coming, step).await,
            Launched::NoRoom(verdict) => (verdict, true),
            Launched::Neither(verdict) => (verdict, false),
            Launched::Unusable(verdict) => return Ok(RungResult::Unusable(verdict.into())),
            Launched::Untaggable(cause) => return Ok(RungResult::Unusable(cause.into())),
        };
        Ok(RungResult::NoRoom { verdict, over })
    }

    /// Waits for a launch that a rung accepted.
    async fn accepted(&mut self, coming: Coming, step: usize) -> Result<RungResult> {
        if let Some(capacity) = self.plan.steps[step].capacity() {
            self.shared.accepted(&capacity).await;
        }
        self.come_up(coming, step).await
    }

    /// Writes the request to the intent, sends it, and writes the result.
    async fn launch(&mut self, step: usize) -> Result<Launched<Coming>> {
        let context = self.context;
        let store = context.store();
        let number = self.intent.launches.len();
        let untagged = self.untagged || store.is_noted(UNTAGGABLE);
        let host_key = JobKey::generate()?;
        let mut request = self.plan.request(
            step,
            &Attempt {
                number,
                untagged,
                host_key: host_key.to_pem()?,
                host_key_line: host_key.public_line()?,
                lifetime: self.intent.until.left(),
            },
        )?;
        match compute::settle(&mut request, &store, context.ui).await {
            Ok(Settled::Ready) => {}
            Ok(Settled::NoRoom(verdict)) => return Ok(Launched::NoRoom(verdict)),
            Err(refused) => return Err(self.refused(refused)),
        }
        self.intent.launches.push(Launch {
            request: request.clone(),
            state: LaunchState::Asked,
        });
        self.write_intent().await?;
        if let Some(what) = request.asks_for()
            && !self.announced
        {
            self.announced = true;
            let name = &self.plan.steps[step].name;
            context
                .ui
                .progress(&format!("Asking for {what} on {name}..."));
        }
        let plan = self.plan;
        let answer = compute::launch(
            &request,
            self.job,
            &plan.steps[step].login,
            plan.rung_wait,
            &store,
            context.ui,
        );
        let mut for_good = false;
        let (state, answer) = match answer.await {
            Ok(Launched::Coming(coming)) => {
                let name = coming.name().map(str::to_owned);
                let state = name.map_or(LaunchState::Asked, LaunchState::Named);
                (state, Ok(Launched::Coming(coming)))
            }
            Ok(Launched::Neither(cause)) => (LaunchState::Asked, Ok(Launched::Neither(cause))),
            Ok(nothing) => (LaunchState::Over, Ok(nothing)),
            Err(refused) => {
                let state = match refused.unanswered {
                    true => LaunchState::Asked,
                    false => LaunchState::Over,
                };
                for_good = refused.hopeless;
                (state, Err(self.refused(refused)))
            }
        };
        self.intent.launches[number].settle(state);
        self.write_intent().await?;
        // Only now: when several launches are refused at once, the last one sees that no other depends on what they share.
        if for_good {
            compute::withdraw(&request, &store, context.ui).await;
        }
        answer
    }

    fn refused(&self, refused: Refused) -> Error {
        match refused.hopeless {
            true => self.final_failure(refused.error),
            false => refused.error,
        }
    }

    /// Notes that the role may not tag, and warns once a day.
    fn give_up_tags(&mut self, cause: &str) {
        self.untagged = true;
        let store = self.context.store();
        if !store.is_noted(UNTAGGABLE) {
            self.context.ui.warn(&format!(
                "tasks are started without tags, since the role may not set them: {cause}. Allow it ecs:TagResource \
                 for cost allocation and for `reap` across bastions."
            ));
            store.note(UNTAGGABLE);
        }
    }

    /// Waits for the first login, and connects as soon as there is an address.
    async fn come_up(&self, mut coming: Coming, step: usize) -> Result<RungResult> {
        let ui = self.context.ui;
        let connect_timeout = self.context.settings.ssh.connect_timeout;
        let deadline = Cell::new(Instant::now() + UNTIL_RUNNING);
        let mut machine = loop {
            match coming.next().await.map_err(|e| self.launch_failed(e))? {
                News::Progress(line) => ui.progress(&line),
                News::NoRoom { verdict, over } => return Ok(RungResult::NoRoom { verdict, over }),
                News::Stuck(error) => return Ok(RungResult::Stuck(error)),
                News::Hopeless(error) => return Err(self.final_failure(error)),
                News::Running => {}
                News::Reachable(machine) => break machine,
            }
        };
        if matches!(&machine.place, Place::Local(place) if !place.container) {
            ui.warn(
                "this job runs on this very host, as GitLab Runner's own user, beside its keys and other jobs: \
                 nothing is isolated",
            );
        }
        ui.progress(&format!("Waiting for SSH on {}...", addresses(&machine)));
        let session = {
            let login = FirstLogin {
                key: self.key,
                deadline: &deadline,
                admission: coming.admission(),
                ui,
            };
            let mut connecting = pin!(login.run(&mut machine.endpoints));
            loop {
                tokio::select! {
                    biased;
                    news = coming.next() => match news.map_err(|e| self.launch_failed(e))? {
                        News::Progress(line) => ui.progress(&line),
                        News::NoRoom { verdict, over } => return Ok(RungResult::NoRoom { verdict, over }),
                        News::Stuck(error) => return Ok(RungResult::Stuck(error)),
                        News::Hopeless(error) => return Err(self.final_failure(error)),
                        News::Running => deadline.set(Instant::now() + connect_timeout),
                        News::Reachable(_) => {}
                    },
                    session = &mut connecting => break session.map_err(|failed| match failed {
                        Failed::Machine(error) => error,
                        Failed::Cloud(refused) => self.refused(refused),
                    })?,
                }
            }
        };
        coming.entered();
        Ok(RungResult::Ready(Box::new(Ready {
            machine,
            session,
            coming,
            step,
        })))
    }

    /// Resolves when a machine ends after the driver has logged in to it.
    async fn gone(&self, coming: &mut Coming) -> Error {
        loop {
            match coming.next().await {
                Ok(News::Progress(line)) => self.context.ui.progress(&line),
                Ok(News::Running | News::Reachable(_)) => {}
                Ok(News::NoRoom { verdict, .. }) => {
                    let what = "the machine went away before the job could begin";
                    return Error::new(Kind::TakenBack, format!("{what}: {}", verdict.cause))
                        .hint("Retry the job.");
                }
                Ok(News::Hopeless(error)) => return self.final_failure(error),
                Ok(News::Stuck(error)) => return error,
                Err(error) => return self.launch_failed(error),
            }
        }
    }

    /// Runs the first command or sets up containers, and writes the record.
    async fn finish(&self, mut machine: Machine, session: Session, rung: &str) -> Result<()> {
        let context = self.context;
        let spool = crate::hash::random_hex()
            .map_err(|e| Error::new(Kind::Launch, "no randomness to be had").because(e))?;
        let environment = match &self.plan.containers {
            Some(plan) if matches!(machine.place, Place::Ec2(_)) => {
                self.containers(plan, &mut machine, session).await?
            }
            _ if machine
                .endpoints
                .iter()
                .any(|e| e.far_side == FarSide::Agent) =>
            {
                let contact = FirstContact {
                    key: self.key,
                    until: Some(self.intent.until.unix()),
                    connect_timeout: context.settings.ssh.connect_timeout,
                };
                contact.run(&mut machine, session).await?;
                None
            }
            _ => {
                let first = FirstCommand {
                    machine: &machine,
                    key: self.key,
                    lifetime: self.intent.until.left(),
                    connect_timeout: context.settings.ssh.connect_timeout,
                    ui: context.ui,
                };
                first.run(session).await?
            }
        };
        let mut record = Record::new(&self.intent, machine, self.key.to_pem()?, spool);
        record.job_id = context.call.identity.job_id;
        record.project = context.call.payload.project_path.clone();
        record.environment = environment;
        record.rung = Some(rung.to_owned());
        // The directory is not made anew: if it is gone, `cleanup` has removed it.
        let written = match self.job.lock_existing_when_free().await? {
            Some(locked) => locked.write_record(&record)?,
            None => false,
        };
        if written {
            return Ok(());
        }
        Err(self.overtaken().await)
    }

    /// Brings the job's containers up on a machine, which has two endpoints from then on.
    async fn containers(
        &self,
        plan: &ContainerPlan,
        machine: &mut Machine,
        session: Session,
    ) -> Result<Option<ContainerEnvironment>> {
        let endpoint = machine.endpoint(Role::Build)?.clone();
        let regions = plan.token_regions();
        let tokens =
            compute::registry_tokens(&machine.place, regions, &self.shared, self.context.ui);
        let tokens = match tokens.await {
            Err(error) if error.kind() == Kind::Denied => return Err(self.final_failure(error)),
            tokens => tokens?,
        };
        let set_up = SetUp {
            endpoint: &endpoint,
            key: self.key,
            plan,
            tokens: &tokens,
            connect_timeout: self.context.settings.ssh.connect_timeout,
            ui: self.context.ui,
        };
        match set_up.run(session).await {
            Ok(inside) => {
                machine.endpoints = inside.endpoints;
                Ok(inside.environment)
            }
            Err(trouble) if trouble.hopeless => Err(self.final_failure(trouble.error)),
            Err(trouble) => Err(trouble.error),
        }
    }

    /// Writes the first intent. First it ends what an earlier attempt left behind (its `cleanup` was killed, for example).
    async fn write_first_intent(&self) -> Result<()> {
        let locked = self.job.lock_when_free().await?;
        end_leftover(&locked, &self.intent, &self.shared, self.context.ui).await?;
        locked.write_intent(&self.intent)
    }

    /// Writes the intent again, unless a `cleanup` has removed it: then nothing of the job may stay alive.
    pub(super) async fn write_intent(&self) -> Result<()> {
        let written = match self.job.lock_existing_when_free().await? {
            Some(locked) => locked.update_intent(&self.intent)?,
            None => false,
        };
        match written {
            true => Ok(()),
            false => Err(self.overtaken().await),
        }
    }

    /// Ends what this attempt has launched, after a `cleanup` that may have missed it.
    async fn overtaken(&self) -> Error {
        let reason = "its job was cleaned up";
        let ended = end_launches(&self.intent, reason, &self.shared, self.context.ui).await;
        if let Err(error) = ended {
            return error;
        }
        Error::new(
            Kind::Cancelled,
            "`cleanup` ran while the machine was prepared",
        )
    }

    /// Adds the last line that a machine on this host wrote to the error that it is gone.
    fn launch_failed(&self, gone: Error) -> Error {
        let log = local::said(self.job);
        let said = log.lines().rev().filter(|line| !line.trim().is_empty());
        // The machine's keeper only says that the machine ended. The line before that says why, if there is one.
        let own = |line: &&str| line.contains(machine_process::SERVER_ENDED);
        let (ended, why): (Vec<_>, Vec<_>) = said.partition(own);
        match why.first().or(ended.first()) {
            Some(last) => Error::new(
                Kind::Launch,
                "the machine ended before anybody could log in",
            )
            .because(last.trim_start_matches("ERROR: ").to_owned())
            .hint(match self.plan.steps.first().and_then(Step::image) {
                Some(image) => format!(
                    "It is a container of {image}: can docker pull it, and does its ENTRYPOINT run the command that it is given \
                     (the agent)? `image: entrypoint: [\"\"]` leaves the ENTRYPOINT out."
                ),
                None => "This is the machine of `local`: the program of `[local] command`, or, without one, the driver's own SSH server \
                         with the home directory and the shell of GitLab Runner's user."
                    .to_owned(),
            }),
            None => gone,
        }
    }
}

/// The name of the note that the role may not tag.
const UNTAGGABLE: &str = "untaggable";

async fn end_leftover(locked: &Locked<'_>, intent: &Intent, shared: &Shared, ui: Ui) -> Result<()> {
    match locked.intent()? {
        Some(left) if left.attempt != intent.attempt => {
            end_launches(&left, "an earlier try of its job left it", shared, ui).await
        }
        Some(_) => Err(Error::new(Kind::Contract, "`prepare` was called twice in one try of this job").hint(
            "GitLab Runner gives each try a TMPDIR of its own; is a wrapper script calling the driver again?",
        )),
        None => Ok(()),
    }
}

fn addresses(machine: &Machine) -> String {
    let all: Vec<String> = machine.endpoints.iter().map(Endpoint::address).collect();
    all.join(", ")
}
