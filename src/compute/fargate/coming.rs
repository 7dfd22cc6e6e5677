//! A task on its way up: polls dense while something is about to happen and sparse otherwise, tells what changes, and
//! gives the address as soon as the interface has one, so that dialling begins before ECS says RUNNING.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::address;
use super::progress;
use super::stopped;
use super::task::{Phase, Task};
use crate::compute::aws::Aws;
use crate::compute::aws::classify::{self, Action};
use crate::compute::ec2::PublicAddresses;
use crate::compute::kind::{ComingUp, News};
use crate::compute::watch::Misses;
use crate::error::{Error, Kind, Result};
use crate::machine::task::{EcsPlace, TaskRequest};
use crate::machine::verdict::Verdict;
use crate::machine::{Endpoint, FarSide, Login, Machine, Place};
use crate::runner::substage::Role;

/// When the first polls come, after RunTask's answer: quick ones for what fails or starts at once, then one about when the
/// interface is usually there (10 s). A start of 30 s makes six of them, eight calls in all for its job.
const POLLS: [Duration; 6] = [
    Duration::from_millis(700),
    Duration::from_secs(3),
    Duration::from_secs(7),
    Duration::from_secs(12),
    Duration::from_secs(18),
    Duration::from_secs(25),
];
/// Between two polls after those.
const SPARSE: Duration = Duration::from_secs(8);
/// Between two polls of a task that is being stopped: its containers' reasons come last.
const STOPPING: Duration = Duration::from_secs(2);
/// How long those reasons are waited for.
const STOPPING_LIMIT: Duration = Duration::from_secs(30);
/// ECS reads lag writes: a task that is MISSING so shortly after RunTask is not gone.
const MISSING_LIMIT: Duration = Duration::from_secs(60);
/// One describe call, repeated within that time.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(2 * 60);
/// A wait without news is told that often.
const STILL: Duration = Duration::from_secs(60);
/// How long an image may take to come and its containers to start; ECS gives up on the network by itself, on a registry
/// that answers slowly it does not.
const START_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A task that is not yet reached.
#[derive(Debug)]
pub struct Coming {
    aws: Aws,
    place: EcsPlace,
    request: TaskRequest,
    public: Option<PublicAddresses>,
    login: Login,
    rung_wait: Duration,
    began: Instant,
    polls: usize,
    next_poll: Instant,
    last: Option<Task>,
    misses: Misses,
    news: VecDeque<News>,
    addressed: bool,
    running: bool,
    /// Somebody is in: whatever ECS says, it is up.
    entered: bool,
    stopping_since: Option<Instant>,
    told: Instant,
}

impl ComingUp for Coming {
    type Admission = Infallible;

    fn name(&self) -> Option<&str> {
        Some(&self.place.task)
    }

    fn admission(&mut self) -> Option<Infallible> {
        None
    }

    fn entered(&mut self) {
        self.entered = true;
    }

    async fn next(&mut self) -> Result<News> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            sleep_until(self.next_poll).await;
            let task = match self.place.describe(&self.aws, DESCRIBE_LIMIT).await {
                Ok(task) => task,
                Err(verdict) => {
                    let what = format!(
                        "the state of the task {} cannot be found out",
                        self.place.task
                    );
                    return failed(&verdict, &what);
                }
            };
            self.schedule();
            match task {
                Some(task) => self.look_at(task).await?,
                None => self.look_in_vain()?,
            }
        }
    }
}

impl Coming {
    /// Begins to watch a task that RunTask has just named.
    pub(super) fn new(
        aws: Aws,
        request: &TaskRequest,
        arn: String,
        login: Login,
        rung_wait: Duration,
    ) -> Self {
        let began = Instant::now();
        let public = request.dial_public.then(|| PublicAddresses::new(&aws));
        Self {
            aws,
            place: EcsPlace {
                access: request.access.clone(),
                cluster: request.cluster.clone(),
                task: arn,
                container: request.container.clone(),
            },
            request: request.clone(),
            public,
            login,
            rung_wait,
            began,
            polls: 0,
            next_poll: began + POLLS[0],
            last: None,
            misses: Misses::default(),
            news: VecDeque::new(),
            addressed: false,
            running: false,
            entered: false,
            stopping_since: None,
            told: began,
        }
    }

