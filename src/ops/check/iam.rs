//! `check --iam`: the IAM policy that a file needs, for the bastion's role or for a role that the bastion assumes.
//!
//! The statements are those of `config-examples/iam`, which are compiled in: in each that the file needs, the example's
//! region, account, names and fleet are replaced by the file's. Makes no request, so what only AWS knows (which roles a task
//! definition names) has to be given by flags, or is printed as a word to replace.

mod places;

use serde_json::{Map, Value, json};

use self::places::{Place, unique};
use crate::config::arn;
use crate::config::settings::{EcrLogin, Rung, Settings, Style};
use crate::error::{Error, Kind, Result};
use crate::pattern;

/// The examples, whose statements are taken by their names.
const EXAMPLES: [&str; 3] = [
    include_str!("../../../config-examples/iam/bastion.json"),
    include_str!("../../../config-examples/iam/bastion-ec2.json"),
    include_str!("../../../config-examples/iam/bastion-ecr.json"),
];
/// The fleet of the examples.
const FLEET: &str = "gitlab-aws-driver";
/// The limit of a managed policy, in characters without white space.
const LARGEST: usize = 6144;
/// Printed where only AWS knows which roles a task gets.
const ROLES_OF_TASKS: [&str; 2] = ["EXECUTION-ROLE", "TASK-ROLE"];
/// The same of an instance whose launch template is the administrator's own.
const ROLE_OF_INSTANCES: &str = "INSTANCE-ROLE";

/// A policy, and what is left to fill in.
#[derive(Debug)]
pub(super) struct Policy {
    /// The document, as IAM takes it.
    pub(super) document: Value,
    /// What it leaves open, as sentences.
    pub(super) notes: Vec<String>,
}

/// Returns the policy of the bastion's own role, or of that role. `passed` are the roles that tasks get.
///
/// # Errors
/// If no call of the file's is made with that role.
pub(super) fn policy(settings: &Settings, role: Option<&str>, passed: &[String]) -> Result<Policy> {
    let mut writer = Writer {
        examples: statements()?,
        fleet: &settings.fleet,
        statements: Vec::new(),
        notes: Vec::new(),
    };
    let by = |own: Option<&String>, s: &Settings| match role {
        None => own.is_none(),
        Some(role) => own.is_some_and(|own| own == role) || may_choose(s, role),
    };
    let all: Vec<&Settings> = settings.each().collect();
    let of_tasks = all
        .iter()
        .copied()
        .filter(|s| uses_tasks(s) && by(s.fargate.as_ref().and_then(|f| f.role_arn.as_ref()), s));
    let of_tasks: Vec<&Settings> = of_tasks.collect();
    let of_instances = all
        .iter()
        .copied()
        .filter(|s| uses_instances(s) && by(s.ec2.as_ref().and_then(|e| e.role_arn.as_ref()), s));
    let of_instances: Vec<&Settings> = of_instances.collect();
    if !of_tasks.is_empty() {
        writer.tasks(&of_tasks, role, passed)?;
    }
    if role.is_none() {
        writer.roles(&all)?;
    }
    if !of_instances.is_empty() {
        writer.instances(&of_instances, role, passed)?;
    }
    if role.is_none() && settings.manager.is_some() {
        writer.other_bastions(settings, &of_instances)?;
    }
    if writer.statements.is_empty() && role.is_some() {
        let what = format!(
            "nothing of this file is done by the role {}",
            role.unwrap_or_default()
        );
        return Err(Error::new(Kind::Config, what).hint(
            "Name one that stands at role_arn, or that [limits] roles lets jobs choose; without =ROLE the bastion's own policy is printed.",
        ));
    }
    Ok(writer.done())
}

/// Reads the examples' statements, by their names.
fn statements() -> Result<Map<String, Value>> {
    let bug =
        |e: serde_json::Error| Error::new(Kind::Bug, "an example policy is no JSON").because(e);
    let mut all = Map::new();
    for text in EXAMPLES {
        let mut policy: Value = serde_json::from_str(text).map_err(bug)?;
        if let Value::Array(statements) = policy["Statement"].take() {
            let named = statements.into_iter();
            all.extend(named.map(|s| (s["Sid"].as_str().unwrap_or_default().to_owned(), s)));
        }
    }
    Ok(all)
}

/// Every rung on which a job may run.
fn rungs(settings: &Settings) -> impl Iterator<Item = &Rung> {
    let choice = settings.limits.iter().flat_map(|limits| &limits.capacity);
    settings.capacity.iter().chain(choice)
}

fn uses_tasks(settings: &Settings) -> bool {
    // Without a rung the cluster's own strategy decides.
    let by_default = settings.capacity.is_empty()
        && (settings.fargate.is_some() || settings.style == Style::GoDriver);
    by_default || rungs(settings).any(Rung::is_task)
}

