//! The end of a script on its machine: nothing of it may stay there, whether its result is known or not.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::Verb;
use super::follow::{Script, guarded};
use super::frames::{Frame, Item, Scanner};
use crate::script::command_channel::CommandChannel;
use crate::script::interruptions::{CANCEL_LIMIT, Interruptions};
use crate::script::survivors::Survivors;
use crate::ssh::connect::connect_within;
use crate::ssh::session::{Event, Receiver};

/// How long the far side may take to forget a script whose end is known.
const FORGET_LIMIT: Duration = Duration::from_secs(5);
/// How often it is asked to, each time on a new connection.
const FORGET_ATTEMPTS: u32 = 3;
/// From the end of a script to the end of the stage, however many of these attempts there were.
const TIDY_LIMIT: Duration = Duration::from_secs(8);

/// Lets the far side forget a script whose end is known, since that time. Its result stands, whatever happens here, and is not
/// held up by it; where the connection is lost just now, it is asked again, so that the spool does not stay.
pub(super) async fn forget(
    script: &Script<'_>,
    interruptions: &mut Interruptions,
    offset: u64,
    mut channel: CommandChannel,
    known: Instant,
) {
    // A cancelled stage is over when all its processes are, which the far side waits for: until the stage's own limit.
    let (limit, deadline) = if interruptions.cancels > 0 {
        (CANCEL_LIMIT, known + CANCEL_LIMIT)
    } else {
        (FORGET_LIMIT, known + TIDY_LIMIT)
    };
    let mut left = Survivors::default();
    let forgotten = async {
        for attempt in 0..FORGET_ATTEMPTS {
            let fresh = attempt > 0;
            if fresh {
                let until = deadline.min(Instant::now() + FORGET_LIMIT);
                let Ok(session) =
                    connect_within(script.endpoint, script.key, &script.ceiling, || until).await
                else {
                    return;
                };
                let call = script.call(Verb::Follow(offset));
                let Some(again) = CommandChannel::open(session, call, None).await else {
                    continue;
                };
                channel = again;
            }
            channel.done();
            let told = is_forgotten(&mut channel.receiver, script, &mut left, fresh);
            if timeout(limit, told).await == Ok(true) {
                return;
            }
            tracing::debug!(
                attempt,
                "the far side did not say that it forgot the script"
            );
        }
    };
    match guarded(interruptions, timeout_at(deadline, forgotten)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::debug!("the far side took too long to forget the script"),
        Err(_) => tracing::debug!("interrupted while the far side forgot the script"),
    }
    interruptions.left.note_all(&left);
    if !interruptions.left.is_empty() {
        script.ui.warn(&format!(
            "processes of the cancelled script do not die: {}",
            interruptions.left
        ));
    }
}

/// Ends and forgets a script whose result will never be known.
pub(super) async fn drop_script(
    script: &Script<'_>,
    interruptions: &mut Interruptions,
    channel: &mut CommandChannel,
) {
    channel.give_up();
    let mut left = Survivors::default();
    let limited = timeout(
        2 * FORGET_LIMIT,
        is_forgotten(&mut channel.receiver, script, &mut left, false),
    );
    // What failed before is what is told; this only tidies up.
    guarded(interruptions, limited).await.map(drop).ok();
}

/// Waits until the far side says that nothing of the script is left, noting the processes that it names; `false`
/// where it ends without that, or does not keep the protocol. On a fresh line it may find nothing any more.
async fn is_forgotten(
    receiver: &mut Receiver,
    script: &Script<'_>,
    left: &mut Survivors,
    fresh: bool,
) -> bool {
    let mut stdout = Scanner::new(script.nonce.as_str());
    let mut stderr = Scanner::new(script.nonce.as_str());
    let mut open = !fresh;
    loop {
        match receiver.next().await {
            Event::Ended | Event::Lost => return false,
            Event::Err(data) => note_survivors(&mut stderr, &data, script, left),
            Event::Out(data) => {
                stdout.push(&data);
                loop {
                    match stdout.take() {
                        Ok(Some(Item::Frame(Frame::Forgotten))) => return true,
                        Ok(Some(Item::Frame(Frame::Gone(_)))) if !open => return true,
                        Ok(Some(Item::Frame(Frame::Open(_)))) => open = true,
                        Ok(Some(Item::Frame(Frame::Left(name)))) => left.note(&name),
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(malformed) => {
                            tracing::debug!(%malformed, "while the far side forgot the script");
                            return false;
                        }
                    }
                }
            }
        }
    }
}

/// Notes the processes that the far side could not end.
pub(super) fn note_survivors(
    scanner: &mut Scanner,
    data: &[u8],
    script: &Script<'_>,
    left: &mut Survivors,
) {
    scanner.push(data);
    loop {
        match scanner.take() {
            Ok(Some(Item::Frame(Frame::Left(name)))) => left.note(&name),
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
