//! Serves one channel: its request, then a follower beside its orders.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ending::{CANCEL_GRACE, LEFT_OVER_GRACE, Survivors, Verdict};
use super::follow::{Sender, Stop, follow};
use super::inbox::{Inbox, Line};
use super::place::{NoPlace, ScriptFile};
use super::request::{Name, Order, Refused, Request};
use super::run::{Plan, Script};
use super::{Known, Scripts, session, shells};
use crate::agent::Agent;
use crate::channel::{Ends, Gone};

/// How much of a script is taken at once.
const PIECE: u64 = 256 << 10;

/// What stands for a nonce that a request did not have.
const NO_NONCE: &str = "00000000000000000000000000000000";

/// Serves one channel.
pub(crate) async fn serve(ends: Ends, agent: Arc<Agent>) {
    let Ends {
        read,
        write,
        early,
        at_end,
        valve,
    } = ends;
    let inbox = Inbox::new(early, at_end);
    let talk = async {
        let Line::Whole(line) = inbox.line().await else {
            let sender = Sender::new(write, NO_NONCE.to_owned(), valve);
            return sender.close().await;
        };
        let request = Request::parse(&line);
        let nonce = match &request {
            Ok(Request::Start { name, .. } | Request::Follow { name, .. }) => name.nonce.clone(),
            Err(Refused::Unknown {
                nonce: Some(nonce), ..
            }) => nonce.clone(),
            Err(_) => NO_NONCE.to_owned(),
        };
        let talk = Talk {
            agent: &agent,
            inbox: &inbox,
            sender: Sender::new(write, nonce, valve),
        };
        let answered = match request {
            Ok(request) => talk.answer(request).await,
            Err(refused) => Err(Close::from(refused)),
        };
        if let Err(close) = answered {
            inbox.deafen();
            let Close(Some(word)) = close else {
                return talk.sender.close().await;
            };
            talk.sender.frame(&word).await?;
        }
        talk.sender.close().await
    };
    tokio::select! {
        // First: orders that came with the channel's end still count.
        biased;
        // An error means that the connection is gone.
        done = talk => drop(done),
        () = async {
            inbox.fill(read).await;
            inbox.is_drained().await;
        } => {}
    }
}

/// The channel is to be closed, with a last frame if there is anything to say.
struct Close(Option<String>);

impl Close {
    fn with(word: impl Into<String>) -> Self {
        Self(Some(word.into()))
    }
}

impl From<Gone> for Close {
    fn from(_: Gone) -> Self {
        Self(None)
    }
}

impl From<Refused> for Close {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown { word, .. } => Self::with(format!("unknown {word}")),
            Refused::Nonsense => Self(None),
        }
    }
}

impl From<NoPlace> for Close {
    fn from(no_place: NoPlace) -> Self {
        match no_place {
            NoPlace::Crowded => Self::with("crowded"),
            NoPlace::Full(reason) => Self::with(format!("fail {reason}")),
        }
    }
}

/// What ended the orders of a channel.
enum Last {
    /// The client's input is over.
    End,
    /// The script's end is known: forget it.
    Done,
    /// End the script and forget it.
    Drop,
    /// A line that is no order.
    Refused(Refused),
}

/// The ending that was ordered on a channel.
#[derive(Clone)]
enum Ordered {
    /// None yet.
    Nothing,
    /// One whose result is not told yet.
    Ending(Verdict),
    /// One whose result is told.
    Told,
}

/// One channel.
struct Talk<'a> {
    agent: &'a Arc<Agent>,
    inbox: &'a Inbox,
    sender: Sender,
}

