//! A connection with a command on it, and what is ordered of the far side there.

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Call, SUBSYSTEM};
use crate::ssh::first_line::LINE;
use crate::ssh::session::{Receiver, Sender, Session};

/// How much of a script is sent at once.
const PIECE: usize = 256 << 10;

/// A connection with a command on it.
pub(super) struct CommandChannel {
    /// Ends the connection when dropped: the last handle to it.
    pub(super) session: Rc<Session>,
    pub(super) receiver: Receiver,
    orders: watch::Sender<Orders>,
    sent: watch::Receiver<Instant>,
    sender: JoinHandle<()>,
}

impl Drop for CommandChannel {
    fn drop(&mut self) {
        // It may wait for ever for a window that a dead peer does not open.
        self.sender.abort();
    }
}

/// All that was ordered on one connection. Never a queue: the far side need not read, and asks for receipts as often as it likes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Orders {
    /// The last receipt; those before it say nothing that it does not.
    ack: Option<u64>,
    cancel: bool,
    kill: bool,
    /// What is ordered last of all.
    last: Option<&'static str>,
}

impl Orders {
    /// Returns as lines what is ordered beyond those.
    fn beyond(&self, sent: &Self) -> String {
        let mut lines = String::new();
        if let Some(at) = self.ack.filter(|_| self.ack != sent.ack) {
            lines += &format!("ack {at}\n");
        }
        if self.cancel && !sent.cancel {
            lines += "cancel\n";
        }
        if self.kill && !sent.kill {
            lines += "kill\n";
        }
        if let Some(last) = self.last.filter(|_| self.last != sent.last) {
            lines += &format!("{last}\n");
        }
        lines
    }
}

impl CommandChannel {
    /// Runs a command, and sends it a script first; `None` where the connection is lost.
    pub(super) async fn open(session: Session, call: Call, script: Option<Bytes>) -> Option<Self> {
        let (line, (sender, receiver)) = match call {
            Call::Login(command) => (LINE.to_owned(), session.exec(command).await?),
            Call::Agent(request) => (request, session.subsystem(SUBSYSTEM).await?),
        };
        let (orders, wanted) = watch::channel(Orders::default());
        let (moved, sent) = watch::channel(Instant::now());
        Some(Self {
            session: Rc::new(session),
            receiver,
            orders,
            sent,
            sender: tokio::spawn(send(sender, line, script, wanted, moved)),
        })
    }

    /// When the command was begun, or the last of its script was taken from us.
    pub(super) fn last_sent(&self) -> Instant {
        *self.sent.borrow()
    }

    /// Tells that everything before that byte is safe.
    pub(super) fn ack(&self, at: u64) {
        self.order(|orders| orders.ack = Some(at));
    }

    /// Asks for the script's end.
    pub(super) fn cancel(&self) {
        self.order(|orders| orders.cancel = true);
    }

    /// Insists on it.
    pub(super) fn kill(&self) {
        self.order(|orders| orders.kill = true);
    }

    /// Has a script forgotten whose end is known.
    pub(super) fn done(&self) {
        self.order(|orders| orders.last = Some("done"));
    }

    /// Has a script ended and forgotten.
    pub(super) fn give_up(&self) {
        self.order(|orders| orders.last = Some("drop"));
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        // A sender that is gone means a lost connection, which the receiver tells.
        self.orders.send_modify(change);
    }
}

async fn send(
    sender: Sender,
    line: String,
    script: Option<Bytes>,
    mut orders: watch::Receiver<Orders>,
    moved: watch::Sender<Instant>,
) {
    if !sender.send(line.into()).await {
        return;
    }
    let mut script = script.unwrap_or_default();
    while !script.is_empty() {
        let piece = script.split_to(script.len().min(PIECE));
        if !sender.send(piece).await {
            return;
        }
        moved.send_replace(Instant::now());
    }
    let mut sent = Orders::default();
    loop {
        let wanted = orders.borrow_and_update().clone();
        let lines = wanted.beyond(&sent);
        if !lines.is_empty() && !sender.send(lines.into()).await {
            return;
        }
        sent = wanted;
        if orders.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::script::command_channel::*;

    #[test]
    fn of_receipts_the_last_counts_and_nothing_is_ordered_twice() {
        let mut orders = Orders::default();
        assert_eq!(orders.beyond(&Orders::default()), "");
        for at in 0..1000 {
            orders.ack = Some(at);
        }
        orders.cancel = true;
        assert_eq!(orders.beyond(&Orders::default()), "ack 999\ncancel\n");
        let sent = orders.clone();
        assert_eq!(orders.beyond(&sent), "");
        orders.ack = Some(1000);
        orders.kill = true;
        orders.last = Some("done");
        assert_eq!(orders.beyond(&sent), "ack 1000\nkill\ndone\n");
    }
}
