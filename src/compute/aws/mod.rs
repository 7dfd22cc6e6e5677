//! Calls to AWS: clients, the assumed role, and the only retries that there are.
//!
//! The SDK's own retries are off: it would repeat a capacity error by itself, and multiply ours. Throttles and calls
//! without an answer are repeated here, with jitter, for as long as the caller has time; RunTask carries a client token, so
//! that a repeated call starts nothing twice.

pub mod classify;
mod date;
mod limits;
pub mod metadata;
pub(in crate::compute) mod poller;
mod proxy;
mod trust;
mod unanswered;

use std::error::Error as StdError;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecs::config::{SharedCredentialsProvider, SharedHttpClient};
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, sleep};

use crate::error::one_line;
use crate::machine::access::Access;
use crate::machine::verdict::{Verdict, Why};
use crate::state::shared::Shared;
use crate::ui::Ui;
use classify::Action;
use date::AwsDate;
use proxy::Target;
use trust::Bundle;
use unanswered::Barrier;

/// One TCP and TLS connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// One call, from the first byte to the last.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// For how long a call is repeated that has reached nobody so far: a wrong region or a host without a way out is not mended by
/// waiting, while a throttle is.
const REACH_LIMIT: Duration = Duration::from_secs(40);
/// What the SDK's layers say before the cause, in that order; it helps nobody who reads a job log.
const SDK_WORDS: [&str; 4] = [
    "dispatch failure: ",
    "io error: ",
    "other: ",
    "client error (Connect): ",
];
/// Reads lag writes: what may be young is believed not to be there once that many answers more say so, with these pauses
/// between them.
pub(in crate::compute) const LAG: [Duration; 3] = [
    Duration::from_millis(700),
    Duration::from_secs(2),
    Duration::from_secs(3),
];
/// How much of an answer that is none of AWS's is shown, in characters.
const PAGE_SHOWN: usize = 200;
/// A wait for AWS that is over sooner needs no line in the job log.
const TELL_WAIT: Duration = Duration::from_secs(5);

/// The way to AWS for one role and region.
#[derive(Clone, Debug)]
pub struct Aws {
    pub(in crate::compute) ecs: aws_sdk_ecs::Client,
    /// What clients of other services are made from; each of them takes `target`, and `date` where its answers tell the time.
    pub config: SdkConfig,
    /// AWS's own clock.
    pub(in crate::compute) date: AwsDate,
    /// Where calls go, for a proxy to be asked.
    pub(in crate::compute) target: Target,
    /// Whom calls believe in place of this host's own authorities.
    bundle: Option<Bundle>,
    /// Why no call can be made at all.
    barred: Option<Verdict>,
    /// Where long waits are told.
    ui: Option<Ui>,
    /// What this host's other jobs do.
    shared: Shared,
    /// Whose limits calls count against: account and region, as far as they are known.
    account: String,
    /// As whom calls are made, and where; session tags left aside, which may be each job's own.
    identity: String,
}

/// Why a call came to nothing.
#[derive(Clone, Debug)]
pub(in crate::compute) struct Failure {
    /// What AWS said, or why it could say nothing, and what to do.
    pub(in crate::compute) verdict: Verdict,
    /// Whether the call may have taken effect all the same.
    pub(in crate::compute) unanswered: bool,
    /// What was refused: the call itself, or the role for it.
    action: Action,
    /// Whether there was a connection at all.
    reached: bool,
    /// For how long the call is repeated at most, whatever the caller's time.
    within: Option<Duration>,
    /// Whether it was the tags alone that were refused.
    pub(in crate::compute) tags_refused: bool,
}

impl Aws {
    /// Makes the clients; AWS is not called yet.
    pub async fn new(access: &Access, ui: Option<Ui>, shared: &Shared) -> Self {
        let (bundle, barred) = match Bundle::read().await {
            Ok(bundle) => (bundle, None),
            Err(verdict) => (None, Some(verdict)),
        };
        let (client, barred) = match bundle.as_ref().map(Bundle::client) {
            None => (None, barred),
            Some(Ok(client)) => (Some(client), barred),
            Some(Err(verdict)) => (None, Some(verdict)),
        };
        let config = config(access, client).await;
        let region = config.region().map(Region::as_ref);
        let barred = barred.or_else(|| unanswered::no_region(region));
        let (date, target) = (AwsDate::default(), Target::default());
        Self {
            ecs: aws_sdk_ecs::Client::from_conf(
                aws_sdk_ecs::config::Builder::from(&config)
                    .interceptor(date.clone())
                    .interceptor(target.clone())
                    .build(),
            ),
            date,
            target,
            bundle,
            barred,
            ui,
            shared: shared.clone(),
            account: access.account(region),
            identity: format!("{} {}", region.unwrap_or_default(), access.key()),
            config,
        }
    }

