//! `reap`: ends what no live job owns.
//!
//! Three kinds of leftovers, each by what is known of it: jobs of the state directory whose Runner is gone (its
//! process stands in the intent; nobody will ever call their `cleanup`), tasks of this manager that no record names, and
//! tasks of the whole fleet that are past their deadline, whoever started them. All else is left alone. Where nobody here can
//! tell whether the Runner lives (it is in a container, and this is not), its job's deadline decides. A job whose Runner lives is
//! over once that has removed its directory for the job.
//!
//! AWS's list is read before the state: every task in it had its intent on disk before it was asked for. Instances, which
//! carry their launch's own token as a tag, are dealt with in the same way.

mod instances;
mod judge;
mod names;
mod over;
mod owned;
mod waits;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::compute::aws::Aws;
use crate::compute::aws::metadata::Metadata;
use crate::compute::fargate::task::Task;
use crate::compute::fargate::{end, list};
use crate::config;
use crate::config::overrides::Overrides;
use crate::config::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::logging;
use crate::machine::access::Access;
use crate::machine::launch::{Launch, LaunchState};
use crate::machine::{Request, proof, tags};
use crate::plan;
use crate::plan::overwrites::SettledRole;
use crate::stage::cleanup::{self, Ending};
use crate::state::deadline::Clock;
use crate::state::record::Intent;
use crate::state::trust::Lenience;
use crate::state::{Job, Store};
use crate::ui::Ui;
use judge::{Here, Thing, Times, Verdict};
use names::Names;
use owned::{Life, Owned};
use waits::told;

/// How long a job that another process works on is waited for: that process is busy with it, so it is not left over.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// End what no live job owns: this manager's, and of the whole fleet what is past its deadline
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Only say what would be ended
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object for programs
    #[arg(long)]
    pub json: bool,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Whether it was only looked.
    dry_run: bool,
    /// What was ended, or would be.
    ended: Vec<Ended>,
    /// What was not looked at for want of a permission, or was left alone though it might have to end.
    skipped: Vec<String>,
    /// What may be left over, and could not be ended or even looked at.
    problems: Vec<String>,
    /// What kept it from its work, where anything did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

#[derive(Debug, Serialize)]
struct Ended {
    /// The job's key, or the task's ARN.
    what: String,
    /// Why.
    why: String,
}

/// One cluster to look after, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cluster {
    access: Access,
    name: Option<String>,
}

/// Runs the command; the code says whether something is left that should not be. What it waits for is told on standard error.
///
/// # Errors
/// Where nothing could be done at all; with `--json` that was printed as well.
pub fn run(
    args: &Args,
    config: Option<&Path>,
    overrides: &Overrides,
    metadata: Metadata,
    ui: Ui,
) -> Result<u8> {
    let done = reap(args, config, overrides, metadata, ui);
    super::told(args.json, done, |error| not_begun(args.dry_run, error))
}

/// Returns what `--json` prints where nothing could be done.
#[must_use]
pub fn cannot(error: &Error) -> Value {
    not_begun(false, error)
}

fn not_begun(dry_run: bool, error: &Error) -> Value {
    json!(Report {
        dry_run,
        problems: vec![error.to_string()],
        error: Some(super::error_json(error)),
        ..Report::default()
    })
}

fn reap(
    args: &Args,
    config: Option<&Path>,
    overrides: &Overrides,
    metadata: Metadata,
    ui: Ui,
) -> Result<u8> {
    let mut loaded = config::load(config)?;
    overrides.apply_to_log(&mut loaded.settings.log);
    logging::start(&loaded.settings.log, ui)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Launch, "cannot start the runtime").because(e))?;
    let store = Store::new(loaded.settings.state_directory.clone());
    store.trust(Lenience::of(loaded.settings.style))?;
    let mut reaper = Reaper {
        store,
        settings: &loaded.settings,
        ui,
        metadata,
        names: Names::default(),
        ahead: None,
        report: Report {
            dry_run: args.dry_run,
            ..Report::default()
        },
    };
    let done = runtime.block_on(reaper.run());
    runtime.shutdown_background();
    if let Err(error) = done {
        // What was ended before that is told all the same.
        reaper.problem(&error);
        reaper.report.error = Some(super::error_json(&error));
    }
    reaper.tell(args.json)?;
    Ok(u8::from(!reaper.report.problems.is_empty()))
}

