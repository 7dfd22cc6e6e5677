//! Launching: what a request is completed by, what comes of it, and what a refused one takes back.

use std::time::Duration;

use super::Coming;
use super::Refused;
use super::aws::Aws;
use super::ec2;
use super::fargate;
use super::fargate::coming::ComingUp;
use super::local;
use crate::machine::instance::InstanceRequest;
use crate::machine::verdict::Verdict;
use crate::machine::{Login, Request};
use crate::state::record::now;
use crate::state::{Job, Store};
use crate::ui::Ui;

/// What came of a launch.
#[derive(Debug)]
pub enum Launched {
    /// Something is on its way.
    Coming(Coming),
    /// The rung has no room now, in the cloud's words.
    NoRoom(Verdict),
    /// The cloud names neither a machine nor why there is none: something may have been started all the same.
    Neither(Verdict),
    /// The rung cannot be used at all, in the cloud's words.
    Unusable(Verdict),
    /// Nothing was started because the role may not tag, in the cloud's words.
    Untaggable(String),
}

/// What became of a request before it is written down.
#[derive(Debug)]
pub enum Settled {
    /// It is as it is to be sent.
    Ready(Request),
    /// There is no room for it, as is known without asking for it.
    NoRoom(Verdict),
}

/// Completes a request by what has to be looked up first.
///
/// # Errors
/// Where what it names does not exist, or AWS does not say.
pub async fn settle(request: Request, store: &Store, ui: Ui) -> Result<Settled, Refused> {
    match request {
        Request::Local(_) => Ok(Settled::Ready(request)),
        Request::Ecs(mut request) => {
            request.asked = now();
            Ok(Settled::Ready(Request::Ecs(request)))
        }
        Request::Ec2(request) => settle_instance(*request, store, ui).await,
    }
}

#[cfg(feature = "ec2")]
async fn settle_instance(
    request: InstanceRequest,
    store: &Store,
    ui: Ui,
) -> Result<Settled, Refused> {
    let aws = Aws::new(&request.access, Some(ui), &store.shared()).await;
    Ok(match ec2::settle::settle(&aws, request, store).await? {
        ec2::settle::Settled::Ready(request) => Settled::Ready(Request::Ec2(request)),
        ec2::settle::Settled::NoRoom(verdict) => Settled::NoRoom(verdict),
    })
}

#[cfg(not(feature = "ec2"))]
async fn settle_instance(
    _request: InstanceRequest,
    _store: &Store,
    _ui: Ui,
) -> Result<Settled, Refused> {
    Err(ec2::refused().into())
}

/// Sends a request.
///
/// # Errors
/// Where nothing can be started by it.
pub async fn launch(
    request: &Request,
    job: &Job,
    login: &Login,
    rung_wait: Duration,
    store: &Store,
    ui: Ui,
) -> Result<Launched, Refused> {
    match request {
        Request::Local(request) => match local::launch(request, job).await {
            Ok(machine) => Ok(Launched::Coming(Coming::Local {
                machine: Box::new(machine),
                told: 0,
                shared: store.shared(),
            })),
            Err(error) => Err(Refused {
                error,
                unanswered: true,
                hopeless: false,
            }),
        },
        Request::Ecs(request) => {
            use fargate::launch::Launched as Answer;
            let aws = Aws::new(&request.access, Some(ui), &store.shared()).await;
            Ok(match fargate::launch::launch(&aws, request).await? {
                Answer::Task(arn) => {
                    let coming = ComingUp::new(aws, request, arn, login.clone(), rung_wait);
                    Launched::Coming(Coming::Ecs(Box::new(coming)))
                }
                Answer::NoRoom(verdict) => Launched::NoRoom(verdict),
                Answer::Neither(verdict) => Launched::Neither(verdict),
                Answer::Unusable(verdict) => Launched::Unusable(verdict),
                Answer::Untaggable(verdict) => Launched::Untaggable(verdict.cause),
            })
        }
        Request::Ec2(request) => launch_instance(request, login, rung_wait, store, ui).await,
    }
}

#[cfg(feature = "ec2")]
async fn launch_instance(
    request: &InstanceRequest,
    login: &Login,
    rung_wait: Duration,
    store: &Store,
    ui: Ui,
) -> Result<Launched, Refused> {
    use ec2::launch::Launched as Answer;
    let aws = Aws::new(&request.access, Some(ui), &store.shared()).await;
    Ok(match ec2::launch::launch(&aws, request, store).await? {
        Answer::Instance(id, surplus) => {
            for other in surplus {
                if let Err(error) = ec2::end::terminate(&aws, &other).await {
                    ui.warn(&format!("{error}; `reap` will try again"));
                }
            }
            let coming = ec2::coming::ComingUp::new(aws, request, id, login.clone(), rung_wait);
            Launched::Coming(Coming::Ec2(Box::new(coming)))
        }
        Answer::NoRoom(verdict) => Launched::NoRoom(verdict),
        Answer::Neither(verdict) => Launched::Neither(verdict),
    })
}

#[cfg(not(feature = "ec2"))]
async fn launch_instance(
    _request: &InstanceRequest,
    _login: &Login,
    _rung_wait: Duration,
    _store: &Store,
    _ui: Ui,
) -> Result<Launched, Refused> {
    Err(ec2::refused().into())
}

/// Takes back what a request has left beside a machine, after it was refused for good and that was written down.
pub async fn withdraw(request: &Request, store: &Store, ui: Ui) {
    match request {
        // Nothing is made for them.
        Request::Local(_) | Request::Ecs(_) => {}
        Request::Ec2(request) => withdraw_template(request, store, ui).await,
    }
}

#[cfg(feature = "ec2")]
async fn withdraw_template(request: &InstanceRequest, store: &Store, ui: Ui) {
    let aws = Aws::new(&request.access, Some(ui), &store.shared()).await;
    ec2::made::withdraw(&aws, request, store).await;
}

#[cfg(not(feature = "ec2"))]
#[expect(clippy::unused_async, reason = "this build makes no template")]
async fn withdraw_template(_request: &InstanceRequest, _store: &Store, _ui: Ui) {}
