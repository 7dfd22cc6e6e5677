//! The GitLab Runner custom-executor driver that runs each CI job on compute of its own on AWS.
//!
//! The library exists for the binary, the tests and the fuzz targets; it promises no stable interface.

pub mod app;
pub mod cli;
pub mod compute;
pub mod config;
pub mod container;
pub mod error;
mod files;
mod hash;
pub mod host;
pub mod image;
mod logging;
pub mod machine;
pub mod ops;
pub mod pattern;
pub mod plan;
pub mod process;
pub mod runner;
pub mod script;
mod shell;
pub mod ssh;
pub mod stage;
pub mod state;
pub mod ui;
