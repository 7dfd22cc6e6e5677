//! A machine of this host on its way up: it is there as soon as it is launched.

use std::convert::Infallible;

use super::gone;
use crate::compute::kind::{ComingUp, News};
use crate::error::Result;
use crate::machine::Machine;
use crate::machine::local::LocalPlace;

/// A machine that was launched, and how much of it was told.
#[derive(Debug)]
pub struct Coming {
    machine: Machine,
    place: LocalPlace,
    told: u8,
}

impl Coming {
    pub(super) fn new(machine: Machine, place: LocalPlace) -> Self {
        Self {
            machine,
            place,
            told: 0,
        }
    }
}

impl ComingUp for Coming {
    type Admission = Infallible;

    fn name(&self) -> Option<&str> {
        None
    }

    fn admission(&mut self) -> Option<Infallible> {
        None
    }

    fn entered(&mut self) {}

    async fn next(&mut self) -> Result<News> {
        self.told = self.told.saturating_add(1);
        match self.told {
            1 => Ok(News::Reachable(self.machine.clone())),
            2 => Ok(News::Running),
            _ => Err(gone(&self.place).await),
        }
    }
}
