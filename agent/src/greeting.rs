//! What the agent tells of itself and of where it runs, and what is agreed with it there.
//!
//! The image and its entrypoint are somebody else's. So whoever connects first asks what there is, before anything is started
//! that could fail for want of it. Lines of text: `hello VERSION` is answered by lines `NAME VALUE` and an empty one; each
//! other order by one line. Readers skip names that they do not know, so that later versions can tell more.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::ChannelMsg;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::agent::Agent;
use crate::channel::{Ends, Gone, send};
use crate::container::Above;
use crate::users;

/// The subsystem's name.
pub(crate) const NAME: &str = "gad-greeting";

/// The version of the words between a driver and an agent. It changes when an older one of the two would misunderstand them;
/// what is merely new is a word of `can`.
const PROTOCOL: u32 = 1;

/// What this agent can do.
const CAN: &str = "script terminal umask";

/// The longest order.
const ORDER_MAX: usize = 256;

/// The longest value, in characters.
const VALUE_MAX: usize = 4096;

/// How many answers may wait for a client that does not read; one that goes on asking is hung up on.
const ANSWERS_MAX: usize = 64;

/// How long a client has to take in the last answer before the agent ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// An answer, and whether the agent ends when it was given.
struct Answer {
    text: String,
    is_last: bool,
}

/// Serves one channel.
pub(crate) async fn serve(ends: Ends, agent: Arc<Agent>) {
    let Ends {
        mut read,
        write,
        mut early,
        mut at_end,
        valve,
    } = ends;
    let (answers, mut waiting) = mpsc::channel::<Answer>(ANSWERS_MAX);
    let end_ordered = AtomicBool::new(false);
    let reading = async {
        let mut answers = Some(answers);
        let mut orders = Orders::default();
        loop {
            // All that came is taken in at once, and nothing is kept but the start of an order.
            let data = match early.some(u64::MAX) {
                Some(data) => data,
                None if at_end => {
                    // What was asked is still answered.
                    answers = None;
                    at_end = false;
                    continue;
                }
                None => match read.wait().await {
                    Some(ChannelMsg::Data { data }) => data,
                    Some(ChannelMsg::Eof) => {
                        at_end = true;
                        continue;
                    }
                    Some(ChannelMsg::Close) | None => return,
                    Some(_) => continue,
                },
            };
            let Some(answers) = &answers else { continue };
            let Ok(orders) = orders.take(&data) else {
                return;
            };
            for order in orders {
                let answer = answer(&order, &agent);
                end_ordered.fetch_or(answer.is_last, Ordering::Relaxed);
                if answers.try_send(answer).is_err() {
                    return;
                }
            }
        }
    };
    let writing = async {
        while let Some(answer) = waiting.recv().await {
            send(&write, None, answer.text.into(), &valve).await?;
            if answer.is_last {
                break;
            }
        }
        write.eof().await.map_err(|_| Gone)?;
        write.close().await.map_err(|_| Gone)
    };
    tokio::pin!(reading);
    let ended = tokio::select! {
        () = &mut reading => false,
        written = writing => written.is_ok(),
    };
    if ended {
        // The client's own close says that it has everything.
        drop(timeout(FAREWELL, reading).await);
    } else {
        // Fails where the connection is gone.
        drop(write.close().await);
    }
    // Whether or not the answer was heard.
    if end_ordered.load(Ordering::Relaxed) {
        agent.life.end();
    }
}

/// Takes lines out of pieces.
#[derive(Default)]
struct Orders {
    started: Vec<u8>,
}

/// A line is too long.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

impl Orders {
    fn take(&mut self, mut data: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut whole = Vec::new();
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            self.started
                .extend_from_slice(&data[..end.min(ORDER_MAX + 1)]);
            if self.started.len() > ORDER_MAX {
                return Err(TooLong);
            }
            whole.push(String::from_utf8_lossy(&self.started).into_owned());
            self.started.clear();
            data = &data[end + 1..];
        }
        if self.started.len() + data.len() > ORDER_MAX {
            return Err(TooLong);
        }
        self.started.extend_from_slice(data);
        Ok(whole)
    }
}

