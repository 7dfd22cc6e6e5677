//! The script protocol, as a driver sees it.

pub(crate) mod client;

mod disk;
mod endings;
mod following;
mod requests;
mod starts;
