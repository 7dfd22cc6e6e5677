//! `check --job`: which profile applies to a job and why, and what the job would get. Makes no request.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::json::rungs;
use super::page::{Page, list, login, time};
use crate::config::overrides::Overrides;
use crate::config::settings::{Rung, Settings};
use crate::config::{Loaded, display};
use crate::error::{Error, Kind, Result};
use crate::machine::task::TaskSize;
use crate::ops::{error_json, print, told};
use crate::plan::overwrites::{
    Overwrites, Settled, SettledInstance, SettledRole, SettledTask, settle,
};
use crate::plan::profile::{self, Verdict};
use crate::runner::Environment;
use crate::runner::payload::Payload;
use crate::runner::trusted_variables::missing_field;
use crate::ui::Ui;

/// Prints what a job would get.
///
/// # Errors
/// Where the payload cannot be read, and where the job would be refused.
pub(super) fn explain(
    loaded: &Loaded,
    file: &Path,
    overrides: &Overrides,
    as_json: bool,
    ui: Ui,
) -> Result<()> {
    let payload = told(
        as_json,
        read(file),
        |error| json!({ "error": error_json(error) }),
    )?;
    let verdicts = profile::verdicts(&loaded.settings, &payload);
    let applied = profile::applied(loaded.settings.clone(), &payload);
    let settings = &applied.settings;
    let overwrites = overwrites(&payload);
    let settled = settle(settings, overrides, &overwrites);
    let left_out = settled.as_ref().ok();
    let left_out = left_out.and_then(|settled| overwrites.left_out_of_session(settings, settled));
    let job = Explained {
        payload: &payload,
        verdicts: &verdicts,
        profile: applied.profile.as_deref(),
        settings,
    };
    if as_json {
        print(format!("{:#}\n", job.as_json(&settled)).as_bytes())?;
    } else {
        let doubt = settled.as_ref().ok().and_then(|s| s.doubt.as_ref());
        for warning in loaded.warnings.iter().chain(&left_out).chain(doubt) {
            ui.warn(warning);
        }
        print(job.as_text(settled.as_ref().ok()).as_bytes())?;
    }
    settled.map(drop)
}

fn read(file: &Path) -> Result<Payload> {
    let remedy = "Give a copy of the file that JOB_RESPONSE_FILE names in a stage of such a job.";
    let payload = Payload::read(file).map_err(|error| error.hint(remedy))?;
    if payload == Payload::default() {
        let what = format!("there is no job in {}", file.display());
        return Err(Error::new(Kind::Contract, what).hint(remedy));
    }
    Ok(payload)
}

/// Reads what the job asks for, as its stages would: there the Runner has made the job's variables their environment.
fn overwrites(payload: &Payload) -> Overwrites {
    let variables = payload.effective().into_iter();
    let variables = variables.map(|(name, value)| {
        let name: OsString = format!("CUSTOM_ENV_{name}").into();
        (name, value.into())
    });
    Overwrites::read(&Environment::from_pairs(variables), payload)
}

struct Explained<'a> {
    payload: &'a Payload,
    verdicts: &'a [Verdict<'a>],
    profile: Option<&'a str>,
    /// As they apply to the job.
    settings: &'a Settings,
}

