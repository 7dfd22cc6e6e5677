//! What a job asks for about containers: its image, its services, its registry credentials, and the variables that its containers
//! see.
//!
//! Images, services and credentials come from the trusted payload. The job can set `DOCKER_AUTH_CONFIG` and the values of
//! variables.

use std::fmt;

use serde_json::Value;

use super::Environment;
use super::payload::{Payload, list, string, text};

/// The variable by which a job brings credentials of its own.
const AUTH_CONFIG: &str = "DOCKER_AUTH_CONFIG";

/// Everything that a job asks for about containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    /// `image:`.
    pub image: Option<Image>,
    /// `services:`, in the job's order, variables filled in.
    pub services: Vec<Service>,
    /// The registries that GitLab gives the job access to.
    pub credentials: Vec<Credential>,
    /// `DOCKER_AUTH_CONFIG`.
    pub auth_config: Option<Secret>,
    /// The variables that are not masked.
    pub variables: Vec<(String, String)>,
}

/// `image:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The name, as written.
    pub name: String,
    /// `entrypoint`; `None`: the image's own.
    pub entrypoint: Option<Vec<String>>,
    /// `pull_policy`, to be tried in this order; empty: not said.
    pub pull_policy: Vec<String>,
    /// `docker: user`.
    pub user: Option<String>,
    /// `docker: platform`.
    pub platform: Option<String>,
}

/// One of `services:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its image.
    pub image: Image,
    /// Names that the job gives it.
    pub aliases: Vec<String>,
    /// `command`; empty: the image's own.
    pub command: Vec<String>,
    /// Variables of its own.
    pub variables: Vec<(String, String)>,
}

/// Access to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The registry: host and port, or a URL.
    pub registry: String,
    /// Who.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl Containers {
    /// Reads the payload and the environment.
    #[must_use]
    pub fn read(env: &Environment, payload: &Payload) -> Self {
        let variable = |name: &str| env.job_variable(name).unwrap_or_default();
        let mut services = payload.services.clone();
        for service in &mut services {
            for (_, value) in &mut service.variables {
                *value = fill_in(value, variable);
            }
        }
        // Of a variable of the type "file" the environment has only the path.
        let auth_config = payload
            .last_file(AUTH_CONFIG)
            .map(str::to_owned)
            .or_else(|| env.job_variable(AUTH_CONFIG));
        let public = payload.public_names();
        let variables = public
            // A service must not see it, even if it is in a pipeline file, in plain text.
            .filter(|name| *name != AUTH_CONFIG)
            .filter_map(|name| Some((name.to_owned(), env.job_variable(name)?)))
            .collect();
        Self {
            image: payload.image.clone(),
            services,
            credentials: payload.credentials.clone(),
            auth_config: auth_config.map(Secret),
            variables,
        }
    }

    /// Returns whether the job asks for an image of its own.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.image.is_some() || !self.services.is_empty()
    }
}

impl Image {
    /// Returns an image of that name without any options.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn read(json: &Value) -> Option<Self> {
        let docker = &json["executor_opts"]["docker"];
        let policy = &json["pull_policy"];
        Some(Self {
            name: text(&json["name"])?,
            entrypoint: Some(strings(&json["entrypoint"])).filter(|e| !e.is_empty()),
            pull_policy: text(policy).map_or_else(|| strings(policy), |one| vec![one]),
            user: text(&docker["user"]),
            platform: text(&docker["platform"]),
        })
    }
}

impl Service {
    pub(super) fn read(json: &Value) -> Option<Self> {
        let aliases = string(&json["alias"]).unwrap_or_default();
        let aliases = aliases.split([',', ' ', '\t', '\n']);
        let variable =
            |v: &Value| Some((text(&v["key"])?, string(&v["value"]).unwrap_or_default()));
        Some(Self {
            image: Image::read(json)?,
            aliases: aliases
                .filter(|a| !a.is_empty())
                .map(str::to_owned)
                .collect(),
            command: strings(&json["command"]),
            variables: list(&json["variables"]).filter_map(variable).collect(),
        })
    }
}

