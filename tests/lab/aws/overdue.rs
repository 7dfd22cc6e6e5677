//! Time that passes for what AWS holds: its deadline is another one, and the launch's token fits the tags as they then are.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gitlab_aws_driver::machine::proof;
use serde_json::json;

use super::Account;

const LAUNCH: &str = "gitlab-aws-driver:launch";
const DEADLINE: &str = "gitlab-aws-driver:deadline";
/// How long what is overdue is past its deadline.
const PAST: u64 = 3600;

/// Returns tags as a launch would have them that had another deadline.
pub(crate) fn with_deadline(
    tags: &BTreeMap<String, String>,
    deadline: u64,
) -> BTreeMap<String, String> {
    let mut tags = tags.clone();
    let token = tags.remove(LAUNCH).expect("a launch of the driver's");
    tags.insert(DEADLINE.to_owned(), deadline.to_string());
    let pairs: Vec<(String, String)> = tags.clone().into_iter().collect();
    tags.insert(LAUNCH.to_owned(), proof::token(&[&token], &pairs));
    tags
}

impl Account {
    /// Has all that has a deadline be an hour past it.
    pub(crate) fn make_overdue(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let deadline = now.expect("a clock that is set").as_secs() - PAST;
        let state = self.state();
        let instances = state.instances.iter().map(|one| (&one.id, &one.tags));
        let volumes = state.volumes.iter().map(|one| (&one.id, &one.tags));
        for (id, tags) in instances.chain(volumes) {
            if tags.contains_key(DEADLINE) {
                self.retag(id, &with_deadline(tags, deadline));
            }
        }
        for task in state.tasks.iter().filter(|task| task.is_alive()) {
            if task.tags.contains_key(DEADLINE) {
                self.tag_task(&task.arn, &with_deadline(&task.tags, deadline));
            }
        }
    }

    /// Gives a task tags, as somebody who may tag can.
    pub(crate) fn tag_task(&self, task: &str, tags: &BTreeMap<String, String>) {
        let tags: Vec<_> = tags
            .iter()
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        let request = json!({ "resourceArn": task, "tags": tags });
        let answer = self.call("ecs", "TagResource", &request);
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
