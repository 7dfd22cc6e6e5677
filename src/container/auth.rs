//! Which credential a registry gets to see, and the docker configuration that holds it: of `DOCKER_AUTH_CONFIG` first,
//! then of those that GitLab gives the job, then the machine's own.
//!
//! The configuration names the one registry and no other, so that no more lies on the machine than one pull needs.

use base64ct::{Base64, Encoding};
use serde_json::{Map, Value, json};

use super::Tokens;
use crate::image::{HUB, Reference, ecr_region};
use crate::runner::containers::{Containers, Credential, Secret};

/// What docker calls its own registry in a configuration.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How a registry is logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// As the machine does by itself.
    Machine,
    /// With this docker configuration.
    Config(Secret),
    /// By the machine's role.
    Ecr {
        /// The registry.
        registry: String,
        /// Its region.
        region: String,
    },
}

impl Login {
    /// Has ECR opened by a token, where there is one for its region, in place of the machine's role.
    #[must_use]
    pub fn by(self, tokens: &Tokens) -> Self {
        match self {
            Self::Ecr { registry, region } => match tokens.get(&region) {
                Some(token) => {
                    let config = json!({ "auths": { registry: { "auth": token.0 } } });
                    Self::Config(Secret(config.to_string()))
                }
                None => Self::Ecr { registry, region },
            },
            other => other,
        }
    }
}

/// Returns how the registry of an image is logged in to.
#[must_use]
pub fn login(name: &str, job: &Containers) -> Login {
    // What docker reads otherwise than we do must not get the password of what we read.
    let Ok(image) = Reference::parse(name) else {
        return Login::Machine;
    };
    let own = job.auth_config.as_ref().map(|text| parse(&text.0));
    let own = own.and_then(|config| of_config(&image, &config.unwrap_or_default()));
    if let Some(config) = own.or_else(|| of_job(&image, &job.credentials)) {
        return Login::Config(Secret(config.to_string()));
    }
    let registry = image.registry();
    match ecr_region(registry) {
        Some(region) => Login::Ecr {
            registry: registry.to_owned(),
            region: region.to_owned(),
        },
        None => Login::Machine,
    }
}

/// Returns what is wrong with the job's `DOCKER_AUTH_CONFIG`, if anything is.
#[must_use]
pub fn problem(job: &Containers) -> Option<String> {
    let text = job.auth_config.as_ref()?;
    parse(&text.0).err()
}

fn parse(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(config) if config.is_object() => Ok(config),
        Ok(_) => Err("it is no JSON object".to_owned()),
        // The position alone: the text holds secrets.
        Err(error) => Err(format!(
            "it is no JSON (line {}, column {})",
            error.line(),
            error.column()
        )),
    }
}

/// Takes from a configuration what is about the image's registry: a helper, else the entry with the longest path that
/// the image lies below, else the helper for all.
fn of_config(image: &Reference, config: &Value) -> Option<Value> {
    let key = key_of(image);
    let is_helper = |helper: &&str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !helper.is_empty() && helper.bytes().all(fits)
    };
    let helpers = entries(&config["credHelpers"]);
    let mut helpers = helpers.filter(|(host, _)| reach(host, image).is_some());
    if let Some(helper) = helpers.find_map(|(_, helper)| helper.as_str().filter(is_helper)) {
        return Some(json!({ "credHelpers": { key: helper } }));
    }
    let fitting = entries(&config["auths"])
        .filter_map(|(host, entry)| Some((reach(host, image)?, login_of(entry)?)));
    if let Some((_, entry)) = fitting.max_by_key(|(reach, _)| *reach) {
        return Some(json!({ "auths": { key: entry } }));
    }
    let helper = config["credsStore"].as_str().filter(is_helper)?;
    Some(json!({ "credsStore": helper }))
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// An entry as docker and podman both take it; `None` where it says nothing.
fn login_of(entry: &Value) -> Option<Value> {
    let text = |name: &str| entry[name].as_str().filter(|v| !v.is_empty());
    let mut login = Map::new();
    for name in ["auth", "identitytoken", "registrytoken"] {
        if let Some(value) = text(name) {
            login.insert(name.to_owned(), value.into());
        }
    }
    if let (None, Some(username)) = (login.get("auth"), text("username")) {
        let auth = basic(username, text("password").unwrap_or_default());
        login.insert("auth".to_owned(), auth.into());
    }
    (!login.is_empty()).then_some(Value::Object(login))
}

fn of_job(image: &Reference, credentials: &[Credential]) -> Option<Value> {
    let fitting = credentials
        .iter()
        .filter_map(|c| Some((reach(&c.registry, image)?, c)));
    let (_, credential) = fitting.max_by_key(|(reach, _)| *reach)?;
    let auth = basic(&credential.username, &credential.password.0);
    Some(json!({ "auths": { key_of(image): { "auth": auth } } }))
}

fn basic(username: &str, password: &str) -> String {
    Base64::encode_string(format!("{username}:{password}").as_bytes())
}

/// Returns under which name docker looks for an image's registry.
fn key_of(image: &Reference) -> &str {
    match image.registry() {
        HUB => HUB_KEY,
        registry => registry,
    }
}

