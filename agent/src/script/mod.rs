//! The far side of a script: starts it once, keeps its output until it was received, ends it on demand. See docs/protocol.md.
//!
//! [`serve`] is what a channel does; [`Scripts`] is what outlives all channels.

mod copier;
mod ending;
mod follow;
mod inbox;
mod memory;
mod place;
mod request;
mod run;
mod serve;
mod session;
pub(crate) mod shells;
mod spool;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Settings;
use crate::agent::Agent;
use crate::signals::Commands;
use ending::{Survivors, Verdict};
use place::NoPlace;
use request::Name;
use run::{Plan, Script};
use tokio::task::JoinHandle;

pub(crate) use serve::serve;

/// The subsystem's name.
pub(crate) const NAME: &str = "gad-script";

/// How many names of forgotten scripts are kept, so that none of them runs twice.
const FORGOTTEN: usize = 1024;

/// The scripts that were started and are not forgotten.
#[derive(Debug)]
pub(crate) struct Scripts {
    table: Mutex<Table>,
    leader: Vec<OsString>,
    commands: Commands,
    tags: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    started: HashMap<Name, Arc<Script>>,
    forgotten: VecDeque<Name>,
}

/// What is known of a name.
enum Known {
    /// It was started.
    Script(Arc<Script>),
    /// It was started and forgotten.
    Forgotten,
    /// It was never started.
    Never,
}

impl Scripts {
    pub(crate) fn new(settings: &Settings, commands: Commands) -> Self {
        Self {
            table: Mutex::default(),
            leader: settings.leader.clone(),
            commands,
            tags: AtomicU64::new(0),
        }
    }

    /// Forgets all scripts, so that nothing of them stays when the agent ends. Their processes go on.
    pub(crate) fn forget_all(&self) {
        let started = std::mem::take(&mut self.table().started);
        for script in started.values() {
            script.forget();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What makes a process the leader of a session.
    fn leader(&self) -> &[OsString] {
        &self.leader
    }

    /// Returns a number that no other start has.
    fn next_tag(&self) -> u64 {
        self.tags.fetch_add(1, Ordering::Relaxed)
    }

    fn find(&self, name: &Name) -> Known {
        let table = self.table();
        match table.started.get(name) {
            Some(script) => Known::Script(Arc::clone(script)),
            None if table.forgotten.contains(name) => Known::Forgotten,
            None => Known::Never,
        }
    }

    /// Returns the job's scripts of other runs.
    fn others(&self, name: &Name) -> Vec<Arc<Script>> {
        let table = self.table();
        table
            .started
            .values()
            .filter(|script| script.name.key == name.key && script.name != *name)
            .map(Arc::clone)
            .collect()
    }

    /// Starts a script whose name is not known. Nothing waits here, so no other start comes in between.
    fn start(&self, agent: &Agent, plan: Plan) -> Result<Arc<Script>, NoPlace> {
        let script = Script::start(agent, &self.commands, plan)?;
        let name = script.name.clone();
        self.table().started.insert(name, Arc::clone(&script));
        Ok(script)
    }

    /// Waits for a script's ending, if there is one, and then removes all traces but its name, whether or not anybody
    /// waits for the answer: the processes that are left.
    ///
    /// The stage is over when its processes are: the next one must not run beside them.
    fn forget_after(
        agent: &Arc<Agent>,
        script: &Arc<Script>,
        ending: Option<Verdict>,
    ) -> JoinHandle<Survivors> {
        let (agent, script) = (Arc::clone(agent), Arc::clone(script));
        tokio::spawn(async move {
            let survivors = match ending {
                Some(mut verdict) => verdict.wait().await,
                None => Survivors::default(),
            };
            agent.scripts.forget(&script);
            survivors
        })
    }

    /// Removes all traces of a script but its name.
    fn forget(&self, script: &Script) {
        script.forget();
        let mut table = self.table();
        if table.started.remove(&script.name).is_some() {
            if table.forgotten.len() >= FORGOTTEN {
                table.forgotten.pop_front();
            }
            table.forgotten.push_back(script.name.clone());
        }
    }
}
