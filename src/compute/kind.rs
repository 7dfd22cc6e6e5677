//! The face of a kind of machine: what each kind answers, and what the answers are.
//!
//! A trait, since its list of functions is what the compiler compares a new folder with; what stages hold is an enum,
//! made from the one list of kinds in `compute`, since what the state directory keeps has to be closed data.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::{Error, Kind};
use crate::machine::verdict::Verdict;
use crate::machine::{Login, Machine};
use crate::runner::containers::Secret;
use crate::state::shared::Shared;
use crate::state::{Job, Store};
use crate::ui::Ui;

/// A kind of machine.
pub trait MachineKind {
    /// The exact request of one launch, as the intent keeps it.
    type Request;
    /// What a machine is, as the record keeps it.
    type Place;
    /// A machine on its way up.
    type Coming: ComingUp;

    /// Whether this build can launch it. What another build has launched may have to be ended all the same.
    const HERE: bool = true;

    /// Completes a request by what has to be looked up before it is written down.
    ///
    /// # Errors
    /// Where what it names does not exist, or nobody says.
    fn settle(
        request: &mut Self::Request,
        store: &Store,
        ui: Ui,
    ) -> impl Future<Output = Result<Settled, Refused>>;

    /// Sends a request.
    ///
    /// # Errors
    /// Where nothing can be started by it.
    fn launch(
        request: &Self::Request,
        job: &Job,
        login: &Login,
        rung_wait: Duration,
        store: &Store,
        ui: Ui,
    ) -> impl Future<Output = Result<Launched<Self::Coming>, Refused>>;

    /// Takes back what a request has left beside a machine, after it was refused for good and that was written down.
    fn withdraw(request: &Self::Request, store: &Store, ui: Ui) -> impl Future<Output = ()>;

    /// Ends whatever a request may have started: what has the name that its answer gave, or without an answer whatever
    /// there is.
    ///
    /// # Errors
    /// Where something of it is left alive.
    fn end_launch(
        request: &Self::Request,
        name: Option<&str>,
        reason: &str,
        shared: &Shared,
        ui: Ui,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Ends a machine.
    ///
    /// # Errors
    /// Where something of it is left alive.
    fn end_machine(
        place: &Self::Place,
        reason: &str,
        shared: &Shared,
        ui: Ui,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Resolves, with the reason, when a machine is gone. `lost` is told when a connection to it was lost.
    fn gone(place: &Self::Place, lost: &Notify, shared: &Shared) -> impl Future<Output = Error>;

    /// Asks for what logs in to ECR's registries of one region, as the role that launched the machine.
    ///
    /// # Errors
    /// What ECR says; [`Kind::NotYet`] where no machine of this kind pulls images by itself.
    fn registry_token(
        _place: &Self::Place,
        _region: &str,
        _shared: &Shared,
        _ui: Ui,
    ) -> impl Future<Output = Result<Secret, Error>> {
        std::future::ready(Err(Error::new(
            Kind::NotYet,
            "only instances pull images by the driver's role",
        )))
    }
}

/// A machine on its way up.
pub trait ComingUp {
    /// What a login has to be admitted by.
    type Admission: Admits;

    /// Returns the name that the cloud gave it, if it gave one.
    fn name(&self) -> Option<&str>;

    /// Hands out what each login has to be admitted by, where the machine does not know the job's key by itself; once.
    fn admission(&mut self) -> Option<Self::Admission>;

    /// Notes that somebody is in: from now on the machine is no longer waited for, but only watched.
    fn entered(&mut self);

    /// Waits for what happens next. Cancel-safe: a look that was given up is made again.
    ///
    /// # Errors
    /// Where the machine will never be there.
    fn next(&mut self) -> impl Future<Output = Result<News, Error>>;
}

/// What a machine has to be asked for before a login, where it does not know the job's key by itself.
pub trait Admits {
    /// Has the machine take the job's key for a login that comes now; `refused`: it did not the last time.
    ///
    /// # Errors
    /// Where the cloud does not admit it.
    fn renew(&mut self, refused: bool) -> impl Future<Output = Result<(), Refused>>;
}

/// Of a kind whose machines know the job's key by themselves.
impl Admits for Infallible {
    async fn renew(&mut self, _refused: bool) -> Result<(), Refused> {
        match *self {}
    }
}

/// What became of a request before it is written down.
#[derive(Debug)]
pub enum Settled {
    /// It is as it is to be sent.
    Ready,
    /// There is no room for it, as is known without asking for it.
    NoRoom(Verdict),
}

/// What came of a launch.
#[derive(Debug)]
pub enum Launched<T> {
    /// Something is on its way.
    Coming(T),
    /// The rung has no room now, in the cloud's words.
    NoRoom(Verdict),
    /// The cloud names neither a machine nor why there is none: something may have been started all the same.
    Neither(Verdict),
    /// The rung cannot be used at all, in the cloud's words.
    Unusable(Verdict),
    /// Nothing was started because the role may not tag, in the cloud's words.
    Untaggable(String),
}

impl<T> Launched<T> {
    /// Makes something else of what is on its way.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Launched<U> {
        match self {
            Self::Coming(coming) => Launched::Coming(make(coming)),
            Self::NoRoom(verdict) => Launched::NoRoom(verdict),
            Self::Neither(verdict) => Launched::Neither(verdict),
            Self::Unusable(verdict) => Launched::Unusable(verdict),
            Self::Untaggable(cause) => Launched::Untaggable(cause),
        }
    }
}

/// Why there is no machine, or none that is known.
#[derive(Debug)]
pub struct Refused {
    /// What to tell.
    pub error: Error,
    /// Whether something may have been started all the same.
    pub unanswered: bool,
    /// Whether no further try of the job can fare better.
    pub hopeless: bool,
}

impl From<Error> for Refused {
    /// Nothing was sent, and nothing will be.
    fn from(error: Error) -> Self {
        Self {
            error,
            unanswered: false,
            hopeless: true,
        }
    }
}

/// What happens on the way.
#[derive(Debug)]
pub enum News {
    /// A line for the job log.
    Progress(String),
    /// It has an address: connecting makes sense.
    Reachable(Machine),
    /// It runs: its SSH server should answer soon.
    Running,
    /// It will not come, or not soon, for want of room: another rung's turn.
    NoRoom {
        /// In the cloud's words, with what helps.
        verdict: Verdict,
        /// Whether nothing is left of it; else what there is has to be ended.
        over: bool,
    },
    /// It comes no further, or nobody can reach it, and not for want of room: another rung's turn, where there is one.
    Stuck(Error),
    /// It will not come, and no further try of the job can fare better.
    Hopeless(Error),
}
