//! Turns an endpoint of a machine into a session: keys, connecting, commands.
//!
//! Knows nothing of AWS. russh stays in this folder.

pub mod connect;
pub mod keys;
mod prompt;
pub mod session;
