//! The sizes of tasks: which ones Fargate has, and their form in RunTask. Pure.
//!
//! A job asks for the least that it needs. If Fargate does not have that size, the driver takes the next larger one within
//! `[limits]`. AWS adds sizes: a size beyond the table is requested as it is, and AWS decides.

use crate::machine::task::TaskSize;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The disk of every task on Fargate, in GiB; a task can only ask for more than that.
const FARGATE_DISK: u64 = 20;
/// The largest disk of a task on Fargate, in GiB.
const LARGEST_FARGATE_DISK: u64 = 200;

/// One of Fargate's numbers of vCPU, and the memory that goes with it.
struct Step {
    /// In thousandths of a vCPU.
    millis: u32,
    /// In MiB.
    least: u64,
    /// In MiB.
    most: u64,
    /// In MiB.
    by: u64,
    /// All its memory sizes, in MiB, if they are not a regular series.
    only: &'static [u64],
}

/// What Fargate has (Linux).
const STEPS: [Step; 8] = [
    // 512 MiB, 1 GiB and 2 GiB: see `fit`.
    step(250, 512, 2 * 1024, 512),
    step(500, 1024, 4 * 1024, 1024),
    step(1000, 2 * 1024, 8 * 1024, 1024),
    step(2000, 4 * 1024, 16 * 1024, 1024),
    step(4000, 8 * 1024, 30 * 1024, 1024),
    step(8000, 16 * 1024, 60 * 1024, 4 * 1024),
    step(16_000, 32 * 1024, 120 * 1024, 8 * 1024),
    Step {
        only: &[60 * 1024, 120 * 1024, 244 * 1024],
        ..step(32_000, 60 * 1024, 244 * 1024, 1024)
    },
];

const fn step(millis: u32, least: u64, most: u64, by: u64) -> Step {
    Step {
        millis,
        least,
        most,
        by,
        only: &[],
    }
}

/// A size for Fargate, and whether the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sized {
    /// The size for RunTask.
    pub size: TaskSize,
    /// Whether it is larger than all sizes in the table.
    pub beyond: bool,
}

/// Returns the smallest size of Fargate's that is enough; if the table has none, the size that is asked for. The task definition
/// decides what the job does not ask for.
///
/// # Errors
/// If Fargate does not have such a large disk.
pub fn on_fargate(
    cpu_millis: Option<u32>,
    memory: Option<u64>,
    disk: Option<u64>,
) -> Result<Sized, String> {
    let mut beyond = false;
    let mib = memory.map(|bytes| bytes.div_ceil(MIB));
    let (cpu, memory) = match (cpu_millis, mib) {
        (None, None) => (None, None),
        (cpu, memory) => {
            let least = (cpu.unwrap_or(0), memory.unwrap_or(0));
            let (millis, mib) = smallest(least.0, least.1).unwrap_or_else(|| {
                beyond = true;
                least
            });
            // If only one of the two is asked for, it must fit the other one in the task definition, which only AWS knows.
            (cpu.and(Some(units(millis))), memory.and(Some(mib)))
        }
    };
    let disk = match disk.map(|bytes| bytes.div_ceil(GIB)) {
        Some(gib) if gib > LARGEST_FARGATE_DISK => {
            return Err(format!(
                "a task on Fargate has {LARGEST_FARGATE_DISK}GiB at most"
            ));
        }
        Some(gib) if gib <= FARGATE_DISK => None,
        disk => disk,
    };
    let size = TaskSize { cpu, memory, disk };
    Ok(Sized { size, beyond })
}

/// Returns vCPU (in thousandths) and memory (in MiB), if the table has as much.
fn smallest(millis: u32, mib: u64) -> Option<(u32, u64)> {
    let large_enough = STEPS.iter().filter(|step| step.millis >= millis);
    large_enough
        .filter_map(|step| Some((step.millis, step.fit(mib)?)))
        .next()
}

impl Step {
    /// Returns the smallest memory of this step that is enough.
    fn fit(&self, mib: u64) -> Option<u64> {
        if !self.only.is_empty() {
            return self.only.iter().copied().find(|only| *only >= mib);
        }
        let mut fit = mib.max(self.least).next_multiple_of(self.by);
        // The smallest tasks have no 1.5 GiB.
        if self.millis == 250 && fit > 1024 {
            fit = 2048;
        }
        (mib <= self.most && fit <= self.most).then_some(fit)
    }
}

/// Returns the size on a capacity provider other than Fargate's: any size is right there if an instance has it.
#[must_use]
pub fn elsewhere(cpu_millis: Option<u32>, memory: Option<u64>) -> TaskSize {
    TaskSize {
        cpu: cpu_millis.map(units),
        memory: memory.map(|bytes| bytes.div_ceil(MIB)),
        disk: None,
    }
}

