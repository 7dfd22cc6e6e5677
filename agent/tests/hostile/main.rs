//! What clients can do that mean harm, before the login and after it, and what it does to others: nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "figures are for people")]

mod before_login;
mod crowd;
mod inside;
mod peer;
mod random;
mod wire;
