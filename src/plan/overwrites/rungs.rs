//! Which rungs can give a job what it asks for. A rung that cannot is left out; if none is left, the job is refused.

use super::limits::Permitted;
use super::{Overwrite, Overwrites, TASK_DEFINITION, one_of, sizes};
use crate::config::display;
use crate::config::overrides::Overrides;
use crate::config::settings::{Architecture, Limits, Rung, Settings, Style};
use crate::error::{Error, Kind, Result};

/// Why a rung cannot give it, and what would help.
struct RungRefusal {
    why: String,
    hint: String,
    /// It is not certain: AWS decides.
    doubtful: bool,
}

/// The rungs in order, those that are left out with the reason, and why AWS may refuse the others.
pub(super) struct Choice {
    pub(super) rungs: Vec<Rung>,
    pub(super) left_out: Vec<(Rung, String)>,
    pub(super) doubt: Option<String>,
}

/// Separates the rungs that can from those that cannot.
///
/// # Errors
/// If none can ([`Kind::Limit`]).
pub(super) fn choose(
    settings: &Settings,
    overrides: &Overrides,
    overwrites: &Overwrites,
    permitted: &Permitted,
    asked: &[Rung],
) -> Result<Choice> {
    if settings.style == Style::GoDriver {
        return Ok(Choice {
            rungs: asked.to_vec(),
            left_out: Vec::new(),
            doubt: None,
        });
    }
    if let (Some(one), Some(size)) = (
        &overwrites.instance_type,
        overwrites.cpu.as_ref().or(overwrites.memory.as_ref()),
    ) {
        return Err(one.refuse(
            &format!("which says already what {} asks for", size.by),
            format!("Set {} or {}, not both.", one.by, size.by),
        ));
    }
    let given = Given {
        settings,
        overrides,
        overwrites,
        permitted,
    };
    // The cluster's default strategy counts as Fargate, whose sizes every capacity provider can have.
    let default = [Rung::Fargate];
    let looked_at = if asked.is_empty() { &default } else { asked };
    let mut rungs = Vec::new();
    let mut refused: Vec<(Rung, RungRefusal)> = Vec::new();
    for rung in looked_at {
        match given.refusal(rung)? {
            None => rungs.push(rung.clone()),
            Some(refusal) => refused.push((rung.clone(), refusal)),
        }
    }
    let mut doubt = None;
    if rungs.is_empty() {
        // AWS adds sizes and types. If no certain rung is left, the driver asks AWS.
        let (maybe, never) = refused
            .into_iter()
            .partition(|(_, refusal)| refusal.doubtful);
        refused = never;
        for (rung, refusal) in maybe {
            doubt.get_or_insert(refusal.why);
            rungs.push(rung);
        }
    }
    if rungs.is_empty() {
        return Err(none_left(&refused));
    }
    if asked.is_empty() {
        rungs.clear();
    }
    let left_out = refused
        .into_iter()
        .map(|(rung, refusal)| (rung, refusal.why));
    Ok(Choice {
        rungs,
        left_out: left_out.collect(),
        doubt,
    })
}

fn none_left(refused: &[(Rung, RungRefusal)]) -> Error {
    let mut whys: Vec<&str> = Vec::new();
    for (_, refusal) in refused {
        if !whys.contains(&refusal.why.as_str()) {
            whys.push(&refusal.why);
        }
    }
    let hint = refused
        .first()
        .map_or("", |(_, refusal)| refusal.hint.as_str());
    Error::new(Kind::Limit, whys.join("; ")).hint(hint)
}

struct Given<'a> {
    settings: &'a Settings,
    overrides: &'a Overrides,
    overwrites: &'a Overwrites,
    permitted: &'a Permitted,
}

