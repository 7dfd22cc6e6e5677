//! Servers as public images have them: which host keys and algorithms they use, whom they let in, and what a login's start-up
//! files do.

mod host_keys;
mod logins;
mod shells;
mod start_up;
