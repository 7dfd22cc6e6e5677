//! Launch templates that launches of this host have made and that EC2 has not taken for a launch yet: where it refuses
//! such a launch for good, its template goes at once, unless another launch counts on it.
//!
//! A template is shared by all launches of the same settings. So what was there before stays, and whatever goes is made
//! again by whoever needs it (see [`super::launch`]); what cannot be removed is left to `reap`.

use std::time::Duration;

use super::Api;
use crate::compute::aws::classify::Action;
use crate::machine::Request;
use crate::machine::access::Access;
use crate::machine::instance::{InstanceRequest, Template};
use crate::machine::template::Setting;
use crate::machine::verdict::Why;
use crate::state::record::Intent;
use crate::state::{Job, Store};

/// How long a template counts as just made: many times as long as a launch takes.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// One call, repeated within that time: the job fails anyway, and waits for this.
const DELETE_LIMIT: Duration = Duration::from_secs(20);

/// Notes that a template was made.
pub(super) fn note(store: &Store, access: &Access, setting: &Setting) {
    store.keep(&about(&access.key(), &setting.name()), &());
}

/// Notes that EC2 has taken a request: its templates are good, and stay for others.
pub(super) fn proved(store: &Store, request: &InstanceRequest) {
    for name in names(request) {
        store.forget(&about(&request.access.key(), &name));
    }
}

/// Removes the templates that were made for a request, after EC2 has refused it for good.
pub(super) async fn withdraw(api: &Api, request: &InstanceRequest, store: &Store) {
    let account = request.access.key();
    for name in names(request) {
        let about = about(&account, &name);
        let made = store.recall::<()>(&about, KEPT).is_some();
        if !made || is_counted_on(store, &name, &request.token) {
            continue;
        }
        // First: whoever makes it anew meanwhile notes that anew.
        store.forget(&about);
        let call = async || {
            let delete = api.ec2.delete_launch_template();
            delete.launch_template_name(&name).send().await
        };
        let action = Action::DeleteLaunchTemplate;
        if let Err(failure) = api.aws.call(action, DELETE_LIMIT, call).await
            && failure.verdict.why != Why::NotFound
        {
            let cause = failure.verdict.cause;
            tracing::debug!(name, cause, "a template is left to `reap`");
            store.keep(&about, &());
        }
    }
}

fn about<'a>(account: &'a str, name: &'a str) -> [&'a str; 3] {
    ["template made", account, name]
}

/// Returns the templates of the driver's own that a request may have had made.
fn names(request: &InstanceRequest) -> Vec<String> {
    let Template::Own(setting) = &request.template else {
        return Vec::new();
    };
    let mut names = vec![setting.name(), setting.plain().name()];
    names.dedup();
    names
}

/// Whether a launch with another token may need a template. What cannot be read may name any.
fn is_counted_on(store: &Store, name: &str, token: &str) -> bool {
    let counts_on = |job: &Job| match job.intent() {
        Ok(intent) => intent.iter().flat_map(Intent::open_launches).any(|launch| {
            matches!(&launch.request, Request::Ec2(other)
                if other.token != token && names(other).iter().any(|n| n == name))
        }),
        Err(_) => true,
    };
    store.jobs().map_or(true, |jobs| jobs.iter().any(counts_on))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::ec2::api::request::tests::request;
    use crate::machine::launch::{Launch, LaunchState};

    #[test]
    fn a_template_is_counted_on_by_open_launches_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let request = request();
        let name = names(&request).remove(0);
        assert!(!is_counted_on(&store, &name, &request.token));

        let job = store.job("a");
        let mut intent = Intent::new("1".into(), None, None, Duration::from_secs(60));
        intent.launches.push(Launch {
            request: Request::Ec2(Box::new(request.clone())),
            state: LaunchState::Asked,
        });
        job.lock().unwrap().write_intent(&intent).unwrap();
        assert!(!is_counted_on(&store, &name, &request.token));
        assert!(is_counted_on(&store, &name, "another"));
        assert!(!is_counted_on(&store, "another", "another"));

        intent.launches[0].settle(LaunchState::Over);
        job.lock().unwrap().write_intent(&intent).unwrap();
        assert!(!is_counted_on(&store, &name, "another"));

        std::fs::write(job.directory().join("intent.json"), "{").unwrap();
        assert!(is_counted_on(&store, &name, "another"));
    }
}
