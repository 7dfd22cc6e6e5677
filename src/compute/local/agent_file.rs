//! The agent's static binary on this host, which containers get: where it is, and that it runs in any image.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// Where the packages put it, one for each architecture.
const PACKAGED: &str = "/usr/lib/gitlab-aws-driver";
/// What helps if it is not there.
const REMEDY: &str = "The packages bring it; from the sources `packaging/agent` builds it. Name it by agent under [local], or by `try --agent FILE`.";
/// The largest file that is looked at: an agent has some MiB, and its headers come first.
const HEADERS: u64 = 64 << 10;

/// Returns the file that the configuration names, or the one that the packages bring for this host's architecture.
///
/// # Errors
/// If it is not there, or needs libraries of the host that it runs on.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf> {
    let packaged = || {
        let name = format!("gitlab-aws-agent-{}", std::env::consts::ARCH);
        Path::new(PACKAGED).join(name)
    };
    let file = named.map_or_else(packaged, Path::to_owned);
    let unusable = |why: String| {
        let what = format!("the agent's binary {} cannot be used", file.display());
        Error::new(Kind::Launch, what).because(why).hint(REMEDY)
    };
    let mut headers = Vec::new();
    std::fs::File::open(&file)
        .and_then(|opened| opened.take(HEADERS).read_to_end(&mut headers))
        .map_err(|e| unusable(e.to_string()))?;
    match is_static(&headers) {
        Some(true) => Ok(file),
        Some(false) => Err(unusable(
            "it is linked dynamically, and an image need not have its libraries".to_owned(),
        )),
        None => Err(unusable("it is no program for 64-bit Linux".to_owned())),
    }
}

/// Returns whether a program needs no interpreter, from the beginning of its file (elf(5): 64-bit, little-endian); `None` if it
/// is no such program.
fn is_static(file: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, length: usize| {
        let bytes = file.get(at..at.checked_add(length)?)?;
        let mut whole = [0; 8];
        whole.get_mut(..length)?.copy_from_slice(bytes);
        usize::try_from(u64::from_le_bytes(whole)).ok()
    };
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (first, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for header in 0..count {
        let at = first.checked_add(header.checked_mul(size)?)?;
        if number(at, 4)? == INTERPRETER as usize {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_an_interpreter_are_told_from_static_ones() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(is_static(&own), Some(false));
        let mut alone = own.clone();
        alone[0x38..0x3a].fill(0);
        assert_eq!(is_static(&alone), Some(true));
        for cut in [0, 5, 0x30, 0x39] {
            assert_eq!(is_static(&own[..cut]), None);
        }
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn what_is_wrong_with_the_file_is_told() {
        let told = |path: &str| find(Some(Path::new(path))).unwrap_err().to_string();
        assert!(told("/nowhere/agent").contains("/nowhere/agent"));
        assert!(told("/proc/self/exe").contains("dynamically"));
        assert!(told("/etc/passwd").contains("no program"));
    }
}
