//! Sends a script's output, from any byte on, and the frames between and after.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::sync::{Mutex, watch};

use super::place::one_line;
use super::run::Script;
use super::spool::{Cursor, Exit, Outcome, Piece, Progress};
use crate::channel::{Gone, STDERR, send};
use crate::valve::Valve;

/// How much is read from the disk and sent at once.
const CHUNK: usize = 64 << 10;

/// Returns a frame: what a client takes for ours among a script's bytes.
pub(super) fn frame(nonce: &str, text: &str) -> String {
    format!("\x1e{nonce} {text}\n")
}

/// The way back to a client, for several who want to send.
pub(super) struct Sender {
    write: Mutex<ChannelWriteHalf<Msg>>,
    nonce: String,
    valve: Arc<Valve>,
}

impl Sender {
    pub(super) fn new(write: ChannelWriteHalf<Msg>, nonce: String, valve: Arc<Valve>) -> Self {
        Self {
            write: Mutex::new(write),
            nonce,
            valve,
        }
    }

    /// Sends a frame among the output.
    pub(super) async fn frame(&self, text: &str) -> Result<(), Gone> {
        self.bytes(frame(&self.nonce, text).into()).await
    }

    /// Sends a frame beside the output.
    pub(super) async fn remark(&self, text: &str) -> Result<(), Gone> {
        let write = self.write.lock().await;
        let frame = frame(&self.nonce, text).into();
        send(&write, Some(STDERR), frame, &self.valve).await
    }

    async fn bytes(&self, bytes: Bytes) -> Result<(), Gone> {
        let write = self.write.lock().await;
        send(&write, None, bytes, &self.valve).await
    }

    /// Ends the channel.
    pub(super) async fn close(&self) -> Result<(), Gone> {
        let write = self.write.lock().await;
        write.eof().await.map_err(|_| Gone)?;
        write.close().await.map_err(|_| Gone)
    }
}

/// Why a follower stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// All is sent, or somebody said that it is enough.
    Over,
    /// The connection is gone, or what comes next is not there any more.
    Lost,
}

/// Follows a script from that byte on, until all is sent or somebody says that it is enough.
///
/// It stops between two sends, so that no frame is cut.
pub(super) async fn follow(
    script: &Script,
    offset: u64,
    sender: &Sender,
    enough: watch::Receiver<bool>,
) -> Stop {
    let followed = try_follow(script, offset, sender, enough).await;
    followed.unwrap_or(Stop::Lost)
}

async fn try_follow(
    script: &Script,
    offset: u64,
    sender: &Sender,
    mut enough: watch::Receiver<bool>,
) -> Result<Stop, Gone> {
    let mut progress = script.spool.progress();
    let mut cursor = script.spool.cursor(offset);
    let mut out = BytesMut::from(frame(&sender.nonce, &format!("open {}", cursor.at)).as_bytes());
    while !*enough.borrow_and_update() {
        let stop = fill(script, &mut cursor, &mut out, &sender.nonce);
        // Then there may be more at once: a frame that comes right behind these bytes.
        let is_full = out.len() >= CHUNK;
        if !out.is_empty() {
            sender.bytes(out.split().freeze()).await?;
        }
        if let Some(stop) = stop {
            return Ok(stop);
        }
        if is_full {
            continue;
        }
        let at = cursor.at;
        let is_more = |now: &Progress| now.written > at || now.outcome.is_some();
        tokio::select! {
            more = progress.wait_for(is_more) => drop(more.map_err(|_| Gone)?),
            stop = enough.changed() => stop.map_err(|_| Gone)?,
        }
    }
    Ok(Stop::Over)
}

/// Adds what comes next, up to a chunk. Tells whether that was all.
fn fill(script: &Script, cursor: &mut Cursor, out: &mut BytesMut, nonce: &str) -> Option<Stop> {
    while out.len() < CHUNK {
        match script.spool.piece(*cursor, (CHUNK - out.len()) as u64) {
            Piece::Bytes(file, from, length) => {
                let before = out.len();
                let length = usize::try_from(length).unwrap_or(CHUNK);
                out.resize(before + length, 0);
                if file.read_exact_at(&mut out[before..], from).is_err() {
                    out.truncate(before);
                    let text = last_word(script, &Outcome::Full);
                    out.extend_from_slice(frame(nonce, &text).as_bytes());
                    return Some(Stop::Over);
                }
                cursor.at += length as u64;
            }
            Piece::Next => {
                let at = cursor.at;
                out.extend_from_slice(frame(nonce, &format!("next {at}")).as_bytes());
                cursor.segment = at;
            }
            Piece::End(outcome) => {
                let text = last_word(script, &outcome);
                out.extend_from_slice(frame(nonce, &text).as_bytes());
                return Some(Stop::Over);
            }
            Piece::Nothing => return None,
            Piece::Missing => return Some(Stop::Lost),
        }
    }
    None
}

fn last_word(script: &Script, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ended(Exit {
            code: Some(code),
            kills,
        }) => format!("end {code} {kills}"),
        Outcome::Ended(Exit { code: None, .. }) | Outcome::Gone => {
            format!("gone {}", script.kills())
        }
        Outcome::Full => {
            let directory = script.spool.directory().display().to_string();
            format!("full {}", one_line(&directory))
        }
    }
}
