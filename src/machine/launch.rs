//! One launch, and what is known of it.

use serde::{Deserialize, Serialize};

use super::local::LocalRequest;
use super::request::Request;

/// One launch of one rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The exact request; sending it again finds what it started. Of one that is over nothing is left of it.
    pub request: Request,
    /// What came of it, as far as it was told.
    pub state: LaunchState,
}

/// What is known of a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaunchState {
    /// It was, or is just being, asked for; no answer is known.
    Asked,
    /// It has a name of its own: a task's ARN, an instance's id.
    Named(String),
    /// Nothing of it can be alive.
    Over,
}

impl Launch {
    /// Notes what came of it. Whatever is named or over is never asked for again, so what the request told the machine alone
    /// need not lie here any longer. One that is over goes on counting, since launches are numbered, and no more: a job that
    /// waits for room may have thousands of them.
    pub fn settle(&mut self, state: LaunchState) {
        match (&mut self.request, &state) {
            (request, LaunchState::Over) => *request = nothing(),
            (Request::Ec2(request), LaunchState::Named(_)) => request.user_data.clear(),
            _ => {}
        }
        self.state = state;
    }
}

/// Returns what stands in the place of a request that is over: the smallest that the versions before this one read as well.
fn nothing() -> Request {
    Request::Local(LocalRequest {
        token: "over".to_owned(),
        command: Vec::new(),
        port: 0,
        user: String::new(),
        public_key: String::new(),
        container: None,
    })
}