impl Credential {
    pub(super) fn read(json: &Value) -> Option<Self> {
        if json["type"].as_str() != Some("registry") {
            return None;
        }
        Some(Self {
            registry: text(&json["url"])?,
            username: string(&json["username"]).unwrap_or_default(),
            password: Secret(string(&json["password"]).unwrap_or_default()),
        })
    }
}

fn strings(value: &Value) -> Vec<String> {
    list(value).filter_map(string).collect()
}

/// Replaces `$NAME` and `${NAME}` by the variables' values; `$$` is a dollar sign.
fn fill_in(value: &str, variable: impl Fn(&str) -> String) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut filled = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        filled += &rest[..at];
        rest = &rest[at + 1..];
        let braced = rest.strip_prefix('{').and_then(|r| r.split_once('}'));
        let bare = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        match braced {
            Some((name, after)) => {
                filled += &variable(name);
                rest = after;
            }
            None if bare > 0 => {
                filled += &variable(&rest[..bare]);
                rest = &rest[bare..];
            }
            None => {
                filled.push('$');
                rest = rest.strip_prefix('$').unwrap_or(rest);
            }
        }
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &str, env: &[(&str, &str)]) -> Containers {
        let env = Environment::from_pairs(
            env.iter()
                .map(|(k, v)| (format!("CUSTOM_ENV_{k}").into(), (*v).into())),
        );
        Containers::read(&env, &Payload::parse(payload.as_bytes()).unwrap())
    }

    #[test]
    fn all_that_is_said_of_containers_is_read() {
        let read = read(
            r#"{"image":{"name":"ruby:3","entrypoint":[""],"pull_policy":["always","never"],
                 "executor_opts":{"docker":{"user":"app","platform":"linux/arm64"}}},
                "services":[{"name":"postgres:16","alias":"db,pg  sql","command":["-c","x=1"],"entrypoint":[],
                 "pull_policy":"if-not-present","variables":[{"key":"A","value":"$B-${B}$$1 $ é$"}]},null,{"alias":"x"}],
                "credentials":[{"type":"registry","url":"r:5000","username":"u","password":"p"},{"type":"index","url":"x"}],
                "variables":[{"key":"B","value":"raw","public":true},{"key":"S","value":"s","public":false},
                 {"key":"T","value":"1","public":true},{"key":"T","value":"2","masked":true}]}"#,
            &[
                ("B", "b"),
                ("S", "s"),
                ("T", "2"),
                ("DOCKER_AUTH_CONFIG", "{}"),
            ],
        );
        let image = read.image.unwrap();
        assert_eq!(image.entrypoint, Some(vec![String::new()]));
        assert_eq!(image.pull_policy, ["always", "never"]);
        assert_eq!(image.user.as_deref(), Some("app"));
        assert_eq!(image.platform.as_deref(), Some("linux/arm64"));
        let [service] = &read.services[..] else {
            panic!("{:?}", read.services);
        };
        assert_eq!(service.aliases, ["db", "pg", "sql"]);
        assert_eq!(service.image.entrypoint, None);
        assert_eq!(service.image.pull_policy, ["if-not-present"]);
        assert_eq!(service.variables, [("A".into(), "b-b$1 $ é$".into())]);
        assert_eq!(read.credentials.len(), 1);
        assert_eq!(read.auth_config, Some(Secret("{}".into())));
        // A secret that shadows a public variable is still a secret.
        assert_eq!(read.variables, [("B".to_owned(), "b".to_owned())]);
        assert!(!format!("{:?}", read.credentials).contains("\"p\""));
    }

    #[test]
    fn a_file_variable_is_its_content() {
        let read = read(
            r#"{"variables":[{"key":"DOCKER_AUTH_CONFIG","value":"{\"auths\":{}}","file":true}]}"#,
            &[("DOCKER_AUTH_CONFIG", "/builds/x.tmp/DOCKER_AUTH_CONFIG")],
        );
        assert_eq!(read.auth_config.unwrap().0, r#"{"auths":{}}"#);
        assert!(read.variables.is_empty() && read.image.is_none());
    }
}
