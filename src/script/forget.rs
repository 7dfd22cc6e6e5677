//! The end of a script on its machine: nothing of it may stay there, whether its result is known or not.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Verb;
use super::follow::{Line, Script, guarded};
use super::frames::{Frame, Item, Scanner};
use super::world::{CANCEL_LIMIT, World};
use crate::error::one_line;
use crate::ssh::connect::connect;
use crate::ssh::session::{Event, Receiver};

/// How long the far side may take to forget a script whose end is known.
const FORGET_LIMIT: Duration = Duration::from_secs(5);
/// How often it is asked to, each time on a new connection.
const FORGET_ATTEMPTS: u32 = 3;

/// Lets the far side forget a script whose end is known. Its result stands, whatever happens here; where the
/// connection is lost just now, it is asked again, so that the spool does not stay.
pub(super) async fn forget(script: &Script<'_>, world: &mut World, offset: u64, mut line: Line) {
    // A cancelled stage is over when all its processes are, which the far side waits for.
    let limit = if world.cancels > 0 {
        CANCEL_LIMIT
    } else {
        FORGET_LIMIT
    };
    let mut left = Vec::new();
    let forgotten = async {
        for attempt in 0..FORGET_ATTEMPTS {
            let fresh = attempt > 0;
            if fresh {
                let deadline = Instant::now() + FORGET_LIMIT;
                let Ok(session) = connect(script.endpoint, script.key, || deadline).await else {
                    return;
                };
                let command = script.command(Verb::Follow(offset));
                let Some(again) = Line::open(session, command, None).await else {
                    continue;
                };
                line = again;
            }
            line.order("done\n".to_owned());
            let told = is_forgotten(&mut line.receiver, script, &mut left, fresh);
            if timeout(limit, told).await == Ok(true) {
                return;
            }
            tracing::debug!(
                attempt,
                "the far side did not say that it forgot the script"
            );
        }
    };
    if guarded(world, forgotten).await.is_err() {
        tracing::debug!("interrupted while the far side forgot the script");
    }
    world.left.append(&mut left);
    if !world.left.is_empty() {
        script.ui.warn(&format!(
            "processes of the cancelled script do not die: {}",
            world.left.join(", ")
        ));
    }
}

/// Ends and forgets a script whose result will never be known.
pub(super) async fn drop_script(script: &Script<'_>, world: &mut World, line: &mut Line) {
    line.order("drop\n".to_owned());
    let mut left = Vec::new();
    let limited = timeout(
        2 * FORGET_LIMIT,
        is_forgotten(&mut line.receiver, script, &mut left, false),
    );
    // What failed before is what is told; this only tidies up.
    guarded(world, limited).await.map(drop).ok();
}

/// Waits until the far side says that nothing of the script is left, noting the processes that it names; `false`
/// where it ends without that. On a fresh line it may find nothing any more.
async fn is_forgotten(
    receiver: &mut Receiver,
    script: &Script<'_>,
    left: &mut Vec<String>,
    fresh: bool,
) -> bool {
    let mut stdout = Scanner::new(script.nonce.as_str());
    let mut stderr = Scanner::new(script.nonce.as_str());
    let mut open = !fresh;
    loop {
        match receiver.next().await {
            Event::Ended | Event::Lost => return false,
            Event::Err(data) => heed_left(&mut stderr, &data, script, left),
            Event::Out(data) => {
                stdout.push(&data);
                while let Ok(Some(item)) = stdout.take() {
                    match item {
                        Item::Frame(Frame::Forgotten) => return true,
                        Item::Frame(Frame::Gone(_)) if !open => return true,
                        Item::Frame(Frame::Open(_)) => open = true,
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Notes the processes that the far side could not end.
pub(super) fn heed_left(
    scanner: &mut Scanner,
    data: &[u8],
    script: &Script<'_>,
    left: &mut Vec<String>,
) {
    scanner.push(data);
    loop {
        match scanner.take() {
            Ok(Some(Item::Frame(Frame::Left(name)))) => left.push(one_line(&name)),
            Ok(Some(_)) => {}
            Ok(None) => return,
            // Standard error carries hints only: begin anew.
            Err(_) => {
                *scanner = Scanner::new(script.nonce.as_str());
                return;
            }
        }
    }
}
