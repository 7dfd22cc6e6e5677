//! Turns an endpoint of a machine into a session: keys, connecting, commands.
//!
//! Knows nothing of AWS. russh stays in this folder.

mod bounded;
mod client;
pub mod connect;
pub(crate) mod failure;
pub mod first_line;
pub mod keys;
mod lines_before_version;
mod login;
pub mod memory_limit;
mod quick_ack;
mod rsa;
pub mod session;
mod stream;
