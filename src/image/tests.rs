use proptest::prelude::*;

use crate::image::*;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn parse(name: &str) -> Reference {
    Reference::parse(name).unwrap_or_else(|why| panic!("{name}: {why}"))
}

#[test]
fn names_are_taken_apart_as_docker_does() {
    let pinned = format!("r.example:5000/g/p:1@{DIGEST}");
    for (name, registry, path, full) in [
        ("ruby", HUB, "library/ruby", "docker.io/library/ruby"),
        (
            "ruby:3.4",
            HUB,
            "library/ruby",
            "docker.io/library/ruby:3.4",
        ),
        (
            "bitnami/redis",
            HUB,
            "bitnami/redis",
            "docker.io/bitnami/redis",
        ),
        (
            "docker.io/ruby",
            HUB,
            "library/ruby",
            "docker.io/library/ruby",
        ),
        (
            "docker.io/library/ruby",
            HUB,
            "library/ruby",
            "docker.io/library/ruby",
        ),
        ("index.docker.io/a/b:1", HUB, "a/b", "docker.io/a/b:1"),
        ("localhost/a", "localhost", "a", "localhost/a"),
        // Without a slash it is a tag, whatever the name looks like.
        (
            "localhost:5000",
            HUB,
            "library/localhost",
            "docker.io/library/localhost:5000",
        ),
        (
            "r.example:5000/g/p",
            "r.example:5000",
            "g/p",
            "r.example:5000/g/p",
        ),
        (&pinned, "r.example:5000", "g/p", &pinned),
        // Paths have no capitals, so this is a host.
        ("EVIL/library/x", "EVIL", "library/x", "EVIL/library/x"),
        ("Docker.io/ruby", "Docker.io", "ruby", "Docker.io/ruby"),
        ("ruby:3/evil", "ruby:3", "evil", "ruby:3/evil"),
        (
            "a__b/c---d_e.f",
            HUB,
            "a__b/c---d_e.f",
            "docker.io/a__b/c---d_e.f",
        ),
        (
            "[fd00::1]:5000/a",
            "[fd00::1]:5000",
            "a",
            "[fd00::1]:5000/a",
        ),
        ("[::1]/a:b", "[::1]", "a", "[::1]/a:b"),
        (
            "docker.io/r.example.com/a",
            HUB,
            "r.example.com/a",
            "docker.io/r.example.com/a",
        ),
    ] {
        let image = parse(name);
        assert_eq!((image.registry(), image.path()), (registry, path), "{name}");
        assert_eq!(image.full(), full);
        assert_eq!(Reference::parse(full), Ok(image));
    }
}

#[test]
fn what_docker_would_not_take_is_no_name() {
    let long = "a".repeat(256);
    let id = "0".repeat(64);
    let long_tag = format!("a:{}", "x".repeat(129));
    let capitals = format!("a@{}", DIGEST.to_uppercase());
    let twice = format!("a@{DIGEST}@{DIGEST}");
    let alone = format!("@{DIGEST}");
    let md5 = format!("a@md5:{}", "0".repeat(32));
    for name in [
        "",
        "-v",
        "--help",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\nb",
        "a\0",
        "a'b",
        "$(x)",
        "a%2fb",
        "/a",
        "a/",
        "a//b",
        "//a",
        "./a",
        "../a",
        "docker.io/../x",
        "docker.io/./x",
        "docker.io//x",
        "docker.io/",
        "docker.io./x",
        ".docker.io/x",
        "docker.io:/x",
        "docker.io:x/y",
        "r.example:5000",
        "r.example:5000/",
        "r.example:50:00/a",
        "-r.example/a",
        "r-.example/a",
        "r_x.example/a",
        "A",
        "Ruby",
        "a/B",
        "ruby/A:1",
        "ruby:",
        "ruby::3",
        "ruby:3:4",
        "ruby:.3",
        "ruby:-3",
        "ruby:3/",
        "a..b",
        "a._b",
        "a___b",
        "_a",
        "a_",
        ".a",
        "a.",
        "-a",
        "a-",
        "ａ",
        "rüby",
        "ruby:ü",
        "ru\u{200b}by",
        "а/b",
        "a@",
        "a@sha256",
        "a@sha256:",
        "a@sha256:00",
        "[::1/a",
        "::1/a",
        "[]/a",
        "[::g]/a",
        "[::1]x/a",
        "[::1]:/a",
        "http://a/b",
        "https://r.example/a",
        "user@r.example/a",
        "a?b",
        "a#b",
        "a\\b",
        &long,
        &id,
        &long_tag,
        &capitals,
        &twice,
        &alone,
        &md5,
    ] {
        // `r.example:5000` is an image `r.example` with a tag, as docker has it.
        let want = name == "r.example:5000";
        assert_eq!(Reference::parse(name).is_ok(), want, "{name:?}");
    }
    assert!(Reference::parse(&"0".repeat(63)).is_ok());
    assert!(Reference::parse(&"a".repeat(255 - "docker.io/library/".len())).is_ok());
    assert!(Reference::parse(&"a".repeat(256 - "docker.io/library/".len())).is_err());
}

