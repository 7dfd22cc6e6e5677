//! An instance on its way up: few polls, the address as soon as there is one, so that dialling begins before EC2 says
//! running.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Api;
use super::admission::Admission;
use super::ended;
use crate::compute::aws::classify::{self, Action};
use crate::compute::ec2::instance::{Instance, Phase};
use crate::compute::kind::{ComingUp, News};
use crate::compute::watch::Misses;
use crate::error::{Error, Kind, Result};
use crate::machine::instance::{Dial, Ec2Place, InstanceRequest};
use crate::machine::verdict::Verdict;
use crate::machine::{Endpoint, FarSide, Login, Machine, Place};
use crate::runner::substage::Role;

/// When the first polls come, after CreateFleet's answer: the private address is there from the start, a public one after
/// a few seconds, `running` after ten or more. A start of 30 s makes five of them; with DescribeSubnets, CreateFleet and
/// TerminateInstances that is eight calls for its job.
const POLLS: [Duration; 5] = [
    Duration::from_millis(800),
    Duration::from_secs(4),
    Duration::from_secs(10),
    Duration::from_secs(17),
    Duration::from_secs(25),
];
/// Between two polls after those.
const SPARSE: Duration = Duration::from_secs(10);
/// EC2's reads lag its writes: an instance that is not known so shortly after CreateFleet is not gone.
const MISSING_LIMIT: Duration = Duration::from_secs(60);
/// One describe call, repeated within that time.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(2 * 60);
/// A wait without news is told that often.
const STILL: Duration = Duration::from_secs(60);
/// How long a running instance may be without the address that is to be dialled.
const ADDRESS_LIMIT: Duration = Duration::from_secs(30);

/// An instance that is not yet reached.
#[derive(Debug)]
pub struct Coming {
    api: Api,
    place: Ec2Place,
    dial: Dial,
    host_key: String,
    login: Login,
    admission: Option<Admission>,
    rung_wait: Duration,
    began: Instant,
    polls: usize,
    next_poll: Instant,
    news: VecDeque<News>,
    described: bool,
    misses: Misses,
    addressed: bool,
    running: Option<Instant>,
    /// Somebody is in: whatever EC2 says, it is up.
    entered: bool,
    told: Instant,
}

impl ComingUp for Coming {
    type Admission = Admission;

    fn name(&self) -> Option<&str> {
        Some(self.instance())
    }

    fn admission(&mut self) -> Option<Admission> {
        self.admission.take()
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
            let instance = match self.place.describe(&self.api, DESCRIBE_LIMIT).await {
                Ok(instance) => instance,
                Err(verdict) => {
                    let what = format!(
                        "the state of the instance {} cannot be found out",
                        self.instance()
                    );
                    return failed(&verdict, &what);
                }
            };
            self.schedule();
            match instance {
                Some(instance) => self.look_at(&instance)?,
                None => self.look_in_vain()?,
            }
        }
    }
}

impl Coming {
    /// Begins to watch an instance that CreateFleet has just named.
    pub(super) fn new(
        api: Api,
        request: &InstanceRequest,
        instance: String,
        login: Login,
        rung_wait: Duration,
    ) -> Self {
        let began = Instant::now();
        let admission = Admission::new(&api.aws, request, &instance, &login);
        Self {
            api,
            place: Ec2Place {
                access: request.access.clone(),
                instance,
                spot: request.is_spot(),
            },
            dial: request.dial,
            host_key: request.host_key.clone(),
            login,
            admission,
            rung_wait,
            began,
            polls: 0,
            next_poll: began + POLLS[0],
            news: VecDeque::new(),
            described: false,
            misses: Misses::default(),
            addressed: false,
            running: None,
            entered: false,
            told: began,
        }
    }

    fn instance(&self) -> &str {
        &self.place.instance
    }

    fn schedule(&mut self) {
        self.polls += 1;
        let next = match POLLS.get(self.polls) {
            Some(after) => (self.began + *after).max(Instant::now() + POLLS[0]),
            None => Instant::now() + SPARSE,
        };
        // The rung's time is over when it is over, not at the next poll.
        let over = self.began + self.rung_wait;
        let waits = self.is_waited_for() && Instant::now() < over;
        self.next_poll = if waits { next.min(over) } else { next };
    }

