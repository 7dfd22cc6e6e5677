//! By which names this bastion's own are known: the one that is bound to it, and the one that the file says while its lease is
//! held here.

use super::Reaper;
use super::waits::told;
use crate::compute::ec2;
use crate::compute::ec2::instance::Phase;
use crate::error::Result;
use crate::machine::access::Access;
use crate::state::deadline::Clock;
use crate::state::lease::{Held, Holder, TERM};
use crate::state::manager::Bastion;

/// Who this is.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The bastion; none where there is no state directory.
    pub(super) bastion: Option<Bastion>,
    /// The names of what it may have launched.
    pub(super) own: Vec<String>,
    /// Bastions that are proven dead.
    pub(super) dead: Vec<String>,
}

impl Reaper<'_> {
    /// Finds out who this is. To look is no reason to draw a name; whoever has none has started nothing.
    pub(super) async fn find_names(&mut self) -> Names {
        let what = "the metadata of this host's instance";
        let host = told(self.ui, what, self.metadata.this_host()).await;
        let bastion = match self.settings.manager {
            Some(_) if !self.report.dry_run => self.store.make_bastion(&host).map(Some),
            _ => self.store.bastion(&host),
        };
        let mut names = Names::default();
        match bastion {
            Ok(Some(bastion)) => {
                // What cannot be read says nothing of all else that there is to do.
                match self.store.known_manager(&bastion) {
                    Ok(name) => names.own.extend(name),
                    Err(error) => self.problem(&error),
                }
                match self.lease(&bastion).await {
                    Ok(Some((name, dead))) => {
                        names.own.push(name);
                        names.dead = dead;
                    }
                    Ok(None) => {}
                    Err(error) => self.problem(&error),
                }
                names.bastion = Some(bastion);
            }
            Ok(None) => {}
            Err(error) => self.problem(&error),
        }
        names
    }

    /// Returns the name that the file says, and who held it before and is dead, where its lease is held here.
    async fn lease(&mut self, bastion: &Bastion) -> Result<Option<(String, Vec<String>)>> {
        let Some(name) = self.settings.manager.clone() else {
            return Ok(None);
        };
        let held = match self.report.dry_run {
            true => match self.store.lease_of(bastion)? {
                Some(held) => held,
                None => return Ok(None),
            },
            false => self.store.watch_lease(bastion, Clock::look())?,
        };
        let held = match held {
            Held::There(holder) if !self.report.dry_run && self.is_dead(&holder).await => {
                self.store.take_lease(bastion, &holder)?
            }
            held => held,
        };
        match held {
            Held::Here(former) => Ok(Some((name, former))),
            Held::There(holder) => {
                let who = holder.instance.as_deref().unwrap_or("another host");
                self.leave_alone(&format!(
                    "nothing is ended by the name {name} ([state] manager): {who} holds it, and is not proven dead"
                ));
                Ok(None)
            }
        }
    }

    /// Whether a holder is proven dead. That EC2 does not know an instance proves nothing: it may be another account's.
    async fn is_dead(&mut self, holder: &Holder) -> bool {
        if let Some(instance) = &holder.instance {
            let what = format!("EC2 to say whether the holder of the name, {instance}, lives");
            let phase = told(self.ui, &what, async {
                let shared = self.store.shared();
                match ec2::Api::open(&Access::default(), self.ui, &shared).await {
                    Some(api) => api.phase_of(instance).await,
                    None => Ok(None),
                }
            });
            match phase.await {
                Ok(Some(phase)) => return matches!(phase, Phase::Ending | Phase::Over),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "its lease has to stand still"),
            }
        }
        holder.still.is_some_and(|still| still >= TERM)
    }
}
