//! Turns an endpoint of a machine into a session: keys, connecting, commands.
//!
//! Knows nothing of AWS. russh stays in this folder.

mod bounded;
pub mod ceiling;
mod client;
pub mod connect;
pub(crate) mod failure;
pub mod first_line;
mod greeting;
pub mod keys;
mod login;
mod prompt;
mod rsa;
pub mod session;
