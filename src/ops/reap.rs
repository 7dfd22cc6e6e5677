//! `reap`: ends what no live job owns.
//!
//! Three kinds of leftovers, each by what is known of it: jobs of the state directory whose Runner is gone (its
//! process stands in the intent; nobody will ever call their `cleanup`), tasks of this manager that no record names, and
//! tasks of the whole fleet that are past their deadline, whoever started them. All else is left alone. Where nobody here can
//! tell whether the Runner lives (it is in a container, and this is not), its job's deadline decides.
//!
//! AWS's list is read before the state: every task in it had its intent on disk before it was asked for. Instances, which
//! carry their launch's own token as a tag, are dealt with in the same way.

#[cfg(feature = "ec2")]
mod instances;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::cli::Overrides;
use crate::compute::aws::Aws;
use crate::compute::aws::access::Access;
use crate::compute::aws::tags;
use crate::compute::fargate::task::Task;
use crate::compute::fargate::{end, list};
use crate::compute::{Place, Request, plan};
use crate::config;
use crate::config::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::logging;
use crate::process::Life;
use crate::runner::wishes::SettledRole;
use crate::stage::cleanup;
use crate::state::record::{Intent, Launch, LaunchState, Record, now};
use crate::state::{Job, Store};
use crate::ui::Ui;

/// How long a job that another process works on is waited for: that process is busy with it, so it is not left over.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// How long AWS knows the token of a launch.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Clocks of AWS and of this host may differ by so much.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

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
    /// What was not looked at for want of a permission.
    skipped: Vec<String>,
    /// What may be left over, and could not be ended or even looked at.
    problems: Vec<String>,
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

/// What live jobs own.
#[derive(Debug, Default)]
struct Owned {
    /// Tasks and instances, by their names.
    machines: HashSet<String>,
    /// Tokens of launches of instances.
    launches: HashSet<String>,
    /// When the oldest launch was asked for whose answer is not known yet.
    asked_since: Option<u64>,
    /// Whether the state of some job cannot be read: it may own anything.
    unclear: bool,
}

/// Runs the command; the code says whether something is left that should not be.
///
/// # Errors
/// Where nothing could be done at all.
pub fn run(args: &Args, config: Option<&Path>, overrides: &Overrides, ui: Ui) -> Result<u8> {
    let mut loaded = config::load(config)?;
    overrides.apply_to_log(&mut loaded.settings.log);
    logging::start(&loaded.settings.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Launch, "cannot start the runtime").because(e))?;
    let mut reaper = Reaper {
        store: Store::new(loaded.settings.state_directory.clone()),
        settings: &loaded.settings,
        ui,
        report: Report {
            dry_run: args.dry_run,
            ..Report::default()
        },
    };
    let done = runtime.block_on(reaper.run());
    runtime.shutdown_background();
    done?;
    reaper.tell(args.json)?;
    Ok(u8::from(!reaper.report.problems.is_empty()))
}

struct Reaper<'a> {
    store: Store,
    settings: &'a Settings,
    ui: Ui,
    report: Report,
}