impl Talk<'_> {
    async fn answer(&self, request: Request) -> Result<(), Close> {
        if !session::can_see() {
            return Err(Close::with("lacks /proc"));
        }
        match request {
            Request::Follow { name, offset } => match self.agent.scripts.find(&name) {
                Known::Script(script) => {
                    // Whoever asks for a byte has those before it.
                    script.spool.receipt(offset);
                    self.attend(&script, offset).await
                }
                Known::Forgotten | Known::Never => Err(Close::with("gone 0")),
            },
            Request::Start {
                name,
                length,
                umask,
            } => {
                let script = self.start(name, length, umask).await?;
                self.attend(&script, 0).await
            }
        }
    }

    /// Returns the script of that name, which is started unless that was done.
    async fn start(
        &self,
        name: Name,
        length: u64,
        umask: Option<u32>,
    ) -> Result<Arc<Script>, Close> {
        let scripts = &self.agent.scripts;
        match scripts.find(&name) {
            Known::Script(script) => {
                // Sent again, though the first took effect: none of it is an order.
                self.receive(length, |_| Ok(())).await?;
                return Ok(script);
            }
            Known::Forgotten => return Err(Close::with("gone 0")),
            Known::Never => {}
        }
        let shell = shells::find().ok_or_else(|| Close::with("lacks shell"))?;
        self.end_others(&name).await;
        let tag = scripts.next_tag();
        let parents = self.parents();
        let mut file = ScriptFile::reserve(&parents, &name, tag, length).await?;
        self.receive(length, |piece| file.receive(piece)).await?;
        loop {
            // Another start may have come to its end meanwhile.
            match scripts.find(&name) {
                Known::Script(script) => return Ok(script),
                Known::Forgotten => return Err(Close::with("gone 0")),
                Known::Never if scripts.others(&name).is_empty() => break,
                Known::Never => self.end_others(&name).await,
            }
        }
        let plan = Plan {
            name,
            file,
            tag,
            shell,
            umask,
        };
        Ok(scripts.start(self.agent, plan)?)
    }

    /// Ends and forgets what runs under the job's key: a script whose driver was killed must not run on beside the next.
    async fn end_others(&self, name: &Name) {
        let others = self.agent.scripts.others(name);
        let verdicts: Vec<_> = others.iter().map(|it| it.end(LEFT_OVER_GRACE)).collect();
        for (script, mut verdict) in others.iter().zip(verdicts) {
            self.name_survivors(&verdict.wait().await).await;
            self.agent.scripts.forget(script);
        }
    }

    /// Where scripts may be kept, the best first.
    fn parents(&self) -> Vec<PathBuf> {
        let mut parents = vec![PathBuf::from("/var/tmp"), PathBuf::from("/tmp")];
        let home = self.agent.launcher.home().map(PathBuf::from);
        for parent in home.into_iter().chain(std::env::current_dir()) {
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        parents
    }

    /// Takes the script's bytes. A script that is cut off is nobody's.
    async fn receive(
        &self,
        length: u64,
        mut keep: impl FnMut(&[u8]) -> Result<(), NoPlace>,
    ) -> Result<(), Close> {
        let mut missing = length;
        while missing > 0 {
            let piece = self.inbox.take(missing.min(PIECE)).await;
            let piece = piece.ok_or(Close(None))?;
            missing -= piece.len() as u64;
            keep(&piece)?;
        }
        Ok(())
    }

    /// Serves a client that follows a script.
    async fn attend(&self, script: &Arc<Script>, offset: u64) -> Result<(), Close> {
        let mut turn = script.take_turn();
        tokio::select! {
            biased;
            attended = self.follow_and_obey(script, offset) => attended,
            () = turn.is_over() => Err(Close(None)),
        }
    }

    async fn follow_and_obey(&self, script: &Arc<Script>, offset: u64) -> Result<(), Close> {
        let (enough, told) = watch::channel(false);
        let mut follower = pin!(follow(script, offset, &self.sender, told));
        let mut ordered = Ordered::Nothing;
        let mut is_following = true;
        let last = {
            let mut orders = pin!(self.obey(script, &mut ordered));
            loop {
                tokio::select! {
                    biased;
                    last = &mut orders => break last,
                    stop = &mut follower, if is_following => match stop {
                        Stop::Over => is_following = false,
                        Stop::Lost => return Err(Close(None)),
                    },
                }
            }
        };
        let ending = match &last {
            Last::End => return Ok(()),
            Last::Refused(Refused::Nonsense) => return Err(Close(None)),
            Last::Refused(Refused::Unknown { .. }) => None,
            Last::Done => Some(match ordered {
                Ordered::Nothing => script.last_ending(),
                Ordered::Ending(ending) => Some(ending),
                Ordered::Told => None,
            }),
            Last::Drop => Some(Some(script.end(Duration::ZERO))),
        };
        // Begun before anything is waited for: the client may be gone.
        let forgetting = ending.map(|ending| Scripts::forget_after(self.agent, script, ending));
        self.inbox.deafen();
        enough.send_replace(true);
        if is_following {
            follower.await;
        }
        if let Some(forgetting) = forgetting {
            let survivors = forgetting.await.unwrap_or_default();
            self.name_survivors(&survivors).await;
        }
        match last {
            Last::Refused(refused) => Err(refused.into()),
            Last::End | Last::Done | Last::Drop => Err(Close::with("forgotten")),
        }
    }

    /// Obeys orders until the last one.
    async fn obey(&self, script: &Script, ordered: &mut Ordered) -> Last {
        loop {
            let line = tokio::select! {
                biased;
                line = self.inbox.line() => line,
                // Begun anew after each order, since only the last ending counts.
                () = self.tell(ordered.clone()) => {
                    *ordered = Ordered::Told;
                    continue;
                }
            };
            let line = match line {
                Line::Whole(line) => line,
                Line::TooLong => return Last::Refused(Refused::Nonsense),
                Line::End => return Last::End,
            };
            match Order::parse(&line) {
                Ok(Order::Ack(byte)) => script.spool.receipt(byte),
                Ok(Order::Cancel) => *ordered = Ordered::Ending(script.end(CANCEL_GRACE)),
                Ok(Order::Kill) => *ordered = Ordered::Ending(script.end(Duration::ZERO)),
                Ok(Order::Done) => return Last::Done,
                Ok(Order::Drop) => return Last::Drop,
                Err(refused) => return Last::Refused(refused),
            }
        }
    }

    /// Waits for an ending, if one is under way, and names what it left.
    async fn tell(&self, ordered: Ordered) {
        match ordered {
            Ordered::Ending(mut ending) => self.name_survivors(&ending.wait().await).await,
            Ordered::Nothing | Ordered::Told => std::future::pending().await,
        }
    }

    async fn name_survivors(&self, survivors: &Survivors) {
        for survivor in survivors.iter() {
            let told = self.sender.remark(&format!("left {survivor}")).await;
            if told.is_err() {
                // Nobody is there to be told.
                return;
            }
        }
    }
}