    /// Returns by how many seconds this host's clock is ahead of AWS's; nothing while no answer has said a time.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        self.date.ahead()
    }

    /// Makes a call, again and again while AWS throttles it or does not answer, for as long as the limit.
    pub(in crate::compute) async fn call<T, E>(
        &self,
        action: Action,
        limit: Duration,
        call: impl AsyncFn() -> Result<T, SdkError<E>>,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        // Nothing of this process changes it.
        if let Some(verdict) = &self.barred {
            return Err(unanswered::never_sent(verdict, action));
        }
        let mut told = false;
        self.wait_turn(action, &mut told).await;
        let began = Instant::now();
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(300))
            .with_max_delay(Duration::from_secs(5))
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build();
        // An earlier call without an answer may have taken effect whatever a later one says.
        let mut unanswered = false;
        let mut reached = false;
        loop {
            let (failure, again) = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => read(action, &error, self.bundle.as_ref()),
            };
            let (failure, again) = self.ask_proxy(failure, again).await;
            unanswered |= failure.unanswered;
            reached |= failure.reached;
            let limit = match reached {
                true => limit,
                false => limit.min(REACH_LIMIT),
            };
            let limit = failure.within.map_or(limit, |within| limit.min(within));
            let failure = Failure {
                unanswered,
                ..failure
            };
            if failure.verdict.why == Why::Throttled {
                self.drain(failure.action).await;
            }
            let pause = pauses.next().unwrap_or(CALL_LIMIT);
            tracing::debug!(
                action = action.name(),
                cause = failure.verdict.cause,
                again,
                "the call failed"
            );
            if !again || began.elapsed() + pause > limit {
                return Err(failure);
            }
            if let Some(ui) = self.ui
                && !told
                && began.elapsed() + pause > TELL_WAIT
            {
                told = true;
                ui.progress(&format!(
                    "Waiting for AWS to take {}: {}",
                    failure.action.name(),
                    failure.verdict.cause
                ));
            }
            sleep(pause).await;
            self.wait_turn(action, &mut told).await;
        }
    }

    /// Has a proxy that made no tunnel say why, where it does: whether that stays so decides whether the call is made again.
    async fn ask_proxy(&self, failure: Failure, again: bool) -> (Failure, bool) {
        if failure.within.is_none() {
            return (failure, again);
        }
        let said = self.target.ask().await;
        match said.and_then(|(status, said)| unanswered::of_answer(status, &said)) {
            None => (failure, again),
            Some(Barrier { verdict, .. }) => {
                let again = verdict.why.repeats_call();
                let failure = Failure {
                    verdict,
                    within: None,
                    ..failure
                };
                (failure, again)
            }
        }
    }

    /// Waits until AWS takes one more call, as far as the jobs of this host are concerned.
    async fn wait_turn(&self, action: Action, told: &mut bool) {
        let mut wait = Duration::ZERO;
        for bucket in limits::of(action.name()) {
            wait = wait.max(self.shared.take(&self.account, &bucket).await);
        }
        if wait > TELL_WAIT
            && !*told
            && let Some(ui) = self.ui
        {
            *told = true;
            ui.progress(&format!(
                "Waiting for {} until {} has its turn: other jobs of this host use up what AWS takes.",
                humantime::format_duration(Duration::from_secs(wait.as_secs())),
                action.name(),
            ));
        }
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    /// Has all jobs of this host hold back.
    async fn drain(&self, action: Action) {
        for bucket in limits::of(action.name()) {
            self.shared.drain(&self.account, &bucket).await;
        }
    }

    /// Waits until one more poll is due.
    async fn pace(&self) {
        let wait = self.shared.take(&self.account, &limits::POLLS).await;
        sleep(wait).await;
    }
}

async fn config(access: &Access, client: Option<SharedHttpClient>) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_attempt_timeout(CALL_LIMIT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(region) = &access.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(client) = client {
        loader = loader.http_client(client);
    }
    let config = loader.load().await;
    let Some(role) = &access.role else {
        return config;
    };
    let mut provider = AssumeRoleProvider::builder(role.arn.clone())
        .session_name(role.session_name.clone())
        .configure(&config);
    if !role.tags.is_empty() {
        provider = provider.tags(role.tags.clone());
    }
    let provider = SharedCredentialsProvider::new(provider.build().await);
    config.into_builder().credentials_provider(provider).build()
}

