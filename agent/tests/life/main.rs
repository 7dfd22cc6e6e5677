//! Launches the real program as a container's process, in namespaces of its own, and looks at its whole life.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "figures are told")]
#![expect(clippy::disallowed_methods, reason = "all keys here are ed25519")]

mod entrypoints;
mod facts;
mod greeting;
mod hand_on;
#[path = "../server/harness.rs"]
#[expect(dead_code, reason = "what only other tests need")]
mod harness;
mod host_keys;
mod install;
mod launch;
mod life;
mod parameters;
