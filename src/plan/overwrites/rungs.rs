//! Which rungs can give a job what it asks for. One that cannot is left out; where none is left the job is refused.

use super::limits::Within;
use super::{Overwrite, Overwrites, TASK_DEFINITION, one_of, sizes};
use crate::config::overrides::Overrides;
use crate::config::settings::{Architecture, Limits, Rung, Settings, Style};
use crate::config::shown;
use crate::error::{Error, Kind, Result};

/// Why a rung cannot, and what would help.
struct Lack {
    why: String,
    hint: String,
    /// It is not known to be able to, and AWS has the last word.
    doubtful: bool,
}

/// Rungs in order, those left out with the reason, and why AWS may refuse those that are there.
pub(super) struct Choice {
    pub(super) rungs: Vec<Rung>,
    pub(super) left_out: Vec<(Rung, String)>,
    pub(super) doubt: Option<String>,
}

/// Parts the rungs that can from those that cannot.
///
/// # Errors
/// Where none can ([`Kind::Limit`]).
pub(super) fn choose(
    settings: &Settings,
    overrides: &Overrides,
    overwrites: &Overwrites,
    within: &Within,
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
        within,
    };
    // The cluster's default strategy is taken for Fargate, whose sizes every capacity provider can have.
    let default = [Rung::Fargate];
    let looked_at = if asked.is_empty() { &default } else { asked };
    let mut rungs = Vec::new();
    let mut lacking: Vec<(Rung, Lack)> = Vec::new();
    for rung in looked_at {
        match given.lack(rung)? {
            None => rungs.push(rung.clone()),
            Some(lack) => lacking.push((rung.clone(), lack)),
        }
    }
    let mut doubt = None;
    if rungs.is_empty() {
        // AWS adds to what there is: where nothing surer is left, it is asked.
        let (maybe, never) = lacking.into_iter().partition(|(_, lack)| lack.doubtful);
        lacking = never;
        for (rung, lack) in maybe {
            doubt.get_or_insert(lack.why);
            rungs.push(rung);
        }
    }
    if rungs.is_empty() {
        return Err(none_left(&lacking));
    }
    if asked.is_empty() {
        rungs.clear();
    }
    let left_out = lacking.into_iter().map(|(rung, lack)| (rung, lack.why));
    Ok(Choice {
        rungs,
        left_out: left_out.collect(),
        doubt,
    })
}

fn none_left(lacking: &[(Rung, Lack)]) -> Error {
    let mut whys: Vec<&str> = Vec::new();
    for (_, lack) in lacking {
        if !whys.contains(&lack.why.as_str()) {
            whys.push(&lack.why);
        }
    }
    let hint = lacking.first().map_or("", |(_, lack)| lack.hint.as_str());
    Error::new(Kind::Limit, whys.join("; ")).hint(hint)
}

struct Given<'a> {
    settings: &'a Settings,
    overrides: &'a Overrides,
    overwrites: &'a Overwrites,
    within: &'a Within,
}

