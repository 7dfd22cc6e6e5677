//! Names of images, read as docker reads them: `[REGISTRY/]PATH[:TAG][@DIGEST]`, by the grammar of
//! github.com/distribution/reference. Whoever asks where an image comes from asks here, so that no two answers differ.

use crate::pattern;

/// Where images come from whose name begins with no registry.
pub const HUB: &str = "docker.io";
/// Its older name.
const OLD_HUB: &str = "index.docker.io";
/// Where the hub's images of one part lie.
const LIBRARY: &str = "library";

/// The longest name, registry and all.
const LONGEST_NAME: usize = 255;
/// The longest tag.
const LONGEST_TAG: usize = 128;
/// An image's id, which docker takes for no name.
const ID: usize = 64;
/// The digests that docker knows, and how many hexadecimal digits they have.
const DIGESTS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// What parts a name, and so ends what one `*` may stand for.
const SEPARATORS: &[char] = &['/', ':', '@'];

/// An image's name, taken apart, with all that docker fills in but the tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Takes a name apart.
    ///
    /// # Errors
    /// Says what is wrong with what docker would not take, or would take for something else than its text says.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        if name.len() == ID && name.bytes().all(is_hex) {
            return Err("64 hexadecimal digits are an image's id");
        }
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (name, None),
        };
        let (registry, rest) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (HUB, name),
        };
        // A path has no colon, and the registry's port is gone.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if registry != HUB && !is_host_and_port(registry) {
            return Err("its registry is no host");
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("a path has no capitals");
        }
        if !path.split('/').all(is_path_part) {
            return Err(
                "a path has small letters and digits, with . _ - between them and / between its parts",
            );
        }
        if !tag.is_none_or(is_tag) {
            return Err("a tag has up to 128 letters, digits, _ . -");
        }
        if !digest.is_none_or(is_digest) {
            return Err("a digest is sha256: and 64 hexadecimal digits");
        }
        let registry = if registry == OLD_HUB { HUB } else { registry };
        let path = match registry == HUB && !path.contains('/') {
            true => format!("{LIBRARY}/{path}"),
            false => path.to_owned(),
        };
        if registry.len() + 1 + path.len() > LONGEST_NAME {
            return Err("a name has up to 255 characters");
        }
        Ok(Self {
            registry: registry.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Returns the registry.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns where it lies in the registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the name with all that docker fills in but the tag: `docker.io/library/ruby:3` for `ruby:3`.
    #[must_use]
    pub fn full(&self) -> String {
        let mut full = format!("{}/{}", self.registry, self.path);
        for (mark, part) in [(':', &self.tag), ('@', &self.digest)] {
            if let Some(part) = part {
                full.push(mark);
                full += part;
            }
        }
        full
    }

    /// Returns whether a pattern fits, however the name is written. One without a tag fits every tag and every digest. Docker
    /// ignores the tag of a name with a digest, so no pattern of tags says anything of such an image: one without a tag fits
    /// it, or one with that very digest.
    #[must_use]
    pub fn fits(&self, pattern: &str) -> bool {
        let (pattern, digest) = match pattern.split_once('@') {
            Some((pattern, digest)) => (pattern, Some(digest)),
            None => (pattern, None),
        };
        let last = pattern.rfind('/').map_or(0, |slash| slash + 1);
        // Before the last slash, a colon begins a port.
        let (name, tag) = match pattern[last..].find(':') {
            Some(colon) => (&pattern[..last + colon], Some(&pattern[last + colon + 1..])),
            None => (pattern, None),
        };
        let right = match (&self.digest, tag, digest) {
            (Some(own), _, Some(digest)) => own == digest,
            (None, _, Some(_)) | (Some(_), Some(_), None) => false,
            (_, None, None) => true,
            (None, Some(tag), None) => {
                let own = self.tag.as_deref();
                own.is_some_and(|own| pattern::fits(tag, own, SEPARATORS))
            }
        };
        let spelt = |spelling: &String| pattern::fits(name, spelling, SEPARATORS);
        right && self.spellings().iter().any(spelt)
    }

    /// Returns the name, without tag and digest, in all the ways in which docker takes it.
    fn spellings(&self) -> Vec<String> {
        let full = format!("{}/{}", self.registry, self.path);
        if self.registry != HUB {
            return vec![full];
        }
        let mut all = vec![format!("{OLD_HUB}/{}", self.path), self.path.clone()];
        if let Some(short) = self.path.strip_prefix("library/") {
            all.extend([
                short.to_owned(),
                format!("{HUB}/{short}"),
                format!("{OLD_HUB}/{short}"),
            ]);
        }
        // A path of the hub may begin with what looks like another registry: `docker.io/r.example.com/a` is not there.
        all.retain(|spelling| {
            Self::parse(spelling).is_ok_and(|r| r.registry == HUB && r.path == self.path)
        });
        all.push(full);
        all
    }
}

/// Whether the first part of a name is a registry, by docker's rule: it looks like a host, or has a capital, which no path
/// has.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(|c: char| c == '.' || c == ':' || c.is_uppercase())
}

fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((address, "")) => (Host::Six(address), None),
        Some((address, rest)) => match rest.strip_prefix(':') {
            Some(port) => (Host::Six(address), Some(port)),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Host::Name(host), Some(port)),
            None => (Host::Name(text), None),
        },
    };
    let is_label = |label: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty()
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host_fits = match host {
        Host::Six(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        }
        Host::Name(name) => name.split('.').all(is_label),
    };
    host_fits
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// A host as it is written.
enum Host<'a> {
    /// A name, or an address of version 4.
    Name(&'a str),
    /// What stands between the brackets.
    Six(&'a str),
}

/// Whether letters and digits stand on both sides of each `.`, `_`, `__` or row of `-`.
fn is_path_part(part: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    let between = bytes
        .split(is_word)
        .filter(|separator| !separator.is_empty());
    is_word(first)
        && is_word(last)
        && between
            .into_iter()
            .all(|s| matches!(s, b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, digits)| {
        DIGESTS.contains(&(algorithm, digits.len())) && digits.bytes().all(is_hex)
    })
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// Returns the registry of an image; `None` where that is no image's name.
#[must_use]
pub fn registry(name: &str) -> Option<String> {
    Reference::parse(name).ok().map(|image| image.registry)
}

/// Returns the host names that GitLab's docker executor makes of a service's image, as it is written: the registry without
/// its port and the path, with `__` for each slash, and with `-`, which is legal.
#[must_use]
pub fn aliases(name: &str) -> Vec<String> {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = match name[last..].find(':') {
        Some(colon) => &name[..last + colon],
        None => name,
    };
    let bare = match name.split_once('/') {
        Some((host, path)) => {
            let end = match host.rfind(']') {
                Some(bracket) => bracket + 1,
                None => host.find(':').unwrap_or(host.len()),
            };
            // An address of version 6 is no name as it is.
            let host = host[..end].replace(['[', ']'], "").replace(':', "-");
            format!("{host}/{path}")
        }
        None => name.to_owned(),
    };
    let mut all = vec![bare.replace('/', "__")];
    if bare.contains('/') {
        all.push(bare.replace('/', "-"));
    }
    all
}

/// Returns the region of a private ECR registry, where it is one.
#[must_use]
pub fn ecr_region(registry: &str) -> Option<&str> {
    let parts: Vec<&str> = registry.split('.').collect();
    let [
        account,
        "dkr",
        "ecr" | "ecr-fips",
        region,
        "amazonaws",
        "com",
        rest @ ..,
    ] = &parts[..]
    else {
        return None;
    };
    let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    (is_account && matches!(rest, [] | ["cn"])).then_some(*region)
}

#[cfg(test)]
mod tests;