/// Returns how much of an image's name an entry names, where it is about that image: its registry, or a path in it.
fn reach(entry: &str, image: &Reference) -> Option<usize> {
    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let entry = entry.trim_end_matches('/');
    let entry = entry
        .strip_suffix("/v1")
        .or(entry.strip_suffix("/v2"))
        .unwrap_or(entry);
    let (host, path) = entry.split_once('/').unwrap_or((entry, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        host => host,
    };
    if host != image.registry() {
        return None;
    }
    let rest = image.path().strip_prefix(path)?;
    (path.is_empty() || rest.is_empty() || rest.starts_with('/')).then_some(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(auth_config: Option<&str>, registries: &[&str]) -> Containers {
        Containers {
            auth_config: auth_config.map(|text| Secret(text.to_owned())),
            credentials: registries
                .iter()
                .map(|registry| Credential {
                    registry: (*registry).to_owned(),
                    username: "u".into(),
                    password: Secret("p".into()),
                })
                .collect(),
            ..Containers::default()
        }
    }

    fn config(name: &str, job: &Containers) -> Value {
        match login(name, job) {
            Login::Config(text) => serde_json::from_str(&text.0).unwrap(),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn the_jobs_own_configuration_comes_before_what_gitlab_gives() {
        let text = r#"{"auths":{"r.example:5000":{"auth":"b3du"},"https://index.docker.io/v1/":{"username":"a","password":"b"},
            "r.example:5000/deep/er":{"auth":"ZGVlcA=="},"empty.example":{}}}"#;
        let job = job(
            Some(text),
            &["r.example:5000", "https://other.example", "empty.example"],
        );
        let auth = |name: &str, key: &str| config(name, &job)["auths"][key]["auth"].clone();
        assert_eq!(auth("r.example:5000/a:1", "r.example:5000"), "b3du");
        assert_eq!(
            auth("r.example:5000/deep/er/x", "r.example:5000"),
            "ZGVlcA=="
        );
        assert_eq!(auth("r.example:5000/deep/ers", "r.example:5000"), "b3du");
        assert_eq!(auth("ruby:3", HUB_KEY), "YTpi");
        assert_eq!(auth("other.example/x", "other.example"), "dTpw");
        assert_eq!(auth("empty.example/x", "empty.example"), "dTpw");
        // Nothing of another registry goes along.
        let whole = config("r.example:5000/a", &job);
        assert_eq!(whole["auths"].as_object().unwrap().len(), 1);
        for other in [
            "r.example:5001/a",
            "R.EXAMPLE:5000/a",
            "EVIL/r.example:5000/a",
            "docker.io/r.example:5000/a",
            "r.example:5000//a",
            "r.example:5000@evil/a",
        ] {
            assert_eq!(login(other, &job), Login::Machine, "{other}");
        }
        // A capital makes a registry of what looks like the hub's.
        assert_eq!(login("Docker.io/a", &job), Login::Machine);
        assert_eq!(login("EVIL/library/x", &job), Login::Machine);
        assert_eq!(login("r.example:5000.evil/a", &job), Login::Machine);
    }

    #[test]
    fn helpers_are_named_and_never_paths() {
        let text =
            r#"{"credHelpers":{"r.example":"ecr-login","bad.example":"../x"},"credsStore":"pass"}"#;
        let job = job(Some(text), &[]);
        assert_eq!(
            config("r.example/a", &job),
            json!({ "credHelpers": { "r.example": "ecr-login" } })
        );
        assert_eq!(
            config("bad.example/a", &job),
            json!({ "credsStore": "pass" })
        );
    }

    #[test]
    fn ecr_is_the_roles_where_nobody_else_has_a_key() {
        let name = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1";
        let registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let Login::Ecr { region, .. } = login(name, &job(None, &["r.example"])) else {
            panic!();
        };
        assert_eq!(region, "eu-west-1");
        assert!(matches!(
            login(name, &job(None, &[registry])),
            Login::Config(_)
        ));
    }

    #[test]
    fn a_token_opens_the_registries_of_its_region_alone() {
        let tokens = Tokens::from([("eu-west-1".to_owned(), Secret("QVdTOnQ=".into()))]);
        let of = |region: &str| {
            let name = format!("123456789012.dkr.ecr.{region}.amazonaws.com/app:1");
            login(&name, &job(None, &[])).by(&tokens)
        };
        let Login::Config(config) = of("eu-west-1") else {
            panic!();
        };
        let config: Value = serde_json::from_str(&config.0).unwrap();
        let registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(
            config,
            json!({ "auths": { registry: { "auth": "QVdTOnQ=" } } })
        );
        assert!(matches!(of("us-east-1"), Login::Ecr { .. }));
        let hub = login("ruby:3", &job(None, &[])).by(&tokens);
        assert_eq!(hub, Login::Machine);
    }

    #[test]
    fn a_broken_configuration_is_told_without_its_text() {
        let broken = job(
            Some("{\"auths\":{\"r.example\":{\"auth\":\"c2VjcmV0\"}"),
            &["r.example"],
        );
        let told = problem(&broken).unwrap();
        assert!(told.contains("line 1") && !told.contains("c2Vj"), "{told}");
        assert!(matches!(login("r.example/a", &broken), Login::Config(_)));
        assert_eq!(problem(&job(Some("{}"), &[])), None);
        assert!(problem(&job(Some("7"), &[])).is_some());
    }
}