    /// Notes that ECS does not know the task. An answer or two may lag, also where others before did not.
    fn look_in_vain(&mut self) -> Result<()> {
        let gone = self.misses.missed();
        if !gone || self.began.elapsed() < MISSING_LIMIT {
            return Ok(());
        }
        let missing = self.missing();
        match self.entered {
            true => Err(missing),
            false => {
                self.stuck(missing);
                Ok(())
            }
        }
    }

    /// Gives up on one that comes no further.
    fn stuck(&mut self, error: Error) {
        self.news.push_back(News::Stuck(error));
        self.next_poll = Instant::now() + SPARSE;
    }

    fn schedule(&mut self) {
        self.polls += 1;
        let next = match POLLS.get(self.polls) {
            Some(after) => (self.began + *after).max(Instant::now() + POLLS[0]),
            None => Instant::now() + SPARSE,
        };
        // The rung's time is over when it is over, not at the next poll.
        let over = self.began + self.rung_wait;
        let waits = !self.addressed && !self.entered && Instant::now() < over;
        self.next_poll = if waits { next.min(over) } else { next };
    }

    async fn look_at(&mut self, task: Task) -> Result<()> {
        self.misses.seen();
        for line in progress::lines(self.last.as_ref(), &task) {
            self.told = Instant::now();
            self.news.push_back(News::Progress(line));
        }
        if task.stop.is_some() {
            return self.look_at_end(task);
        }
        let waits_for_room = task.phase == Phase::Provisioning && !self.entered;
        if waits_for_room && self.began.elapsed() >= self.rung_wait {
            let waited = humantime::format_duration(self.rung_wait);
            let cause = format!("the task still waited for room (PROVISIONING) after {waited}");
            let verdict = classify::no_room(Action::RunTask, cause);
            let over = false;
            self.news.push_back(News::NoRoom { verdict, over });
            self.next_poll = Instant::now() + SPARSE;
            return Ok(());
        }
        if !self.addressed
            && let Some(host) = address::of(&task, self.public.as_ref()).await?
        {
            self.addressed = true;
            self.news.push_back(News::Reachable(self.machine(host)));
        }
        if task.phase >= Phase::Running && !self.running {
            self.running = true;
            match self.addressed {
                true => self.news.push_back(News::Running),
                false => self.stuck(address::missing(&task, &self.request)),
            }
        }
        if !self.running && !self.entered {
            self.wait_on(&task);
        }
        self.last = Some(task);
        Ok(())
    }

    /// Goes on waiting for one that does not run yet, as long as that may take.
    fn wait_on(&mut self, task: &Task) {
        let phase = name(task.phase);
        if self.began.elapsed() >= START_LIMIT {
            self.stuck(self.slow(&phase));
        } else if self.told.elapsed() >= STILL {
            self.told = Instant::now();
            let seconds = self.began.elapsed().as_secs();
            let what = progress::waiting_for(task);
            let line =
                format!("The task is still {phase} after {seconds} s; waiting for {what}...");
            self.news.push_back(News::Progress(line));
        }
    }

    fn look_at_end(&mut self, task: Task) -> Result<()> {
        let since = *self.stopping_since.get_or_insert_with(Instant::now);
        if !task.phase.is_over() && since.elapsed() < STOPPING_LIMIT {
            self.next_poll = Instant::now() + STOPPING;
            self.last = Some(task);
            return Ok(());
        }
        let verdict = stopped::stopped(&task, &self.request.container);
        if verdict.why.hands_over() {
            let over = task.phase.is_over();
            self.news.push_back(News::NoRoom { verdict, over });
            return Ok(());
        }
        let what = "the task ended before anybody could log in";
        self.news.push_back(failed(&verdict, what)?);
        Ok(())
    }

    fn machine(&self, host: String) -> Machine {
        Machine {
            place: Place::Ecs(self.place.clone()),
            endpoints: vec![Endpoint {
                roles: vec![Role::Build, Role::Helper],
                host,
                port: self.login.port,
                user: self.login.user.clone(),
                host_key: None,
                inside: None,
                far_side: FarSide::Login,
                socket: None,
            }],
        }
    }

    fn slow(&self, phase: &str) -> Error {
        let limit = humantime::format_duration(START_LIMIT);
        Error::new(
            Kind::Launch,
            format!("the task {} is still {phase} after {limit}", self.place.task),
        )
        .hint("A very large image, or a registry that hardly answers? See the task in the ECS console.")
    }