struct Reaper<'a> {
    store: Store,
    settings: &'a Settings,
    ui: Ui,
    metadata: Metadata,
    names: Names,
    /// By how many seconds this host's clock is ahead of AWS's, as far as any answer has said.
    ahead: Option<i64>,
    report: Report,
}

impl Reaper<'_> {
    async fn run(&mut self) -> Result<()> {
        self.names = self.find_names().await;
        let mut seen = Vec::new();
        for cluster in self.clusters()? {
            let name = cluster.name.as_deref().unwrap_or("default");
            let what = format!("the tasks of the cluster {name}");
            let (aws, looked) = told(self.ui, &what, async {
                let shared = self.store.shared();
                let aws = Aws::new(&cluster.access, Some(self.ui), &shared).await;
                let looked = self.look(&aws, &cluster).await;
                (aws, looked)
            })
            .await;
            self.hear_time(aws.clock_ahead());
            match looked {
                Ok(tasks) => seen.push((aws, cluster, tasks)),
                // What the state directory knows needs no list, and the Go driver's users have no permission for one.
                Err(error) if error.kind() == Kind::Denied => {
                    self.ui.warn(&format!(
                        "only jobs of the state directory are looked at: {error}"
                    ));
                    self.report.skipped.push(error.to_string());
                }
                Err(error) => self.problem(&error),
            }
        }
        let instances = self.see_instances().await?;
        self.tell_time();
        let mut owned = Owned::default();
        for job in self.store.jobs()? {
            if let Err(error) = self.job(&job, &mut owned).await {
                self.problem(&error);
            }
        }
        self.end_instances(instances, &owned).await;
        if !self.report.dry_run {
            self.store.prune();
        }
        let mut ended = HashSet::new();
        for (aws, cluster, tasks) in seen {
            for task in tasks {
                if ended.contains(&task.arn) {
                    continue;
                }
                match self.judge_task(&aws, &task, &owned) {
                    Verdict::Leave => {}
                    Verdict::Doubt(why) => {
                        self.leave_alone(&left(&format!("the task {}", task.arn), &why));
                    }
                    // One cluster may be seen as several roles, and its tasks by each.
                    Verdict::End(why) => {
                        if self.end_task(&aws, &cluster, &task, why).await {
                            ended.insert(task.arn);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns every cluster that this configuration or any known job names.
    fn clusters(&mut self) -> Result<HashSet<Cluster>> {
        let mut clusters = HashSet::new();
        for fargate in self.settings.each().filter_map(|s| s.fargate.as_ref()) {
            let role = fargate.role_arn.clone().map(|arn| SettledRole {
                arn,
                tags: Vec::new(),
            });
            clusters.insert(Cluster {
                access: plan::access(fargate, role.as_ref()),
                name: fargate.cluster.clone(),
            });
        }
        for job in self.store.jobs()? {
            let Ok(Some(intent)) = job.intent() else {
                continue;
            };
            for launch in intent.launches {
                if let Request::Ecs(request) = launch.request {
                    clusters.insert(Cluster {
                        access: request.access,
                        name: request.cluster,
                    });
                }
            }
        }
        Ok(clusters)
    }

    /// Returns this manager's and this fleet's tasks.
    async fn look(&self, aws: &Aws, cluster: &Cluster) -> Result<Vec<Task>> {
        let arns = list::tasks(aws, cluster.name.as_deref(), None).await?;
        list::details(aws, cluster.name.as_deref(), &arns).await
    }

    /// Ends a job whose Runner is gone; notes what a live one owns.
    async fn job(&mut self, job: &Job, owned: &mut Owned) -> Result<()> {
        let what = format!("the job {}: another process works on it", job.key());
        let free = tokio::time::timeout(BUSY_LIMIT, job.lock_existing_when_free());
        let locked = match told(self.ui, &what, free).await {
            Ok(Ok(locked)) => locked,
            // What it may own is left alone all the same.
            Ok(Err(error)) => {
                owned.note_unclear(job);
                return Err(error);
            }
            Err(_) => {
                // Whoever holds it knows better; what it owns must not be touched meanwhile.
                match job.intent() {
                    Ok(intent) => owned.note(intent.as_ref(), None, Life::Lives),
                    Err(_) => owned.note_unclear(job),
                }
                return Ok(());
            }
        };
        let Some(locked) = locked else { return Ok(()) };
        if let Err(error) = job.trust() {
            owned.note_unclear(job);
            return Err(error);
        }
        let (intent, record) = (locked.intent(), locked.record());
        // Of a damaged pair one is enough to know whose the job is.
        if matches!(
            (&intent, &record),
            (Err(_), Err(_) | Ok(None)) | (Ok(None), Err(_))
        ) {
            owned.note_unclear(job);
            return intent.and(record).map(drop);
        }
        let known_intent = intent.as_ref().ok().and_then(Option::as_ref);
        let known_record = record.as_ref().ok().and_then(Option::as_ref);
        let here = Here {
            bastion: self.names.bastion.as_ref().map(|b| b.digest.as_str()),
            dead: &self.names.dead,
        };
        let clock = self.times(self.ahead).earliest();
        let over = known_intent.and_then(|intent| over::look(job, intent));
        let why = judge::ownerless(known_intent, known_record, &here, clock);
        let Some(why) = why.or_else(|| over.as_ref().map(ToString::to_string)) else {
            owned.note(known_intent, known_record, Life::Lives);
            return intent.and(record.map(drop));
        };
        // Its machines are dealt with here: what is listed of them stops just now.
        owned.note(known_intent, known_record, Life::Over);
        if !self.report.dry_run {
            let reason = format!("reaped: {why}");
            let (store, ui) = (&self.store, self.ui);
            let what = format!("the end of the job {}: {why}", job.key());
            let ending = cleanup::end_job(store, job, locked, &reason, Ending::Judged, ui);
            let ended = told(ui, &what, ending).await;
            match (ended, known_intent) {
                (Err(error), Some(intent))
                    if judge::is_past_finding(error.kind(), intent, clock) =>
                {
                    let what = format!("the job {}: another process works on it", job.key());
                    told(ui, &what, cleanup::give_up(store, job, intent)).await?;
                    return Err(given_up(error, intent));
                }
                (ended, _) => ended?,
            }
        }
        let what = job.key().to_owned();
        self.report.ended.push(Ended { what, why });
        Ok(())
    }

    /// Says what becomes of a task.
    fn judge_task(&self, aws: &Aws, task: &Task, owned: &Owned) -> Verdict {
        if task.phase.is_ending() || task.stop.is_some() {
            return Verdict::Leave;
        }
        let by = task.started_by.as_deref();
        let kind = proof::Kind::Task(by);
        let names = self.names.own.iter();
        let own = names
            .map(|name| tags::started_by(name))
            .any(|started_by| by == Some(started_by.as_str()));
        // What its tags say counts where they are believed; a role that may not tag leaves nothing but its time.
        let believed = proof::doubt(&task.tags, kind).is_none();
        let tag = |name| tags::own(&task.tags, name).filter(|_| believed);
        let token = tag(proof::LAUNCH);
        let life = owned.life_of(&task.arn, token);
        if own && life.is_none() && token.is_none() && owned.may_have_asked_for(task.created) {
            return Verdict::Leave;
        }
        let thing = Thing {
            tags: &task.tags,
            kind,
            own,
            life,
            unclear: owned.unclear(tag("key"), task.created),
            orphaned: "no live job of this bastion owns it",
        };
        judge::judge(&thing, &self.settings.fleet, self.times(aws.clock_ahead()))
    }

    fn times(&self, ahead: Option<i64>) -> Times {
        Times {
            clock: Clock::look(),
            ahead,
        }
    }

    /// Notes what an answer of AWS said of the time; the latest of this host's clock counts.
    fn hear_time(&mut self, ahead: Option<i64>) {
        self.ahead = self.ahead.max(ahead);
    }

    /// Tells where this host's clock and AWS's differ: by either alone nothing of another host ends.
    fn tell_time(&mut self) {
        let Some(ahead) = self.ahead.filter(|_| !self.times(self.ahead).agree()) else {
            return;
        };
        let by = humantime::format_duration(Duration::from_secs(ahead.unsigned_abs()));
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        let what = format!("this host's clock is {by} {way} AWS's");
        let error = Error::new(Kind::State, what).hint(
            "Have it set by NTP (chrony, systemd-timesyncd). Until then only what is past its deadline by both clocks is ended \
             by it.",
        );
        self.problem(&error);
    }

    /// Tells what is left alone though it might have to end.
    fn leave_alone(&mut self, what: &str) {
        if !self.report.skipped.iter().any(|said| said == what) {
            self.ui.warn(what);
            self.report.skipped.push(what.to_owned());
        }
    }

    /// Returns whether it is ended, or would be.
    async fn end_task(&mut self, aws: &Aws, cluster: &Cluster, task: &Task, why: String) -> bool {
        if !self.report.dry_run {
            let reason = format!("reaped: {why}");
            let what = format!("the end of the task {}", task.arn);
            let ending = end::stop(aws, cluster.name.as_deref(), &task.arn, &reason);
            let done = told(self.ui, &what, ending).await;
            if let Err(error) = done {
                self.problem(&error);
                return false;
            }
        }
        self.report.ended.push(Ended {
            what: task.arn.clone(),
            why,
        });
        true
    }

    fn problem(&mut self, error: &Error) {
        self.ui.error(error);
        self.report.problems.push(error.to_string());
    }

    fn tell(&self, json: bool) -> Result<()> {
        let mut text = String::new();
        if json {
            text = serde_json::to_string_pretty(&self.report)
                .map_err(|e| Error::new(Kind::Contract, "cannot write JSON").because(e))?;
            text.push('\n');
        } else {
            let verb = if self.report.dry_run {
                "would end"
            } else {
                "ended"
            };
            for ended in &self.report.ended {
                text.push_str(&format!("{verb} {}: {}\n", ended.what, ended.why));
            }
            if self.report.ended.is_empty() {
                text.push_str(match self.report.problems.is_empty() {
                    true => "nothing is left over\n",
                    false => "nothing was found to end, but not all could be looked at\n",
                });
            }
        }
        super::print(text.as_bytes())
    }
}

fn left(what: &str, why: &str) -> String {
    format!("{what} is left alone: {why}")
}

/// Names what may be left, for somebody who may look.
fn given_up(error: Error, intent: &Intent) -> Error {
    let places: BTreeSet<String> = intent.open_launches().filter_map(where_to_look).collect();
    let places: Vec<String> = places.into_iter().collect();
    Error::new(
        error.kind(),
        "a job whose time is long over is given up, though a machine of it may still run",
    )
    .because(error)
    .hint(format!(
        "Look whether one runs, and end it: {}. Where `reap` may list and end it (ecs:ListTasks and ecs:StopTask, \
         ec2:DescribeInstances and ec2:TerminateInstances) it does so by itself.",
        places.join("; ")
    ))
}

/// Returns the command that shows what a launch may have left.
fn where_to_look(launch: &Launch) -> Option<String> {
    let cluster = |name: &Option<String>| name.clone().unwrap_or_else(|| "default".to_owned());
    match (&launch.request, &launch.state) {
        (Request::Ecs(request), LaunchState::Asked) => Some(format!(
            "aws ecs list-tasks --cluster {} --started-by {}",
            cluster(&request.cluster),
            request.started_by
        )),
        (Request::Ecs(request), LaunchState::Named(task)) => Some(format!(
            "aws ecs describe-tasks --cluster {} --tasks {task}",
            cluster(&request.cluster)
        )),
        (Request::Ec2(_), LaunchState::Named(instance)) => Some(format!(
            "aws ec2 describe-instances --instance-ids {instance}"
        )),
        (Request::Ec2(_) | Request::Local(_), _) | (_, LaunchState::Over) => None,
    }
}