fn units(millis: u32) -> u64 {
    (u64::from(millis) * 1024).div_ceil(1000)
}

/// Returns the size of a volume, which AWS counts in GiB.
#[must_use]
pub fn whole_gib(bytes: u64) -> u64 {
    bytes.div_ceil(GIB).saturating_mul(GIB)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(cpu: u64, memory: u64) -> TaskSize {
        TaskSize {
            cpu: Some(cpu),
            memory: Some(memory),
            disk: None,
        }
    }

    #[test]
    fn what_fargate_does_not_have_is_taken_one_size_larger() {
        for (millis, mib, want) in [
            (250, 512, Some(size(256, 512))),
            (250, 513, Some(size(256, 1024))),
            (250, 1025, Some(size(256, 2048))),
            (250, 2049, Some(size(512, 3072))),
            (1, 1, Some(size(256, 512))),
            (300, 1, Some(size(512, 1024))),
            (1000, 1024, Some(size(1024, 2048))),
            (3000, 10 * 1024, Some(size(4096, 10 * 1024))),
            (4000, 31 * 1024, Some(size(8192, 32 * 1024))),
            (8000, 17 * 1024, Some(size(8192, 20 * 1024))),
            (16_000, 33 * 1024, Some(size(16_384, 40 * 1024))),
            (1, 120 * 1024, Some(size(16_384, 120 * 1024))),
            (16_001, 1, Some(size(32_768, 60 * 1024))),
            (32_000, 61 * 1024, Some(size(32_768, 120 * 1024))),
            (1, 121 * 1024, Some(size(32_768, 244 * 1024))),
        ] {
            let got = on_fargate(Some(millis), Some(mib * MIB), None).unwrap();
            assert_eq!(got.size, want.unwrap(), "{millis} {mib}");
            assert!(!got.beyond, "{millis} {mib}");
        }
        let alone = |cpu, memory| on_fargate(cpu, memory, None).unwrap().size;
        assert_eq!(alone(None, None), TaskSize::default());
        let two = alone(Some(2000), None);
        assert_eq!((two.cpu, two.memory), (Some(2048), None));
        let three = alone(None, Some(3 * GIB));
        assert_eq!((three.cpu, three.memory), (None, Some(3072)));
    }

    #[test]
    fn what_is_beyond_the_table_is_asked_for_as_it_is() {
        for (millis, mib, want) in [
            (32_001, 60 * 1024, size(32_770, 60 * 1024)),
            (64_000, 1, size(65_536, 1)),
            (1, 245 * 1024, size(2, 245 * 1024)),
        ] {
            let got = on_fargate(Some(millis), Some(mib * MIB), None).unwrap();
            assert_eq!((got.size, got.beyond), (want, true), "{millis} {mib}");
        }
    }

    #[test]
    fn a_disk_has_whole_gib_and_bounds() {
        let disk = |bytes| on_fargate(None, None, Some(bytes)).map(|got| got.size.disk);
        assert_eq!(disk(1), Ok(None));
        assert_eq!(disk(20 * GIB), Ok(None));
        assert_eq!(disk(20 * GIB + 1), Ok(Some(21)));
        assert_eq!(disk(200 * GIB), Ok(Some(200)));
        assert!(disk(200 * GIB + 1).is_err());
        assert_eq!(whole_gib(GIB + 1), 2 * GIB);
    }

    #[test]
    fn elsewhere_any_size_will_do() {
        let size = elsewhere(Some(1500), Some(GIB + 1));
        assert_eq!((size.cpu, size.memory), (Some(1536), Some(1025)));
    }

    proptest! {
        #[test]
        fn it_is_never_less_than_asked_for_and_always_a_size_of_fargates(millis in 1_u32..40_000, mib in 1_u64..280_000) {
            let got = on_fargate(Some(millis), Some(mib * MIB), None).unwrap();
            let (cpu, memory) = (got.size.cpu.unwrap(), got.size.memory.unwrap());
            prop_assert!(cpu * 1000 >= u64::from(millis) * 1024 && memory >= mib);
            prop_assert_eq!(got.beyond, millis > 32_000 || mib > 244 * 1024);
            if got.beyond {
                return Ok(());
            }
            // As AWS's table reads.
            let gib: Vec<u64> = match cpu {
                256 => return { prop_assert!([512, 1024, 2048].contains(&memory)); Ok(()) },
                512 => (1..=4).collect(),
                1024 => (2..=8).collect(),
                2048 => (4..=16).collect(),
                4096 => (8..=30).collect(),
                8192 => (16..=60).step_by(4).collect(),
                16_384 => (32..=120).step_by(8).collect(),
                32_768 => vec![60, 120, 244],
                _ => panic!("{cpu}"),
            };
            prop_assert!(memory % 1024 == 0 && gib.contains(&(memory / 1024)), "{cpu} {memory}");
        }
    }
}