impl Explained<'_> {
    fn as_text(&self, settled: Option<&Settled>) -> String {
        let mut page = Page(String::new());
        let _ = writeln!(page.0, "{}", self.who());
        if !self.verdicts.is_empty() {
            page.heading("Profiles, the first that fits the job");
            let mut held = false;
            for verdict in self.verdicts {
                let words = match verdict.misfits.as_slice() {
                    [] if held => "fits too, and comes later".to_owned(),
                    [] => "holds".to_owned(),
                    misfits => {
                        let missing = verdict.missing.iter().map(|field| missing_field(field));
                        let why: Vec<_> = misfits.iter().cloned().chain(missing).collect();
                        format!("does not fit: {}", why.join("; "))
                    }
                };
                held |= verdict.misfits.is_empty();
                page.line(&verdict.profile.name, &words);
            }
            if !held {
                page.line("none fits", "the file's own settings hold");
            }
        }
        page.heading("What the job would get");
        match settled {
            None => page.line("nothing", "it would be refused"),
            Some(settled) => self.lines(&mut page, settled),
        }
        page.0
    }

    fn who(&self) -> String {
        let payload = self.payload;
        let mut who = match payload.id {
            Some(id) => format!("Job {id}"),
            None => "A job".to_owned(),
        };
        let mut add = |before: &str, text: &Option<String>| {
            if let Some(text) = text {
                // Names come from outside: nothing of them may look like a line of ours.
                let _ = write!(who, "{before}{text:?}");
            }
        };
        add(" ", &payload.job_name);
        add(" of ", &payload.project_path);
        add(", ref ", &payload.reference);
        match payload.protected {
            Some(true) => who.push_str(", protected"),
            Some(false) => who.push_str(", not protected"),
            None => {}
        }
        who
    }

    fn lines(&self, page: &mut Page, settled: &Settled) {
        let settings = self.settings;
        if settled.rungs.is_empty() {
            page.line(
                "the cluster's own",
                "default capacity provider strategy decides",
            );
        }
        for (i, rung) in settled.rungs.iter().enumerate() {
            let what = match rung {
                Rung::Local => "this host",
                rung if rung.is_instance() => "an instance",
                _ => "a task",
            };
            page.line(&format!("{}. {rung}", i + 1), what);
        }
        for (rung, why) in &settled.left_out {
            page.line("left out", &format!("{rung}: {why}"));
        }
        if settings.capacity != [Rung::Local] {
            let (one, all) = (time(settings.rung_wait), time(settings.capacity_wait));
            page.line(
                "waiting",
                &format!("up to {one} for one of these, {all} in all"),
            );
        }
        if let Some(task) = &settled.task {
            task_lines(page, task, &settled.rungs);
        }
        if let Some(instance) = &settled.instance {
            instance_lines(page, instance);
        }
        page.line("login", &login(settings, &settled.rungs));
        for (what, directory) in [
            ("builds", &settings.builds_dir),
            ("cache", &settings.cache_dir),
        ] {
            if let Some(directory) = directory {
                page.line(what, directory);
            }
        }
    }

    fn as_json(&self, settled: &Result<Settled>) -> Value {
        let payload = self.payload;
        let profiles = self.verdicts.iter().map(|verdict| {
            json!({
                "name": verdict.profile.name,
                "fits": verdict.misfits.is_empty(),
                "misfits": verdict.misfits,
                "missing": verdict.missing,
            })
        });
        let refused = |e: &Error| json!({ "message": e.to_string(), "remedy": e.remedy() });
        json!({
            "job": {
                "id": payload.id,
                "name": payload.job_name,
                "project": payload.project_path,
                "ref": payload.reference,
                "protected": payload.protected,
            },
            "profiles": profiles.collect::<Vec<_>>(),
            "profile": self.profile,
            "refused": settled.as_ref().err().map(refused),
            "gets": settled.as_ref().ok().map(|settled| self.gets(settled)),
        })
    }

    fn gets(&self, settled: &Settled) -> Value {
        let settings = self.settings;
        let left_out = settled.left_out.iter();
        let left_out = left_out.map(|(rung, why)| json!({ "rung": rung.to_string(), "why": why }));
        json!({
            "capacity": rungs(&settled.rungs),
            "left_out": left_out.collect::<Vec<_>>(),
            "rung_wait_seconds": settings.rung_wait.as_secs_f64(),
            "capacity_wait_seconds": settings.capacity_wait.as_secs_f64(),
            "task": settled.task.as_ref().map(|task| json!({
                "task_definition": task.task_definition,
                "platform_version": task.platform_version,
                "role": role_json(task.role.as_ref()),
                "on_fargate": size_json(&task.on_fargate),
                "elsewhere": size_json(&task.elsewhere),
                "login": login_json(settings.login_of_tasks()),
            })),
            "instance": settled.instance.as_ref().map(|instance| json!({
                "image_id": instance.image,
                "instance_types": instance.types,
                "min_cpu_millis": instance.min_cpu_millis,
                "min_memory_bytes": instance.min_memory,
                "disk_bytes": instance.disk,
                "role": role_json(instance.role.as_ref()),
                "login": login_json(settings.login_of_instances()),
            })),
            "ssh": { "username": settings.ssh.username, "port": settings.ssh.port },
            "builds_dir": settings.builds_dir,
            "cache_dir": settings.cache_dir,
        })
    }
}

fn login_json((username, port): (&str, u16)) -> Value {
    json!({ "username": username, "port": port })
}

fn task_lines(page: &mut Page, task: &SettledTask, rungs: &[Rung]) {
    page.line("task definition", &task.task_definition);
    if let Some(version) = &task.platform_version {
        page.line("platform version", version);
    }
    let named = rungs.iter().any(|rung| matches!(rung, Rung::Ecs(_)));
    let fargate = rungs.is_empty()
        || rungs
            .iter()
            .any(|r| matches!(r, Rung::Fargate | Rung::FargateSpot));
    for (what, size, there) in [
        ("on Fargate", &task.on_fargate, fargate),
        ("on a provider", &task.elsewhere, named),
    ] {
        if there && !size.is_default() {
            page.line(what, &size_line(size));
        }
    }
    role_line(page, "task's role", task.role.as_ref());
}

fn instance_lines(page: &mut Page, instance: &SettledInstance) {
    let image = instance.image.as_deref();
    page.line("image", image.unwrap_or("the launch template's"));
    page.line(
        "instance types",
        &list(&instance.types, "the launch template's"),
    );
    let least: Vec<_> = [
        instance
            .min_cpu_millis
            .map(|m| format!("{} vCPU", display::vcpu(m.into()))),
        instance.min_memory.map(display::size),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !least.is_empty() {
        page.line(
            "of these with",
            &format!("{} at least", least.join(" and ")),
        );
    }
    if let Some(disk) = instance.disk {
        page.line("root volume", &display::size(disk));
    }
    role_line(page, "instance's role", instance.role.as_ref());
}

/// The role that calls are made with, not the machine's own.
fn role_line(page: &mut Page, what: &str, role: Option<&SettledRole>) {
    if let Some(role) = role {
        page.line(what, &format!("launched as {}", role.arn));
    }
}

fn size_line(size: &TaskSize) -> String {
    let parts = [
        size.cpu_millis()
            .map(|m| format!("{} vCPU", display::vcpu(m))),
        size.memory_bytes()
            .map(|b| format!("{} of memory", display::size(b))),
        size.disk_bytes()
            .map(|b| format!("{} of disk", display::size(b))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn size_json(size: &TaskSize) -> Value {
    json!({
        "cpu_millis": size.cpu_millis(), "memory_bytes": size.memory_bytes(), "disk_bytes": size.disk_bytes(),
    })
}

fn role_json(role: Option<&SettledRole>) -> Value {
    json!(
        role.map(|role| json!({ "arn": role.arn, "session_tags": super::json::table(&role.tags) }))
    )
}