/// Does what a line asks for.
fn answer(order: &str, agent: &Agent) -> Answer {
    let mut words = order.split_ascii_whitespace();
    let words = (words.next().unwrap_or(""), words.next(), words.next());
    let mut is_last = false;
    let text = match words {
        ("hello", Some(_), None) => greeting(agent),
        ("pin", None, None) => {
            agent.host_keys.pin();
            "pinned\n".to_owned()
        }
        ("until", Some(said), None) => match said.parse() {
            Ok(until) => {
                agent.life.set_until(until);
                format!("until {until}\n")
            }
            Err(_) => unknown("until"),
        },
        ("end", None, None) => {
            is_last = true;
            "ending\n".to_owned()
        }
        ("terminal", Some("on"), None) => {
            agent.allow_terminals(true);
            "terminal on\n".to_owned()
        }
        ("terminal", Some("off"), None) => {
            agent.allow_terminals(false);
            "terminal off\n".to_owned()
        }
        (word, _, _) => unknown(word),
    };
    Answer { text, is_last }
}

fn unknown(word: &str) -> String {
    format!("unknown {}\n", clean(word))
}

/// Says all there is to say.
fn greeting(agent: &Agent) -> String {
    let mut text = String::new();
    let mut tell = |name: &str, value: &str| {
        // Nothing that is written to a string fails.
        let _ = writeln!(text, "{name} {}", clean(value));
    };
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    tell("agent", env!("CARGO_PKG_VERSION"));
    tell("protocol", &PROTOCOL.to_string());
    tell("can", CAN);
    tell("host-key", agent.host_keys.line());
    tell("uid", &rustix::process::geteuid().to_string());
    tell("gid", &rustix::process::getegid().to_string());
    let groups = users::own_groups();
    let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
    tell("groups", &groups.join(" "));
    let user = users::own_entry().map(|entry| entry.name.to_string_lossy().into_owned());
    tell("user", &or_none(user));
    let home = agent.launcher.home();
    tell(
        "home",
        &or_none(home.map(|home| home.display().to_string())),
    );
    let directory = std::env::current_dir().ok();
    let directory = directory.map(|directory| directory.display().to_string());
    tell("directory", &or_none(directory));
    tell("arch", std::env::consts::ARCH);
    let above = Above::now();
    let first = if above.is_first {
        Some("yes".to_owned())
    } else {
        above.first
    };
    tell("process-1", &or_none(first));
    tell("below", &or_none(above.parent));
    tell("holds-term", if above.holds_term { "yes" } else { "no" });
    let shell = agent.launcher.shell_for_scripts().map(|words| {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    });
    tell("shell", &or_none(shell));
    tell(
        "until",
        &or_none(agent.life.until().map(|until| until.to_string())),
    );
    let idle = agent.life.idle();
    tell(
        "idle",
        &or_none(idle.map(|idle| idle.as_secs().to_string())),
    );
    text.push('\n');
    text
}

/// Makes a value fit for a line of its own.
fn clean(value: &str) -> String {
    value
        .chars()
        .take(VALUE_MAX)
        .map(|it| if it.is_control() { '?' } else { it })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_in_pieces() {
        let mut orders = Orders::default();
        assert_eq!(orders.take(b"hel").unwrap(), [""; 0]);
        assert_eq!(orders.take(b"lo 1\npin\nun").unwrap(), ["hello 1", "pin"]);
        assert_eq!(orders.take(b"\xff\n\n").unwrap(), ["un\u{fffd}", ""]);
    }

    #[test]
    fn an_order_has_an_end() {
        let mut orders = Orders::default();
        let longest = [b'x'; ORDER_MAX];
        assert!(orders.take(&longest).unwrap().is_empty());
        assert_eq!(orders.take(b"\n").unwrap().len(), 1);
        assert!(orders.take(&longest).unwrap().is_empty());
        assert_eq!(orders.take(b"x"), Err(TooLong));
        let mut orders = Orders::default();
        assert!(orders.take(&longest).is_ok());
        assert_eq!(orders.take(b"x\n"), Err(TooLong));
    }

    #[test]
    fn values_stay_on_their_line() {
        assert_eq!(clean("a\nuid 0\u{1b}[1m"), "a?uid 0?[1m");
        assert_eq!(clean(&"x".repeat(VALUE_MAX + 1)).len(), VALUE_MAX);
    }
}