#[test]
fn a_pattern_fits_an_image_however_it_is_written() {
    let pinned = |name: &str| format!("{name}@{DIGEST}");
    let exact = pinned("ruby");
    let tagged = pinned("ruby:3");
    for (pattern, name, want) in [
        ("ruby", "ruby:3", true),
        ("ruby", "docker.io/ruby", true),
        ("ruby", "index.docker.io/library/ruby:3", true),
        ("library/ruby", "ruby", true),
        ("ruby:*", "ruby:3", true),
        ("ruby:*", "docker.io/library/ruby:3", true),
        ("ruby:*", "ruby", false),
        ("ruby:3.*", "ruby:4", false),
        ("docker.io/**", "ruby:3", true),
        ("docker.io/library/*", "ruby:3", true),
        ("docker.io/*", "bitnami/redis", false),
        ("bitnami/*", "docker.io/bitnami/redis:7", true),
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
            "registry.example.com:5000/a",
            false,
        ),
        (
            "registry.example.com/**",
            "evil/registry.example.com/a",
            false,
        ),
        // A path of the hub that begins like a registry.
        (
            "registry.example.com/**",
            "docker.io/registry.example.com/a",
            false,
        ),
        ("127.0.0.1:*/group/**", "127.0.0.1:5000/group/a/b", true),
        // A capital makes a registry of it.
        ("docker.io/**", "EVIL/library/x", false),
        ("library/*", "EVIL/library/x", false),
        ("*/library/*", "docker.io/library/x", true),
        // Nor does a tag reach over a port or into a digest.
        ("ruby:*", "ruby:3/evil", false),
        ("ruby:**", "ruby:3/evil", false),
        ("ruby*", "ruby:3/evil", false),
        ("ruby:3*", &tagged, false),
        ("ruby:3*", &exact, false),
        ("ruby:*", &exact, false),
        ("ruby:**", &tagged, false),
        ("**:3", &tagged, false),
        ("ruby", &tagged, true),
        ("ruby", &exact, true),
        ("r*", &tagged, true),
        ("**", &tagged, true),
        (&exact, &exact, true),
        (&exact, &tagged, true),
        (&tagged, &exact, true),
        (&exact, "ruby:3", false),
        (&exact, "ruby", false),
        ("python@sha256:0*", &exact, false),
        ("ruby@sha256:*", &exact, false),
        ("**", "anything:1", true),
        ("", "ruby", false),
        ("@", "ruby", false),
    ] {
        assert_eq!(parse(name).fits(pattern), want, "{pattern} {name}");
    }
}

#[test]
fn services_have_the_docker_executors_host_names() {
    assert_eq!(aliases("postgres:16"), ["postgres"]);
    assert_eq!(aliases(&format!("postgres:16@{DIGEST}")), ["postgres"]);
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
    assert_eq!(aliases("[fd00::1]:5000/a"), ["fd00--1__a", "fd00--1-a"]);
}

#[test]
fn only_private_ecr_has_a_region() {
    let region = |host| ecr_region(host);
    for (host, want) in [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "eu-west-1"),
        (
            "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
            "us-east-1",
        ),
        (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
            "cn-north-1",
        ),
    ] {
        assert_eq!(region(host), Some(want));
    }
    for host in [
        "public.ecr.aws",
        "1.dkr.ecr.x.amazonaws.com",
        "docker.io",
        "123456789012.dkr.ecr.x.amazonaws.com.evil",
    ] {
        assert_eq!(region(host), None, "{host}");
    }
}

type Pieces = (Option<String>, String, Option<String>, Option<String>);