    /// Whether it is the rung's time that passes.
    fn is_waited_for(&self) -> bool {
        self.running.is_none() && !self.entered
    }

    /// Notes that EC2 does not know the instance. An answer or two may lag, also where others before did not.
    fn look_in_vain(&mut self) -> Result<()> {
        let gone = self.misses.missed();
        let young = !self.described && self.began.elapsed() < MISSING_LIMIT;
        if !gone || young {
            return Ok(());
        }
        let verdict = ended::missing(self.instance(), self.place.spot);
        if verdict.why.hands_over() {
            return self.ended(&verdict);
        }
        let what = "the instance was not there before anybody could log in";
        self.stuck(verdict.error(verdict.why.kind(), what));
        Ok(())
    }

    fn look_at(&mut self, instance: &Instance) -> Result<()> {
        self.misses.seen();
        if instance.is_ending() {
            return self.ended(&ended::ended(instance, self.place.spot));
        }
        if !self.described {
            self.described = true;
            let line = format!("Instance {}", instance.described());
            self.news.push_back(News::Progress(line));
        }
        if !self.addressed
            && let Some(host) = instance.address(self.dial)
        {
            self.addressed = true;
            self.news
                .push_back(News::Reachable(self.machine(host.to_owned())));
        }
        match (instance.phase, self.running) {
            (Phase::Running, None) => {
                self.running = Some(Instant::now());
                let seconds = self.began.elapsed().as_secs();
                self.news.push_back(News::Progress(format!(
                    "Instance running after {seconds} s"
                )));
                self.news.push_back(News::Running);
            }
            (Phase::Running, Some(since))
                if !self.addressed && since.elapsed() >= ADDRESS_LIMIT =>
            {
                self.stuck(self.unaddressed());
            }
            (Phase::Running, Some(_)) => {}
            _ if self.is_waited_for() => self.wait_on(),
            _ => {}
        }
        Ok(())
    }

    /// Goes on waiting for one that is pending, as long as its rung may be waited for.
    fn wait_on(&mut self) {
        let limit = humantime::format_duration(self.rung_wait);
        if self.began.elapsed() >= self.rung_wait {
            let cause = format!("the instance still waited to be started (pending) after {limit}");
            let verdict = classify::no_room(Action::CreateFleet, cause);
            let over = false;
            self.news.push_back(News::NoRoom { verdict, over });
            self.next_poll = Instant::now() + SPARSE;
        } else if self.told.elapsed() >= STILL {
            self.told = Instant::now();
            let seconds = self.began.elapsed().as_secs();
            let line = format!(
                "The instance is still pending after {seconds} s; EC2 has {limit} to start it..."
            );
            self.news.push_back(News::Progress(line));
        }
    }

    /// Gives up on one that comes no further.
    fn stuck(&mut self, error: Error) {
        self.news.push_back(News::Stuck(error));
        self.next_poll = Instant::now() + SPARSE;
    }

    /// Tells of an instance that ended on its way: another rung's turn where AWS took it back or never had room.
    fn ended(&mut self, verdict: &Verdict) -> Result<()> {
        if verdict.why.hands_over() {
            // One that was stopped rather than ended is still there.
            self.news.push_back(News::NoRoom {
                verdict: verdict.clone(),
                over: false,
            });
            return Ok(());
        }
        let what = "the instance ended before anybody could log in";
        self.news.push_back(failed(verdict, what)?);
        Ok(())
    }

    fn machine(&self, host: String) -> Machine {
        Machine {
            place: Place::Ec2(self.place.clone()),
            endpoints: vec![Endpoint {
                roles: vec![Role::Build, Role::Helper],
                host,
                port: self.login.port,
                user: self.login.user.clone(),
                // The one that was sent along: the first contact is verified already.
                host_key: Some(self.host_key.clone()),
                inside: None,
                far_side: FarSide::Login,
                socket: None,
            }],
        }
    }