impl Given<'_> {
    /// Returns the first thing that a rung cannot give, if any.
    fn refusal(&self, rung: &Rung) -> Result<Option<RungRefusal>> {
        Ok(match rung {
            Rung::Local => self.refusal_of_this_host()?,
            Rung::Ec2Spot | Rung::Ec2 => self.refusal_of_instances()?,
            Rung::FargateSpot | Rung::Fargate | Rung::Ecs(_) => self.refusal_of_tasks(rung)?,
        })
    }

    /// This host cannot be chosen or sized.
    fn refusal_of_this_host(&self) -> Result<Option<RungRefusal>> {
        let overwrites = self.overwrites;
        let others = [
            &overwrites.task_definition[0],
            &overwrites.role[0],
            &overwrites.cpu,
            &overwrites.memory,
            &overwrites.disk,
            &overwrites.architecture,
            &overwrites.machine_image,
            &overwrites.instance_type,
            &overwrites.capacity,
        ];
        let local = &self.settings.local;
        if let Some(overwrite) = overwrites.services.first() {
            return Ok(Some(refusal(overwrite, "and `local` runs no services")));
        }
        if let Some(overwrite) = overwrites.image.as_ref().filter(|_| !local.container) {
            return Ok(Some(RungRefusal {
                why: format!("{}, and jobs on `local` run without a container", overwrite.description()),
                hint: "Set container = true under [local], or send this job to another runner by its tags.".to_owned(),
                doubtful: false,
            }));
        }
        if local.container && overwrites.image.is_none() && local.container_image.is_none() {
            return Ok(Some(RungRefusal {
                why: "the job names no `image:`, and [local] container_image names none for such jobs".to_owned(),
                hint: "Name an image in the job, or set container_image under [local].".to_owned(),
                doubtful: false,
            }));
        }
        let first = others.into_iter().flatten().next();
        Ok(first.map(|overwrite| refusal(overwrite, "and `local` is this host as it is")))
    }

    fn refusal_of_tasks(&self, rung: &Rung) -> Result<Option<RungRefusal>> {
        let overwrites = self.overwrites;
        let of_instances = [&overwrites.machine_image, &overwrites.instance_type];
        if let Some(overwrite) = of_instances.into_iter().flatten().next() {
            return Ok(Some(refusal(overwrite, "and a task has none")));
        }
        if let Some(overwrite) = overwrites.image.iter().chain(&overwrites.services).next() {
            return Ok(Some(refusal(
                overwrite,
                "and a task runs in its task definition's own image",
            )));
        }
        // A task definition has its own architecture. If the job chose the definition, its architecture counts as right.
        let of_file = self.settings.fargate.as_ref();
        let has_own = self.overrides.task_definition.is_some()
            || one_of(&overwrites.task_definition)?.is_some();
        if let (Some(overwrite), Some(Architecture::Arm64)) =
            (&overwrites.architecture, self.permitted.architecture)
            && !has_own
            && of_file.is_none_or(|f| f.task_definition_arm64.is_none())
        {
            return Ok(Some(RungRefusal {
                why: format!(
                    "{}, and there is no [fargate] task_definition_arm64",
                    overwrite.description()
                ),
                hint: "For example, under [fargate]: task_definition_arm64 = \"ci-job-arm64\""
                    .to_owned(),
                doubtful: false,
            }));
        }
        if let Rung::Ecs(_) = rung {
            let why = "and only tasks on Fargate and instances can have a disk of another size";
            return Ok(overwrites
                .disk
                .as_ref()
                .map(|overwrite| refusal(overwrite, why)));
        }
        Ok(self.refusal_of_fargate())
    }

    /// Fargate has only some sizes, and the next larger one may exceed the job's limit.
    fn refusal_of_fargate(&self) -> Option<RungRefusal> {
        let (overwrites, permitted) = (self.overwrites, self.permitted);
        let first = [&overwrites.cpu, &overwrites.memory, &overwrites.disk];
        let first = first.into_iter().flatten().next()?;
        let sized = match sizes::on_fargate(permitted.cpu, permitted.memory, permitted.disk) {
            Ok(sized) => sized,
            Err(why) => {
                let overwrite = overwrites.disk.as_ref().unwrap_or(first);
                return Some(RungRefusal {
                    why: format!("{}, and {why}", overwrite.description()),
                    hint: format!(
                        "Ask for less by {}, or have an administrator add a rung of EC2.",
                        overwrite.by
                    ),
                    doubtful: false,
                });
            }
        };
        let size = sized.size;
        let limits = self.settings.limits.clone().unwrap_or_default();
        let Limits {
            max_cpu_millis,
            max_memory,
            max_disk,
            ..
        } = limits;
        let over =
            |got: Option<u64>, most: Option<u64>| got.zip(most).filter(|(got, most)| got > most);
        let too_much = |what: String, key: &str, most: String| RungRefusal {
            why: format!(
                "{}, for which the next size of Fargate has {what}, and [limits] {key} allows {most} at most",
                self.sizes_told()
            ),
            hint: format!("Ask for less, or have an administrator raise {key} under [limits]."),
            doubtful: false,
        };
        if let Some((got, most)) = over(size.cpu_millis(), max_cpu_millis.map(u64::from)) {
            return Some(too_much(
                format!("{} vCPU", display::vcpu(got)),
                "max_cpu",
                display::vcpu(most),
            ));
        }
        if let Some((got, most)) = over(size.memory_bytes(), max_memory) {
            return Some(too_much(
                display::size(got),
                "max_memory",
                display::size(most),
            ));
        }
        if let Some((got, most)) = over(size.disk_bytes(), max_disk) {
            return Some(too_much(
                display::size(got),
                "max_disk",
                display::size(most),
            ));
        }
        sized.beyond.then(|| RungRefusal {
            why: format!(
                "{}, which is more than Fargate is known to have (32 vCPU with 244GiB of memory)",
                self.sizes_told()
            ),
            hint: "Ask for less, or have an administrator add a rung of EC2.".to_owned(),
            doubtful: true,
        })
    }

    /// Returns the beginning of a message about more than one size.
    fn sizes_told(&self) -> String {
        let overwrites = [
            &self.overwrites.cpu,
            &self.overwrites.memory,
            &self.overwrites.disk,
        ];
        let each = overwrites.into_iter().flatten();
        let each: Vec<_> = each
            .map(|overwrite| format!("{:?} by {}", super::clip(&overwrite.value), overwrite.by))
            .collect();
        format!("the job asks for {}", each.join(" and "))
    }

    fn refusal_of_instances(&self) -> Result<Option<RungRefusal>> {
        let overwrites = self.overwrites;
        // The Go driver's variable may be set for tasks only. A job that sets this driver's variable wants a task.
        if let Some(overwrite) = overwrites
            .task_definition
            .iter()
            .flatten()
            .find(|w| w.by == TASK_DEFINITION)
        {
            return Ok(Some(refusal(overwrite, "and an instance has none")));
        }
        let ec2 = self.settings.ec2.clone().unwrap_or_default();
        if ec2.container && overwrites.image.is_none() && ec2.container_image.is_none() {
            return Ok(Some(RungRefusal {
                why: "the job names no `image:`, and [ec2] container_image names none for such jobs".to_owned(),
                hint: "Name an image in the job, or have an administrator set container_image under [ec2].".to_owned(),
                doubtful: false,
            }));
        }
        if let Some(overwrite) = overwrites.image.iter().chain(&overwrites.services).next()
            && !ec2.container
        {
            return Ok(Some(RungRefusal {
                why: format!("{}, and jobs on instances run without a container", overwrite.description()),
                hint: "Set container = true under [ec2], or send this job to another runner by its tags.".to_owned(),
                doubtful: false,
            }));
        }
        if let Some(overwrite) = &overwrites.disk
            && ec2.launch_template.is_some()
        {
            let why = "and [ec2] launch_template says how large an instance's disk is";
            return Ok(Some(refusal(overwrite, why)));
        }
        let (Some(overwrite), Some(Architecture::Arm64)) =
            (&overwrites.architecture, self.permitted.architecture)
        else {
            return Ok(None);
        };
        let missing_field = |key: &str, example: &str| {
            Some(RungRefusal {
                why: format!("{}, and there is no [ec2] {key}", overwrite.description()),
                hint: format!("For example, under [ec2]: {key} = {example}"),
                doubtful: false,
            })
        };
        if overwrites.machine_image.is_none() && ec2.image_id_arm64.is_none() {
            return Ok(missing_field("image_id_arm64", "\"ami-0fedcba9876543210\""));
        }
        if overwrites.instance_type.is_none() && ec2.instance_types_arm64.is_empty() {
            return Ok(missing_field(
                "instance_types_arm64",
                "[\"c7g.large\", \"m7g.large\"]",
            ));
        }
        Ok(None)
    }
}

fn refusal(overwrite: &Overwrite, why: &str) -> RungRefusal {
    RungRefusal {
        why: format!("{}, {why}", overwrite.description()),
        hint: format!(
            "Remove {} from this job, or send it to another runner by its tags.",
            overwrite.by
        ),
        doubtful: false,
    }
}
