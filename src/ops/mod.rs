//! The commands for people: `try`, `check`.

pub mod check;
pub mod try_job;
