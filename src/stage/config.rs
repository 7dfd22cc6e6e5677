//! `config`: prints the answer that the Runner needs before anything runs. No AWS call, no network.

use std::io::Write;

use serde::Serialize;

use super::Context;
use crate::compute::local::container;
use crate::config::settings::{Rung, Style};
use crate::error::{Error, Kind, Result};
use crate::runner::ancestors;

/// The shell that machines run scripts with, by the Runner's name for it.
const SHELL: &str = "bash";

#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    builds_dir: Option<String>,
    /// Makes the Runner keep concurrent jobs apart below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    builds_dir_is_shared: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<String>,
    /// The shell that the Runner writes scripts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<&'static str>,
    hostname: String,
    driver: Driver,
}

#[derive(Serialize)]
struct Driver {
    name: &'static str,
    version: &'static str,
}

/// Runs the stage.
///
/// # Errors
/// If the Runner does not read the answer.
pub fn run(context: &Context) -> Result<()> {
    context.leave_note(ancestors::ancestors());
    let settings = &context.settings;
    let store = context.store();
    let key = &context.call.identity.key;
    let (mut builds_dir, mut cache_dir) = (settings.builds_dir.clone(), settings.cache_dir.clone());
    let mut shared = None;
    if settings.capacity == [Rung::Local] && settings.local.container {
        // Volumes of the job's own container.
        builds_dir = builds_dir.or_else(|| Some(container::BUILDS.to_owned()));
        cache_dir = cache_dir.or_else(|| Some(container::CACHE.to_owned()));
    } else if settings.capacity == [Rung::Local] {
        // All jobs share this host, so each gets a directory of its own, which `cleanup` removes; one that the
        // administrator named is shared by all jobs.
        shared = builds_dir.is_some().then_some(true);
        let own = |path: std::path::PathBuf| Some(path.to_string_lossy().into_owned());
        builds_dir = builds_dir.or_else(|| own(store.work_directory(key).join("builds")));
        cache_dir = cache_dir.or_else(|| own(store.cache_directory()));
    }
    let answer = Answer {
        builds_dir,
        builds_dir_is_shared: shared,
        cache_dir,
        // The Runner's own file may name another one, for other runners or by mistake. As with the Go driver, its file changes
        // nothing.
        shell: (settings.style == Style::New).then_some(SHELL),
        hostname: key.clone(),
        driver: Driver {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
        },
    };
    let fail = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(Kind::Contract, "cannot answer GitLab Runner").because(e)
    };
    let json = serde_json::to_vec(&answer).map_err(|e| fail(e.into()))?;
    let mut out = std::io::stdout().lock();
    out.write_all(&json)
        .and_then(|()| out.flush())
        .map_err(|e| fail(e.into()))
}
