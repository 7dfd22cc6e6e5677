//! Logins that do not come to their command: said in the job log, with what helps, and waited for all the same. A start-up file
//! may be slow and honest.

use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use crate::error::{Error, Kind};
use crate::ssh::session::Session;
use crate::ui::Ui;

/// How long a login may say nothing before the job log is told: somebody waits for a job that has not begun.
pub(super) const QUIET: Duration = Duration::from_secs(20);

/// What helps.
pub(super) const START_UP_FILES: &str = "Start-up files of the login (~/.bashrc, ~/.profile, ~/.zshenv, ~/.ssh/rc, their like in \
                                         /etc and /etc/profile.d: what its shell reads) must neither start another shell nor wait \
                                         or read where there is no terminal: have them begin with `[ -t 0 ] || return`.";

/// What is told of one user's login, once.
#[derive(Debug)]
pub(crate) struct Quiet<'a> {
    ui: Ui,
    user: &'a str,
    told: bool,
}

impl<'a> Quiet<'a> {
    pub(crate) fn new(ui: Ui, user: &'a str) -> Self {
        let told = false;
        Self { ui, user, told }
    }

    /// Says that it has been quiet for [`QUIET`], unless that was said; it may still come to its command.
    pub(super) fn tell(&mut self) {
        if !self.told {
            self.told = true;
            let (user, seconds) = (self.user, QUIET.as_secs());
            self.ui.warn(&format!(
                "the login of {user} has said nothing for {seconds} s. {START_UP_FILES}"
            ));
        }
    }

    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// Waits for the first command on a session, and says so where that takes long although the server is there.
    pub(crate) async fn watch<T>(
        &mut self,
        session: &Session,
        command: impl Future<Output = T>,
    ) -> T {
        let mut command = pin!(command);
        let looked = async {
            sleep(QUIET).await;
            session.answers().await
        };
        tokio::select! {
            biased;
            done = &mut command => return done,
            true = looked => self.tell(),
        }
        command.await
    }
}

/// The error where a login has not come to its first command within that time.
pub(crate) fn error(limit: Duration) -> Error {
    let what = format!(
        "the login to the machine did not come to its first command within {} s",
        limit.as_secs()
    );
    Error::new(Kind::Unreachable, what).hint(START_UP_FILES)
}