    fn missing(&self) -> Error {
        Error::new(
            Kind::Launch,
            format!("ECS does not know the task {} (MISSING)", self.place.task),
        )
        .hint("Was it started in another cluster or region than [fargate] names? Retry the job.")
    }
}

/// Says that there will be no machine, and whether another try could fare better.
fn failed(verdict: &Verdict, what: &str) -> Result<News> {
    let error = verdict.error(verdict.why.kind(), what);
    match verdict.why.is_final() {
        true => Ok(News::Hopeless(error)),
        false => Err(error),
    }
}

/// Names a phase as AWS does.
fn name(phase: Phase) -> String {
    format!("{phase:?}").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::fargate::request::tests::request;
    use crate::machine::access::Access;
    use crate::state::Store;
    use crate::ui::Ui;

    /// A task that RunTask has just named; nobody is asked for it here.
    async fn coming() -> Coming {
        let folder = tempfile::tempdir().unwrap();
        let shared = Store::new(folder.path().to_owned()).shared();
        let access = Access {
            region: Some("eu-west-1".into()),
            role: None,
        };
        let request = TaskRequest {
            access,
            ..request()
        };
        let aws = Aws::new(&request.access, None::<Ui>, &shared).await;
        let login = Login {
            user: "root".into(),
            port: 22,
        };
        let arn = "arn:aws:ecs:eu-west-1:123456789012:task/ci/1".to_owned();
        Coming::new(aws, &request, arn, login, Duration::from_secs(300))
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_known_three_times_in_a_row_is_gone() {
        let mut coming = coming().await;
        tokio::time::advance(MISSING_LIMIT).await;
        for _ in 0..2 {
            coming.look_at(Task::default()).await.unwrap();
            for _ in 0..2 {
                coming.look_in_vain().unwrap();
            }
        }
        let stuck = coming.news.iter().any(|n| matches!(n, News::Stuck(_)));
        assert!(!stuck);
        coming.look_in_vain().unwrap();
        assert_stuck(&coming, "(MISSING)");
        // One that lets in already is no other rung's turn.
        coming.entered();
        let error = coming.look_in_vain().unwrap_err();
        assert!(error.to_string().contains("(MISSING)"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_so_young_is_waited_for() {
        let mut coming = coming().await;
        for _ in 0..5 {
            coming.look_in_vain().unwrap();
        }
        tokio::time::advance(MISSING_LIMIT).await;
        coming.look_in_vain().unwrap();
        assert_stuck(&coming, "(MISSING)");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_starts_for_too_long_is_told_and_another_rungs_turn() {
        let mut coming = coming().await;
        let pending = || Task {
            phase: Phase::Pending,
            pull_started: Some(std::time::UNIX_EPOCH),
            ..Task::default()
        };
        tokio::time::advance(STILL).await;
        coming.look_at(pending()).await.unwrap();
        let news = coming.news.pop_front();
        let Some(News::Progress(line)) = news else {
            panic!("{news:?}");
        };
        assert_eq!(
            line,
            "The task is still PENDING after 60 s; waiting for the image to be pulled..."
        );
        // An image that takes longer than a rung may is not want of room.
        tokio::time::advance(coming.rung_wait).await;
        coming.look_at(pending()).await.unwrap();
        coming.news.clear();
        tokio::time::advance(START_LIMIT).await;
        coming.look_at(pending()).await.unwrap();
        assert_stuck(&coming, "is still PENDING after 30m");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_runs_and_has_no_address_is_another_rungs_turn() {
        let mut coming = coming().await;
        let running = Task {
            phase: Phase::Running,
            ..Task::default()
        };
        coming.look_at(running).await.unwrap();
        assert_stuck(&coming, "runs but has no private address");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_for_room_leaves_its_rung_in_time_unless_somebody_is_in() {
        let provisioning = || Task {
            phase: Phase::Provisioning,
            ..Task::default()
        };
        for entered in [false, true] {
            let mut coming = coming().await;
            if entered {
                coming.entered();
            }
            tokio::time::advance(coming.rung_wait).await;
            coming.look_at(provisioning()).await.unwrap();
            let given_up = coming.news.iter().any(|n| matches!(n, News::NoRoom { .. }));
            assert_eq!(given_up, !entered);
        }
    }

    #[track_caller]
    fn assert_stuck(coming: &Coming, words: &str) {
        let last = coming.news.back();
        let Some(News::Stuck(error)) = last else {
            panic!("{last:?}");
        };
        assert!(error.to_string().contains(words), "{error}");
    }
}
