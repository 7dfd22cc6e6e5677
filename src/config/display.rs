//! Formats quantities for messages, as the configuration writes them.

/// Returns thousandths of a vCPU as a number of vCPU.
#[must_use]
pub fn vcpu(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the size in the largest unit that needs no fraction.
#[must_use]
pub fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift << shift == bytes && bytes >> shift > 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::quantity::{parse_cpu, parse_size};
    use super::*;

    #[test]
    fn sizes_and_cpu_read_as_they_are_written() {
        assert_eq!(size(16 << 30), "16GiB");
        assert_eq!(size(1_000), "1000 bytes");
        assert_eq!(size(3 << 29), "1536MiB");
        assert_eq!(vcpu(4000), "4");
        assert_eq!(vcpu(500), "0.5");
        assert_eq!(vcpu(10_250), "10.25");
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_again(millis in 1_u32.., kib in 1_u64..1 << 40) {
            prop_assert_eq!(parse_cpu(&vcpu(u64::from(millis))), Ok(millis));
            prop_assert_eq!(parse_size(&size(kib << 10)), Ok(kib << 10));
        }
    }
}
