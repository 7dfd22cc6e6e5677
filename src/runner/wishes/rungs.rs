//! Which rungs can give a job what it asks for. One that cannot is left out; where none is left the job is refused.

use super::limits::Within;
use super::{TASK_DEFINITION, Wish, Wishes, one_of, sizes};
use crate::cli::Overrides;
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
    wishes: &Wishes,
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
        &wishes.instance_type,
        wishes.cpu.as_ref().or(wishes.memory.as_ref()),
    ) {
        return Err(one.refuse(
            &format!("which says already what {} asks for", size.by),
            format!("Set {} or {}, not both.", one.by, size.by),
        ));
    }
    let given = Given {
        settings,
        overrides,
        wishes,
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
    wishes: &'a Wishes,
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
        let wishes = self.wishes;
        let others = [
            &wishes.task_definition[0],
            &wishes.role[0],
            &wishes.cpu,
            &wishes.memory,
            &wishes.disk,
            &wishes.architecture,
            &wishes.machine_image,
            &wishes.instance_type,
            &wishes.capacity,
        ];
        if let Some(wish) = wishes.image.iter().chain(&wishes.services).next() {
            let kinds = match wishes.image {
                Some(_) => "images",
                None => "services",
            };
            return Ok(Some(plainly(wish, &format!("and `local` runs no {kinds}"))));
        }
        let first = others.into_iter().flatten().next();
        Ok(first.map(|wish| plainly(wish, "and `local` is this host as it is")))
    }

    fn lack_of_tasks(&self, rung: &Rung) -> Result<Option<Lack>> {
        let wishes = self.wishes;
        let of_instances = [&wishes.machine_image, &wishes.instance_type];
        if let Some(wish) = of_instances.into_iter().flatten().next() {
            return Ok(Some(plainly(wish, "and a task has none")));
        }
        if let Some(wish) = wishes.image.iter().chain(&wishes.services).next() {
            return Ok(Some(plainly(
                wish,
                "and a task runs in its task definition's own image",
            )));
        }
        // A task definition says itself of which architecture it is: of the job's own choice it is taken to be right.
        let of_file = self.settings.fargate.as_ref();
        let has_own =
            self.overrides.task_definition.is_some() || one_of(&wishes.task_definition)?.is_some();
        if let (Some(wish), Some(Architecture::Arm64)) =
            (&wishes.architecture, self.within.architecture)
            && !has_own
            && of_file.is_none_or(|f| f.task_definition_arm64.is_none())
        {
            return Ok(Some(Lack {
                why: format!(
                    "{}, and there is no [fargate] task_definition_arm64",
                    wish.told()
                ),
                hint: "For example, under [fargate]: task_definition_arm64 = \"ci-job-arm64\""
                    .to_owned(),
                doubtful: false,
            }));
        }
        if let Rung::Ecs(_) = rung {
            let why = "and only tasks on Fargate and instances can have a disk of another size";
            return Ok(wishes.disk.as_ref().map(|wish| plainly(wish, why)));
        }
        Ok(self.lack_of_fargate())
    }

    /// Fargate has some sizes only, and the next one may be more than the job may have.
    fn lack_of_fargate(&self) -> Option<Lack> {
        let (wishes, within) = (self.wishes, self.within);
        let first = [&wishes.cpu, &wishes.memory, &wishes.disk];
        let first = first.into_iter().flatten().next()?;
        let sized = match sizes::on_fargate(within.cpu, within.memory, within.disk) {
            Ok(sized) => sized,
            Err(why) => {
                let wish = wishes.disk.as_ref().unwrap_or(first);
                return Some(Lack {
                    why: format!("{}, and {why}", wish.told()),
                    hint: format!(
                        "Ask for less by {}, or have an administrator add a rung of EC2.",
                        wish.by
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
        let wishes = [&self.wishes.cpu, &self.wishes.memory, &self.wishes.disk];
        let each = wishes.into_iter().flatten();
        let each: Vec<_> = each
            .map(|wish| format!("{:?} by {}", super::clip(&wish.value), wish.by))
            .collect();
        format!("the job asks for {}", each.join(" and "))
    }

    fn lack_of_instances(&self) -> Result<Option<Lack>> {
        let wishes = self.wishes;
        // The Go driver's variable may be there for tasks alone; who sets this driver's wants a task.
        if let Some(wish) = wishes
            .task_definition
            .iter()
            .flatten()
            .find(|w| w.by == TASK_DEFINITION)
        {
            return Ok(Some(plainly(wish, "and an instance has none")));
        }
        let ec2 = self.settings.ec2.clone().unwrap_or_default();
        if ec2.container && wishes.image.is_none() && ec2.container_image.is_none() {
            return Ok(Some(Lack {
                why: "the job names no `image:`, and [ec2] container_image names none for such jobs".to_owned(),
                hint: "Name an image in the job, or have an administrator set container_image under [ec2].".to_owned(),
                doubtful: false,
            }));
        }
        if let Some(wish) = wishes.image.iter().chain(&wishes.services).next()
            && !ec2.container
        {
            return Ok(Some(Lack {
                why: format!("{}, and jobs on instances run without a container", wish.told()),
                hint: "Set container = true under [ec2], or send this job to another runner by its tags.".to_owned(),
                doubtful: false,
            }));
        }
        if let Some(wish) = &wishes.disk
            && ec2.launch_template.is_some()
        {
            let why = "and [ec2] launch_template says how large an instance's disk is";
            return Ok(Some(plainly(wish, why)));
        }
        let (Some(wish), Some(Architecture::Arm64)) =
            (&wishes.architecture, self.within.architecture)
        else {
            return Ok(None);
        };
        let lacks = |key: &str, example: &str| {
            Some(Lack {
                why: format!("{}, and there is no [ec2] {key}", wish.told()),
                hint: format!("For example, under [ec2]: {key} = {example}"),
                doubtful: false,
            })
        };
        if wishes.machine_image.is_none() && ec2.image_id_arm64.is_none() {
            return Ok(lacks("image_id_arm64", "\"ami-0fedcba9876543210\""));
        }
        if wishes.instance_type.is_none() && ec2.instance_types_arm64.is_empty() {
            return Ok(lacks(
                "instance_types_arm64",
                "[\"c7g.large\", \"m7g.large\"]",
            ));
        }
        Ok(None)
    }
}

fn plainly(wish: &Wish, why: &str) -> Lack {
    Lack {
        why: format!("{}, {why}", wish.told()),
        hint: format!(
            "Remove {} from this job, or send it to another runner by its tags.",
            wish.by
        ),
        doubtful: false,
    }
}
