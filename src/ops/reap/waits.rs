//! What `reap` waits for, told to whoever waits with it.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::ui::Ui;

/// Whoever sits at a terminal wonders after about a second.
const FIRST: Duration = Duration::from_secs(1);
/// So often in a log that a timer fills: most waits are over before.
const AGAIN: Duration = Duration::from_secs(30);

/// Does some work, and says what is waited for where it takes longer than a moment. It goes to standard error, so that JSON
/// stays alone on standard output.
pub(super) async fn told<T>(ui: Ui, what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let began = Instant::now();
    let mut next = began + FIRST;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep_until(next) => {
                let seconds = began.elapsed().as_secs();
                ui.progress(&line(what, seconds));
                next += AGAIN;
            }
        }
    }
}

fn line(what: &str, seconds: u64) -> String {
    if seconds < AGAIN.as_secs() {
        format!("Waiting for {what}...")
    } else {
        format!("Still waiting after {seconds} s for {what}...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_long_comes_to_its_end_all_the_same() {
        let ui = Ui::for_people(true);
        let work = async {
            tokio::time::sleep(3 * AGAIN).await;
            5
        };
        assert_eq!(told(ui, "something", work).await, 5);
        assert_eq!(line("x", 1), "Waiting for x...");
        assert_eq!(line("x", 31), "Still waiting after 31 s for x...");
    }
}