impl Reaper<'_> {
    async fn run(&mut self) -> Result<()> {
        let mut seen = Vec::new();
        for cluster in self.clusters()? {
            let aws = Aws::new(&cluster.access, None, &self.store.shared()).await;
            match self.look(&aws, &cluster).await {
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
        #[cfg(feature = "ec2")]
        let instances = self.see_instances().await?;
        let mut owned = Owned::default();
        for job in self.store.jobs()? {
            if let Err(error) = self.job(&job, &mut owned).await {
                self.problem(&error);
            }
        }
        #[cfg(feature = "ec2")]
        self.end_instances(instances, &owned).await?;
        if !self.report.dry_run {
            self.store.prune();
        }
        let mut ended = HashSet::new();
        for (aws, cluster, tasks) in seen {
            for task in tasks {
                if ended.contains(&task.arn) {
                    continue;
                }
                if let Some(why) = self.left_over(&task, &owned)? {
                    // One cluster may be seen as several roles, and its tasks by each.
                    if self.end_task(&aws, &cluster, &task, why).await {
                        ended.insert(task.arn);
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
        let locked = match tokio::time::timeout(BUSY_LIMIT, job.lock_existing_when_free()).await {
            Ok(locked) => locked?,
            Err(_) => {
                // Whoever holds it knows better; what it owns must not be touched meanwhile.
                match job.intent() {
                    Ok(Some(intent)) => owned.note(&intent),
                    Ok(None) => {}
                    Err(_) => owned.unclear = true,
                }
                return Ok(());
            }
        };
        let Some(locked) = locked else { return Ok(()) };
        let (intent, record) = (locked.intent(), locked.record());
        // Of a damaged pair one is enough to know whose the job is.
        let (known_intent, known_record) = match (&intent, &record) {
            (Err(_), Err(_) | Ok(None)) | (Ok(None), Err(_)) => {
                owned.unclear = true;
                (None, None)
            }
            (intent, record) => (
                intent.as_ref().ok().and_then(Option::as_ref),
                record.as_ref().ok().and_then(Option::as_ref),
            ),
        };
        if owned.unclear && known_intent.is_none() && known_record.is_none() {
            return intent.and(record).map(drop);
        }
        match known_record.map(|record| &record.machine.place) {
            Some(Place::Ecs(place)) => drop(owned.machines.insert(place.task.clone())),
            Some(Place::Ec2(place)) => drop(owned.machines.insert(place.instance.clone())),
            Some(Place::Local { .. }) | None => {}
        }
        let Some(why) = ownerless(known_intent, known_record) else {
            if let Some(intent) = known_intent {
                owned.note(intent);
            }
            return intent.and(record.map(drop));
        };
        // Its machines are dealt with here: what is listed of them stops just now.
        if let Some(intent) = known_intent {
            owned.note_machines(intent);
        }
        if !self.report.dry_run {
            let reason = format!("reaped: {why}");
            let ended = cleanup::end_job(&self.store, job, locked, &reason, self.ui).await;
            match (ended, known_intent) {
                (Err(error), Some(intent)) if is_past_finding(&error, intent) => {
                    cleanup::give_up(&self.store, job, intent).await?;
                    return Err(given_up(error, intent));
                }
                (ended, _) => ended?,
            }
        }
        let what = job.key().to_owned();
        self.report.ended.push(Ended { what, why });
        Ok(())
    }

    /// Says why a task is nobody's, if it is.
    fn left_over(&self, task: &Task, owned: &Owned) -> Result<Option<String>> {
        if task.phase.is_ending() || task.stop.is_some() {
            return Ok(None);
        }
        if let Some(why) = past_deadline(&task.tags, &self.settings.fleet) {
            return Ok(Some(why));
        }
        // Whoever has no name has started nothing; to look is no reason to draw one.
        let Some(manager) = self.store.known_manager()? else {
            return Ok(None);
        };
        let own = task.started_by.as_deref() == Some(tags::started_by(&manager).as_str());
        if !own || owned.machines.contains(&task.arn) || owned.may_have_asked_for(task) {
            return Ok(None);
        }
        Ok(Some("no live job of this bastion owns it".to_owned()))
    }

    /// Returns whether it is ended, or would be.
    async fn end_task(&mut self, aws: &Aws, cluster: &Cluster, task: &Task, why: String) -> bool {
        if !self.report.dry_run {
            let reason = format!("reaped: {why}");
            let done = end::stop(aws, cluster.name.as_deref(), &task.arn, &reason).await;
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

impl Owned {
    fn note(&mut self, intent: &Intent) {
        self.note_machines(intent);
        let asked = |launch: &Launch| {
            launch.state == LaunchState::Asked && matches!(launch.request, Request::Ecs(_))
        };
        if intent.launches.iter().any(asked) {
            let since = self.asked_since.unwrap_or(u64::MAX).min(intent.created);
            self.asked_since = Some(since);
        }
    }

    fn note_machines(&mut self, intent: &Intent) {
        for launch in &intent.launches {
            if let LaunchState::Named(machine) = &launch.state {
                self.machines.insert(machine.clone());
            }
            if let Request::Ec2(request) = &launch.request
                && launch.state != LaunchState::Over
            {
                self.launches.insert(request.token.clone());
            }
        }
    }

    /// Whether a live job that waits for its answer, or one of which nothing can be known, may have started this one.
    fn may_have_asked_for(&self, task: &Task) -> bool {
        if self.unclear {
            return true;
        }
        let Some(since) = self.asked_since else {
            return false;
        };
        let since = UNIX_EPOCH + Duration::from_secs(since);
        task.created
            .is_none_or(|created| created + CLOCK_MARGIN >= since)
    }
}

fn is_of_fleet(tags: &[(String, String)], fleet: &str) -> bool {
    tags::own(tags, "fleet") == Some(tags::value(fleet).as_str())
}

/// Says since when something of the fleet is past its deadline, if it is.
fn past_deadline(tags: &[(String, String)], fleet: &str) -> Option<String> {
    let deadline = tags::deadline(tags).filter(|_| is_of_fleet(tags, fleet))?;
    let since = SystemTime::now().duration_since(deadline).ok()?;
    let since = humantime::format_duration(Duration::from_secs(since.as_secs()));
    Some(format!("its deadline is past since {since}"))
}

/// Says why a job is nobody's, if it is.
fn ownerless(intent: Option<&Intent>, record: Option<&Record>) -> Option<String> {
    let (owner, deadline) = match (intent, record) {
        (Some(intent), _) if intent.ending => {
            return Some("its cleanup came to no end".to_owned());
        }
        (Some(intent), _) => (intent.owner, intent.deadline),
        (None, Some(record)) => (record.owner, record.deadline),
        (None, None) => return Some("nothing is known of it".to_owned()),
    };
    match owner.map(|owner| (owner.life(), owner.pid)) {
        Some((Life::Gone, pid)) => Some(format!(
            "the GitLab Runner that owned it (process {pid}) is gone"
        )),
        // A machine on this host has no watchdog, so its deadline is no more than what it was told.
        Some((Life::Lives, _)) if is_here(intent, record) => None,
        // Nobody knows whose it is, or whether its Runner lives, or that has forgotten it: its time decides.
        _ => (deadline < now()).then(|| "its deadline is past".to_owned()),
    }
}

/// Whether nothing more can be done about what a job may have left. Its time is long over, and AWS refuses (it may not be
/// asked any more, or knows nothing of where the machine is) rather than being out of reach. A launch whose answer was lost
/// can be asked for again only as long as AWS knows its token; one that is named may be ended by whoever may.
fn is_past_finding(error: &Error, intent: &Intent) -> bool {
    // Not an instance that was asked for: its tag would still name it.
    let lost = |launch: &Launch| {
        matches!(
            (&launch.request, &launch.state),
            (Request::Ecs(_), LaunchState::Asked)
                | (Request::Ecs(_) | Request::Ec2(_), LaunchState::Named(_))
        )
    };
    matches!(error.kind(), Kind::Denied | Kind::Launch)
        && now().saturating_sub(intent.deadline) > TOKEN_LIFE.as_secs()
        && intent.open_launches().all(lost)
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

/// Whether a job's machine is on this host. What is over counts no more.
fn is_here(intent: Option<&Intent>, record: Option<&Record>) -> bool {
    let launches = || intent.into_iter().flat_map(Intent::open_launches);
    let place = record.map(|record| &record.machine.place);
    let elsewhere = matches!(place, Some(Place::Ecs(_) | Place::Ec2(_)))
        || launches().any(|launch| launch.request.is_remote());
    !elsewhere && (place.is_some() || launches().next().is_some())
}