impl Given<'_> {
    /// Returns the first thing that a rung cannot give.
    fn lack(&self, rung: &Rung) -> Result<Option<Lack>> {
        Ok(match rung {
            Rung::Local => self.lack_of_this_host()?,
            Rung::Ec2Spot | Rung::Ec2 => self.lack_of_instances()?,
            Rung::FargateSpot | Rung::Fargate | Rung::Ecs(_) => self.lack_of_tasks(rung)?,
        })
    }

    /// This host is what it is.
    fn lack_of_this_host(&self) -> Result<Option<Lack>> {
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
        if let Some(overwrite) = overwrites.image.iter().chain(&overwrites.services).next() {
            let kinds = match overwrites.image {
                Some(_) => "images",
                None => "services",
            };
            return Ok(Some(plainly(
                overwrite,
                &format!("and `local` runs no {kinds}"),
            )));
        }
        let first = others.into_iter().flatten().next();
        Ok(first.map(|overwrite| plainly(overwrite, "and `local` is this host as it is")))
    }

    fn lack_of_tasks(&self, rung: &Rung) -> Result<Option<Lack>> {
        let overwrites = self.overwrites;
        let of_instances = [&overwrites.machine_image, &overwrites.instance_type];
        if let Some(overwrite) = of_instances.into_iter().flatten().next() {
            return Ok(Some(plainly(overwrite, "and a task has none")));
        }
        if let Some(overwrite) = overwrites.image.iter().chain(&overwrites.services).next() {
            return Ok(Some(plainly(
                overwrite,
                "and a task runs in its task definition's own image",
            )));
        }
        // A task definition says itself of which architecture it is: of the job's own choice it is taken to be right.
        let of_file = self.settings.fargate.as_ref();
        let has_own = self.overrides.task_definition.is_some()
            || one_of(&overwrites.task_definition)?.is_some();
        if let (Some(overwrite), Some(Architecture::Arm64)) =
            (&overwrites.architecture, self.within.architecture)
            && !has_own
            && of_file.is_none_or(|f| f.task_definition_arm64.is_none())
        {
            return Ok(Some(Lack {
                why: format!(
                    "{}, and there is no [fargate] task_definition_arm64",
                    overwrite.told()
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
                .map(|overwrite| plainly(overwrite, why)));
        }
        Ok(self.lack_of_fargate())
    }

    /// Fargate has some sizes only, and the next one may be more than the job may have.
    fn lack_of_fargate(&self) -> Option<Lack> {
        let (overwrites, within) = (self.overwrites, self.within);
        let first = [&overwrites.cpu, &overwrites.memory, &overwrites.disk];
        let first = first.into_iter().flatten().next()?;
        let sized = match sizes::on_fargate(within.cpu, within.memory, within.disk) {
            Ok(sized) => sized,
            Err(why) => {
                let overwrite = overwrites.disk.as_ref().unwrap_or(first);
                return Some(Lack {
                    why: format!("{}, and {why}", overwrite.told()),
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
        let told = |what: String, key: &str, most: String| Lack {
            why: format!(
                "{}, for which the next size of Fargate has {what}, and [limits] {key} allows {most} at most",
                self.sizes_told()
            ),
            hint: format!("Ask for less, or have an administrator raise {key} under [limits]."),
            doubtful: false,
        };
        if let Some((got, most)) = over(size.cpu_millis(), max_cpu_millis.map(u64::from)) {
            return Some(told(
                format!("{} vCPU", shown::vcpu(got)),
                "max_cpu",
                shown::vcpu(most),
            ));
        }
        if let Some((got, most)) = over(size.memory_bytes(), max_memory) {
            return Some(told(shown::size(got), "max_memory", shown::size(most)));
        }
        if let Some((got, most)) = over(size.disk_bytes(), max_disk) {
            return Some(told(shown::size(got), "max_disk", shown::size(most)));
        }
        sized.beyond.then(|| Lack {
            why: format!(
                "{}, which is more than Fargate is known to have (32 vCPU with 244GiB of memory)",
                self.sizes_told()
            ),
            hint: "Ask for less, or have an administrator add a rung of EC2.".to_owned(),
            doubtful: true,
        })
    }

    /// Begins a message about more than one size.
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

    fn lack_of_instances(&self) -> Result<Option<Lack>> {
        let overwrites = self.overwrites;
        // The Go driver's variable may be there for tasks alone; who sets this driver's wants a task.
        if let Some(overwrite) = overwrites
            .task_definition
            .iter()
            .flatten()
            .find(|w| w.by == TASK_DEFINITION)
        {
            return Ok(Some(plainly(overwrite, "and an instance has none")));
        }
        let ec2 = self.settings.ec2.clone().unwrap_or_default();
        if ec2.container && overwrites.image.is_none() && ec2.container_image.is_none() {
            return Ok(Some(Lack {
                why: "the job names no `image:`, and [ec2] container_image names none for such jobs".to_owned(),
                hint: "Name an image in the job, or have an administrator set container_image under [ec2].".to_owned(),
                doubtful: false,
            }));
        }
        if let Some(overwrite) = overwrites.image.iter().chain(&overwrites.services).next()
            && !ec2.container
        {
            return Ok(Some(Lack {
                why: format!("{}, and jobs on instances run without a container", overwrite.told()),
                hint: "Set container = true under [ec2], or send this job to another runner by its tags.".to_owned(),
                doubtful: false,
            }));
        }
        if let Some(overwrite) = &overwrites.disk
            && ec2.launch_template.is_some()
        {
            let why = "and [ec2] launch_template says how large an instance's disk is";
            return Ok(Some(plainly(overwrite, why)));
        }
        let (Some(overwrite), Some(Architecture::Arm64)) =
            (&overwrites.architecture, self.within.architecture)
        else {
            return Ok(None);
        };
        let lacks = |key: &str, example: &str| {
            Some(Lack {
                why: format!("{}, and there is no [ec2] {key}", overwrite.told()),
                hint: format!("For example, under [ec2]: {key} = {example}"),
                doubtful: false,
            })
        };
        if overwrites.machine_image.is_none() && ec2.image_id_arm64.is_none() {
            return Ok(lacks("image_id_arm64", "\"ami-0fedcba9876543210\""));
        }
        if overwrites.instance_type.is_none() && ec2.instance_types_arm64.is_empty() {
            return Ok(lacks(
                "instance_types_arm64",
                "[\"c7g.large\", \"m7g.large\"]",
            ));
        }
        Ok(None)
    }
}

fn plainly(overwrite: &Overwrite, why: &str) -> Lack {
    Lack {
        why: format!("{}, {why}", overwrite.told()),
        hint: format!(
            "Remove {} from this job, or send it to another runner by its tags.",
            overwrite.by
        ),
        doubtful: false,
    }
}