    fn unaddressed(&self) -> Error {
        let (what, hint) = match self.dial {
            Dial::Private => (
                "private",
                "See the instance's network interface in the EC2 console.",
            ),
            Dial::Public => (
                "public",
                "Set `public_ip = true` under [ec2] (or let `launch_template` ask for one), or dial the private address: \
                 `use_public_ip = false`.",
            ),
            Dial::Ipv6 => (
                "IPv6",
                "Give the subnets under [ec2] an IPv6 block, or set `use_ipv6 = false`.",
            ),
        };
        Error::new(
            Kind::Launch,
            format!(
                "the instance {} runs but has no {what} address",
                self.instance()
            ),
        )
        .hint(hint)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::ec2::api::request::tests::request;
    use crate::machine::access::Access;
    use crate::machine::instance::Market;
    use crate::state::Store;
    use crate::ui::Ui;

    const RUNG_WAIT: Duration = Duration::from_secs(300);

    /// An instance that CreateFleet has just named; nobody is asked for it here.
    async fn coming() -> Coming {
        coming_for(request()).await
    }

    async fn coming_for(request: InstanceRequest) -> Coming {
        let folder = tempfile::tempdir().unwrap();
        let shared = Store::new(folder.path().to_owned()).shared();
        let access = Access {
            region: Some("eu-west-1".into()),
            role: None,
        };
        let api = Api::new(&access, None::<Ui>, &shared).await;
        let login = Login {
            user: "root".into(),
            port: 22,
        };
        Coming::new(api, &request, "i-1".into(), login, RUNG_WAIT)
    }

    fn is_given_up(coming: &Coming) -> bool {
        let mut news = coming.news.iter();
        news.any(|n| matches!(n, News::NoRoom { .. }))
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_known_three_times_in_a_row_is_gone() {
        let mut coming = coming().await;
        for _ in 0..2 {
            coming.look_at(&Instance::default()).unwrap();
            for _ in 0..2 {
                coming.look_in_vain().unwrap();
            }
        }
        assert!(!is_given_up(&coming));
        coming.look_in_vain().unwrap();
        assert!(is_given_up(&coming));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_never_known_is_waited_for() {
        let mut coming = coming().await;
        for _ in 0..5 {
            coming.look_in_vain().unwrap();
        }
        assert!(!is_given_up(&coming));
        tokio::time::advance(MISSING_LIMIT).await;
        coming.look_in_vain().unwrap();
        assert!(is_given_up(&coming));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_pending_is_told_every_minute_and_its_rung_is_left_in_time() {
        let mut coming = coming().await;
        let pending = Instance::default();
        let mut told = 0;
        for _ in 0..29 {
            tokio::time::advance(Duration::from_secs(10)).await;
            coming.look_at(&pending).unwrap();
            let news = coming.news.drain(..);
            told += news
                .filter(|n| matches!(n, News::Progress(line) if line.contains("still pending")))
                .count();
        }
        assert_eq!(told, 4);
        // The rung's time does not wait for the next poll.
        tokio::time::advance(Duration::from_secs(5)).await;
        coming.polls = POLLS.len();
        coming.schedule();
        assert_eq!(coming.next_poll, coming.began + RUNG_WAIT);
        tokio::time::advance(Duration::from_secs(5)).await;
        coming.look_at(&pending).unwrap();
        let news = coming.news.pop_front();
        let Some(News::NoRoom {
            verdict,
            over: false,
        }) = news
        else {
            panic!("{news:?}");
        };
        assert_eq!(
            verdict.cause,
            "the instance still waited to be started (pending) after 5m"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_lets_in_while_ec2_still_calls_it_pending_is_not_given_up() {
        let mut coming = coming().await;
        coming.entered();
        tokio::time::advance(2 * RUNG_WAIT).await;
        coming.look_at(&Instance::default()).unwrap();
        coming.schedule();
        assert!(!is_given_up(&coming));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gets_no_address_or_is_not_there_is_another_rungs_turn() {
        let public = InstanceRequest {
            dial: Dial::Public,
            ..request()
        };
        let mut coming = coming_for(public).await;
        let running = Instance {
            phase: Phase::Running,
            ..Instance::default()
        };
        coming.look_at(&running).unwrap();
        tokio::time::advance(ADDRESS_LIMIT).await;
        coming.look_at(&running).unwrap();
        assert_stuck(&coming, "runs but has no public address");

        let on_demand = InstanceRequest {
            market: Market::OnDemand,
            ..request()
        };
        let mut coming = coming_for(on_demand).await;
        tokio::time::advance(MISSING_LIMIT).await;
        for _ in 0..3 {
            coming.look_in_vain().unwrap();
        }
        assert_stuck(&coming, "the instance was not there");
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