/// Reads an error: what it means, and whether the same call may fare better.
fn read<E>(action: Action, error: &SdkError<E>, bundle: Option<&Bundle>) -> (Failure, bool)
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    if let SdkError::ServiceError(context) = error {
        let raw = context.raw();
        let status = raw.status();
        // Without a code it is no answer of the service's at all: a proxy's page, or a server that broke down.
        if context.err().code().is_none_or(str::is_empty) {
            return strange(
                action,
                status.as_u16(),
                raw.body().bytes().unwrap_or_default(),
            );
        }
        return answered(action, context.err(), status.is_server_error());
    }
    if let SdkError::ResponseError(context) = error {
        let raw = context.raw();
        let body = raw.body().bytes().unwrap_or_default();
        return strange(action, raw.status().as_u16(), body);
    }
    if let Some(refused) = assume_role_error(error) {
        let (failure, again) = answered(Action::AssumeRole, refused, false);
        // The call itself was never made.
        let unanswered = false;
        return (
            Failure {
                unanswered,
                ..failure
            },
            again,
        );
    }
    // hyper's words for all that goes wrong before a request is sent: names, routes, refusals, TLS.
    let reached = !is_or_has(error, "client error (Connect)");
    let text = chain(error);
    if let Some(barrier) = Barrier::find(error, &text, bundle) {
        let again = barrier.repeated.is_some();
        let failure = Failure {
            verdict: barrier.verdict,
            unanswered: reached,
            action,
            reached: false,
            within: barrier.repeated,
            tags_refused: false,
        };
        return (failure, again);
    }
    let verdict = match reached {
        true => classify::no_answer(action, &text),
        false => unanswered::with_proxies(classify::no_answer(action, &text)),
    };
    let again = verdict.why.repeats_call();
    let failure = Failure {
        unanswered: again && reached,
        action,
        reached,
        within: None,
        tags_refused: false,
        verdict,
    };
    (failure, again)
}

/// Reads an answer that is none of AWS's. It may have been given in place of AWS's own, after the work was done.
fn strange(action: Action, status: u16, body: &[u8]) -> (Failure, bool) {
    let page = one_line(&String::from_utf8_lossy(body));
    let shown: String = page.chars().take(PAGE_SHOWN).collect();
    let text = match shown.as_str() {
        "" => format!("HTTP {status} with nothing else in the answer"),
        shown => format!("HTTP {status} with an answer that is not AWS's: {shown}"),
    };
    let verdict = match Barrier::of_page(status, &text) {
        Some(barrier) => barrier.verdict,
        None => classify::no_answer(action, &text),
    };
    let again = verdict.why.repeats_call();
    let failure = Failure {
        unanswered: true,
        action,
        // A server in trouble may recover.
        reached: status >= 500,
        within: None,
        tags_refused: false,
        verdict,
    };
    (failure, again)
}

fn answered(action: Action, error: &impl ProvideErrorMetadata, broken: bool) -> (Failure, bool) {
    let (code, message) = (
        error.code().unwrap_or_default(),
        error.message().unwrap_or_default(),
    );
    let verdict = classify::service_error(action, code, message);
    let again = verdict.why.repeats_call();
    let failure = Failure {
        // A server that broke down may have done the work before.
        unanswered: broken && verdict.why == Why::Outage,
        action,
        reached: true,
        within: None,
        tags_refused: classify::tags_refused(code, message),
        verdict,
    };
    (failure, again)
}

/// Finds STS's refusal below the failure to get credentials.
fn assume_role_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e AssumeRoleError> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(denied) = error.downcast_ref::<AssumeRoleError>() {
            return Some(denied);
        }
        at = error.source();
    }
    None
}

fn is_or_has(error: &dyn StdError, words: &str) -> bool {
    let source = error.source();
    error.to_string().contains(words) || source.is_some_and(|source| is_or_has(source, words))
}

/// Writes an error and its causes on one line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let next = cause.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        at = cause.source();
    }
    let text = one_line(&text);
    let bare = SDK_WORDS.iter().fold(text.as_str(), |text, words| {
        text.strip_prefix(words).unwrap_or(text)
    });
    bare.to_owned()
}