/// What the grammar makes, piece by piece: registry, path, tag, digest.
fn pieces() -> impl Strategy<Value = Pieces> {
    let text = |pattern: &str| proptest::string::string_regex(pattern).unwrap();
    let label = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?";
    let host = prop_oneof![
        text(&format!("{label}(\\.{label}){{1,3}}")),
        text(&format!("{label}(\\.{label}){{0,2}}:[0-9]{{1,5}}")),
        text("\\[[0-9a-f]{0,3}:[0-9a-f:]{1,8}\\](:[0-9]{1,5})?"),
        text("[A-Z][a-z0-9]{0,5}"),
        text("localhost|docker\\.io|registry\\.example\\.com|EVIL"),
    ];
    let part = "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}";
    (
        proptest::option::of(host),
        text(&format!("{part}(/{part}){{0,3}}")),
        proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,12}"),
        proptest::option::of("sha256:[0-9a-f]{64}"),
    )
}

fn write((registry, path, tag, digest): &Pieces) -> String {
    let mut name = String::new();
    for (before, part, after) in [
        ("", registry, "/"),
        ("", &Some(path.clone()), ""),
        (":", tag, ""),
        ("@", digest, ""),
    ] {
        if let Some(part) = part {
            name += &format!("{before}{part}{after}");
        }
    }
    name
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// All that the grammar makes is read, and as what it was made of.
    #[test]
    fn what_the_grammar_makes_is_read(pieces in pieces()) {
        let (registry, path, tag, digest) = &pieces;
        // A path whose first part has a dot is a registry's name to docker.
        let first = path.split('/').next().unwrap();
        prop_assume!(registry.is_some() || !path.contains('/') || !(first.contains('.') || first == "localhost"));
        let name = write(&pieces);
        let image = parse(&name);
        let on_hub = registry.as_deref().is_none_or(|r| r == HUB || r == OLD_HUB);
        prop_assert_eq!(&image.tag, tag);
        prop_assert_eq!(&image.digest, digest);
        if on_hub {
            prop_assert_eq!(image.registry(), HUB);
            let short = image.path().strip_prefix("library/");
            prop_assert!(image.path() == path || short == Some(path.as_str()));
        } else {
            prop_assert_eq!(Some(image.registry()), registry.as_deref());
            prop_assert_eq!(image.path(), path);
        }
        // However it is written, the same patterns fit.
        prop_assert_eq!(Reference::parse(&image.full()), Ok(image.clone()));
        prop_assert!(image.fits("**") && image.fits(&name) && image.fits(&image.full()));
    }

    /// A pattern of tags fits no image with a digest, and none in another registry.
    #[test]
    fn a_pattern_of_tags_fits_tags_alone(pieces in pieces(), tag in "[a-z0-9*.]{1,6}") {
        let image = parse_or_skip(&write(&pieces))?;
        if image.digest.is_some() {
            let pattern = format!("**:{tag}");
            prop_assert!(!image.fits(&pattern));
        }
        prop_assert_eq!(image.fits("docker.io/**"), image.registry() == HUB);
        let other = "other.example.com:5000/**";
        prop_assert_eq!(image.fits(other), image.registry() == "other.example.com:5000");
    }

    /// Any text is taken or refused; what is taken has one registry and says the same when it is read again.
    #[test]
    fn any_text_is_taken_or_refused(name in "([a-zA-Z.:/@_\\[\\]-]|docker\\.io/|library/|sha256:|é|\\x00| ){0,12}") {
        if let Ok(image) = Reference::parse(&name) {
            prop_assert!(name.is_ascii() && !name.contains(['\0', ' ']));
            prop_assert!(!image.path().contains(|c: char| c.is_uppercase() || c == ':'));
            prop_assert!(!image.registry().contains('/'));
            prop_assert_eq!(Reference::parse(&image.full()), Ok(image));
        }
    }

    /// No pattern that names a registry fits an image of another.
    #[test]
    fn a_registry_in_a_pattern_is_that_registry(pieces in pieces()) {
        let image = parse_or_skip(&write(&pieces))?;
        for registry in ["registry.example.com", "localhost", "docker.io", "EVIL"] {
            let fits = image.fits(&format!("{registry}/**"));
            prop_assert_eq!(fits, image.registry() == registry);
        }
    }
}

fn parse_or_skip(name: &str) -> Result<Reference, TestCaseError> {
    Reference::parse(name).map_err(TestCaseError::reject)
}
