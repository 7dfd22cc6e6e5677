//! Names of images, read as docker reads them: `[REGISTRY/]PATH[:TAG][@DIGEST]`.

use crate::config::pattern;

/// Where images come from whose name begins with no registry.
pub const HUB: &str = "docker.io";

/// What parts a name, and so ends what one `*` may stand for.
const SEPARATORS: &[char] = &['/'];

/// Returns whether docker could take this for a name; never for an option.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    name.bytes().all(fits)
        && name
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
}

/// Returns the name without tag and digest.
#[must_use]
pub fn bare(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        // What follows the last slash alone: before it, a colon begins a port.
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    }
}

/// Returns the registry: the first part, where it looks like a host.
#[must_use]
pub fn registry(name: &str) -> &str {
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    }
}

/// Returns the name with all that docker fills in but the tag: `docker.io/library/ruby:3` for `ruby:3`.
#[must_use]
pub fn full(name: &str) -> String {
    let path = match name.split_once('/') {
        Some((first, path)) if first == registry(name) => path,
        _ => name,
    };
    match registry(name) {
        // Its older name.
        HUB | "index.docker.io" if !bare(path).contains('/') => format!("{HUB}/library/{path}"),
        HUB | "index.docker.io" => format!("{HUB}/{path}"),
        registry => format!("{registry}/{path}"),
    }
}

/// Returns whether a pattern of `[limits] images` fits: the name as written or in full; a pattern without a tag fits
/// every tag.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    let full = full(name);
    let all = [name, bare(name), &full, bare(&full)];
    all.iter().any(|n| pattern::fits(pattern, n, SEPARATORS))
}

/// Returns the host names that GitLab's docker executor makes of a service's image: the registry without its port and
/// the path, with `__` for each slash, and with `-`, which is legal.
#[must_use]
pub fn aliases(name: &str) -> Vec<String> {
    let bare = bare(name);
    let bare = match bare.split_once('/') {
        Some((host, path)) => {
            let host = host.split_once(':').map_or(host, |(host, _)| host);
            format!("{host}/{path}")
        }
        None => bare.to_owned(),
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
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_docker_does() {
        for (name, plain, registry_of, whole) in [
            ("ruby", "ruby", HUB, "docker.io/library/ruby"),
            ("ruby:3.4", "ruby", HUB, "docker.io/library/ruby:3.4"),
            (
                "bitnami/redis",
                "bitnami/redis",
                HUB,
                "docker.io/bitnami/redis",
            ),
            (
                "docker.io/ruby",
                "docker.io/ruby",
                "docker.io",
                "docker.io/library/ruby",
            ),
            (
                "index.docker.io/a/b:1",
                "index.docker.io/a/b",
                "index.docker.io",
                "docker.io/a/b:1",
            ),
            ("localhost/a", "localhost/a", "localhost", "localhost/a"),
            (
                "r.example:5000/g/p",
                "r.example:5000/g/p",
                "r.example:5000",
                "r.example:5000/g/p",
            ),
            (
                "r.example:5000/g/p:1@sha256:00",
                "r.example:5000/g/p",
                "r.example:5000",
                "r.example:5000/g/p:1@sha256:00",
            ),
        ] {
            assert!(is_name(name));
            assert_eq!((bare(name), registry(name)), (plain, registry_of));
            assert_eq!(full(name), whole);
        }
        for name in ["", "-v", "a b", "a\nb", "a'b", "$(x)", "/a"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_pattern_fits_the_name_in_any_of_its_forms() {
        for (pattern, name, want) in [
            ("ruby", "ruby:3", true),
            ("ruby:*", "ruby:3", true),
            ("ruby:*", "ruby", false),
            ("ruby:3.*", "ruby:4", false),
            ("docker.io/**", "ruby:3", true),
            ("docker.io/library/*", "ruby:3", true),
            ("docker.io/*", "ruby:3", false),
            (
                "registry.example.com/**",
                "registry.example.com/a/b:1",
                true,
            ),
            (
                "registry.example.com/**",
                "registry.example.com.evil.com/a",
                false,
            ),
            (
                "registry.example.com/**",
                "evil/registry.example.com/a",
                false,
            ),
            ("**", "anything:1", true),
            ("r/*", "r/a@sha256:00", true),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn services_have_the_docker_executors_host_names() {
        assert_eq!(aliases("postgres:16"), ["postgres"]);
        assert_eq!(
            aliases("registry.example.com:4999/group/mysql/client:5.7"),
            [
                "registry.example.com__group__mysql__client",
                "registry.example.com-group-mysql-client"
            ]
        );
        assert_eq!(
            aliases("tutum/wordpress"),
            ["tutum__wordpress", "tutum-wordpress"]
        );
    }

    #[test]
    fn only_private_ecr_has_a_region() {
        let region = |host| ecr_region(host);
        assert_eq!(
            region("123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
            Some("eu-west-1")
        );
        assert_eq!(
            region("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com"),
            Some("us-east-1")
        );
        assert_eq!(
            region("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"),
            Some("cn-north-1")
        );
        for host in [
            "public.ecr.aws",
            "1.dkr.ecr.x.amazonaws.com",
            "docker.io",
            "123456789012.dkr.ecr.x.amazonaws.com.evil",
        ] {
            assert_eq!(region(host), None, "{host}");
        }
    }
}