fn uses_instances(settings: &Settings) -> bool {
    rungs(settings).any(Rung::is_instance)
}

fn may_choose(settings: &Settings, role: &str) -> bool {
    let patterns = settings.limits.iter().flat_map(|limits| &limits.roles);
    patterns
        .into_iter()
        .any(|one| pattern::fits(one, role, pattern::OF_ARNS))
}

struct Writer<'a> {
    examples: Map<String, Value>,
    fleet: &'a str,
    statements: Vec<Value>,
    notes: Vec<String>,
}

impl Writer<'_> {
    fn tasks(&mut self, all: &[&Settings], role: Option<&str>, passed: &[String]) -> Result<()> {
        let places: Vec<Place> = all.iter().map(|s| Place::of_tasks(s, role)).collect();
        let definitions = unique(places.iter().flat_map(|place| place.definitions.clone()));
        self.add("LaunchTasks", &places, Some(definitions))?;
        self.add("WatchAndEndTasks", &places, None)?;
        let roles = match passed {
            [] => {
                self.note("iam:PassRole names no role of a task definition yet: put the execution role and the task role of each in the places of EXECUTION-ROLE and TASK-ROLE, or name them by --pass-role ARN.");
                let named = |place: &Place| ROLES_OF_TASKS.map(|name| place.role(name));
                unique(places.iter().flat_map(named))
            }
            named => named.to_vec(),
        };
        self.add("PassRolesToTasks", &places, Some(roles))?;
        self.add("TagTasksAtLaunch", &places, None)?;
        self.add("FindLeftOverTasks", &places, None)?;
        let dials_public = |s: &&Settings| {
            let fargate = s.fargate.as_ref();
            fargate.is_some_and(|f| f.enable_public_ip && f.use_public_ip.unwrap_or(true))
        };
        if all.iter().any(dials_public) {
            self.add("ReadPublicAddresses", &places, None)?;
        }
        self.unknown(&places);
        Ok(())
    }

    /// Allows the bastion to assume the roles that the file or its jobs name.
    fn roles(&mut self, all: &[&Settings]) -> Result<()> {
        let own = all.iter().flat_map(|s| {
            let tasks = s.fargate.as_ref().filter(|_| uses_tasks(s));
            let tasks = tasks.and_then(|f| f.role_arn.clone());
            let instances = s.ec2.as_ref().filter(|_| uses_instances(s));
            tasks
                .into_iter()
                .chain(instances.and_then(|e| e.role_arn.clone()))
        });
        let chosen = all
            .iter()
            .flat_map(|s| s.limits.iter().flat_map(|l| l.roles.clone()));
        let roles = unique(own.chain(chosen).map(|role| role.replace("**", "*")));
        if all.iter().any(|s| s.limits.is_none()) {
            self.note("Any job may take on any role by ROLE_ARN, as with the Go driver: for those that do, allow sts:AssumeRole and sts:TagSession on their roles, or list them under [limits] roles.");
        }
        if roles.is_empty() {
            return Ok(());
        }
        for role in &roles {
            self.note(&format!(
                "{role} needs a policy of its own: check --iam={role}"
            ));
        }
        self.add("TakeOnProjectRoles", &[], Some(roles))
    }

    fn instances(
        &mut self,
        all: &[&Settings],
        role: Option<&str>,
        passed: &[String],
    ) -> Result<()> {
        let places: Vec<Place> = all.iter().map(|s| Place::of_instances(s, role)).collect();
        for name in [
            "LaunchFromWhatIsThere",
            "LaunchWithTheFleetsTag",
            "TagAtLaunchAlone",
            "EndWhatCarriesTheFleetsTag",
        ] {
            self.add(name, &places, None)?;
        }
        let tables = || all.iter().filter_map(|s| s.ec2.as_ref());
        if tables().any(|ec2| ec2.instance_connect) {
            self.add("SendKeysToTheFleetsInstances", &places, None)?;
        }
        self.add("LookAtInstances", &places, None)?;
        let parameters = unique(places.iter().flat_map(|place| place.parameters.clone()));
        if !parameters.is_empty() {
            self.add("ReadImageParameters", &places, Some(parameters))?;
        }
        let mut roles: Vec<String> = places
            .iter()
            .flat_map(|p| p.instance_roles.clone())
            .collect();
        if tables().any(|ec2| ec2.launch_template.is_some()) {
            match passed {
                [] => {
                    self.note("iam:PassRole does not know the role of the launch template's instance profile: put it in the place of INSTANCE-ROLE, name it by --pass-role ARN, or take it out where the template has none.");
                    roles.extend(places.iter().map(|place| place.role(ROLE_OF_INSTANCES)));
                }
                named => roles.extend_from_slice(named),
            }
        } else if !roles.is_empty() {
            self.note("The role of `instance_profile` is taken to have the profile's name; where it has another, correct iam:PassRole.");
        }
        if !roles.is_empty() {
            self.add("PassTheInstanceRole", &places, Some(unique(roles)))?;
        }
        if tables().any(|ec2| ec2.container && ec2.ecr_login == EcrLogin::Driver) {
            let registries: Vec<Place> = places.iter().flat_map(Place::registries).collect();
            self.add("LogInToEcrForInstances", &registries, None)?;
            let repositories = unique(registries.iter().flat_map(|r| r.repositories.clone()));
            self.add("PullByThatLogin", &registries, Some(repositories))?;
        }
        self.unknown(&places);
        Ok(())
    }

    /// Allows a check whether another bastion of the same `[state] manager` lives.
    fn other_bastions(&mut self, settings: &Settings, instances: &[&Settings]) -> Result<()> {
        if !instances.is_empty() {
            return Ok(());
        }
        self.add("LookAtInstances", &[Place::of_tasks(settings, None)], None)?;
        if let Some(last) = self.statements.last_mut() {
            last["Action"] = json!(["ec2:DescribeInstances"]);
        }
        Ok(())
    }

    /// Adds a statement of the examples, as it is for these places.
    fn add(&mut self, name: &str, places: &[Place], resources: Option<Vec<String>>) -> Result<()> {
        let Some(example) = self.examples.get(name) else {
            let what = format!("the example policies have no statement {name}");
            return Err(Error::new(Kind::Bug, what));
        };
        let mut statement = example.clone();
        let resources = resources.unwrap_or_else(|| {
            let written = texts(&example["Resource"]);
            unique(
                written
                    .iter()
                    .flat_map(|text| places.iter().map(|place| place.resource(text))),
            )
        });
        statement["Resource"] = json!(resources);
        if let Some(condition) = self.condition(example, places) {
            statement["Condition"] = condition;
        } else if let Some(statement) = statement.as_object_mut() {
            statement.remove("Condition");
        }
        self.statements.push(statement);
        Ok(())
    }

    /// Returns a statement's condition for these places; `None` if none is left.
    fn condition(&self, example: &Value, places: &[Place]) -> Option<Value> {
        let mut all = Map::new();
        for (operator, keys) in example["Condition"].as_object()? {
            let mut of_operator = Map::new();
            for (key, value) in keys.as_object()? {
                let written = texts(value);
                let here = match key.as_str() {
                    "aws:RequestedRegion" => {
                        let regions = places.iter().map(|place| place.region.clone());
                        unique(regions.collect::<Option<Vec<_>>>().into_iter().flatten())
                    }
                    "iam:PassedToService" => unique(written.iter().flat_map(|service| {
                        places.iter().flat_map(|place| place.principals(service))
                    })),
                    _ if written == [FLEET] => vec![self.fleet.to_owned()],
                    "ecs:cluster" => unique(places.iter().map(Place::cluster_arn)),
                    _ => written,
                };
                match here.as_slice() {
                    [] => {}
                    [one] if value.is_string() => drop(of_operator.insert(key.clone(), json!(one))),
                    several => drop(of_operator.insert(key.clone(), json!(several))),
                }
            }
            if !of_operator.is_empty() {
                all.insert(operator.clone(), Value::Object(of_operator));
            }
        }
        (!all.is_empty()).then_some(Value::Object(all))
    }

    fn unknown(&mut self, places: &[Place]) {
        if places.iter().any(|place| place.account == "*") {
            self.note("The file does not say which account it is for: put its number in the places of `*` between two colons.");
        }
        if places.iter().any(|place| place.region.is_none()) {
            self.note("The file does not say which region it is for: name it by `region`, or replace `*` in the policy.");
        }
    }

    fn note(&mut self, text: &str) {
        if !self.notes.iter().any(|note| note == text) {
            self.notes.push(text.to_owned());
        }
    }

    fn done(mut self) -> Policy {
        if self.statements.is_empty() {
            self.note("This file needs nothing of AWS: jobs run on this host.");
        }
        let document = json!({ "Version": "2012-10-17", "Statement": self.statements });
        let length = document
            .to_string()
            .chars()
            .filter(|c| !c.is_whitespace())
            .count();
        if length > LARGEST {
            self.note(&format!(
                "The policy has {length} characters, and a managed one holds {LARGEST}: make two of its statements, or put it into the role itself (aws iam put-role-policy)."
            ));
        }
        Policy {
            document,
            notes: self.notes,
        }
    }
}

/// Returns the one text, or those of a list.
fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::Array(all) => all.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect(),
    }
}

/// Returns the account that an ARN names.
fn account_of(text: &str) -> Option<String> {
    let account = text.starts_with("arn:").then(|| text.split(':').nth(4))??;
    arn::is_account(account).then(|| account.to_owned())
}
