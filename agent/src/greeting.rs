//! What the agent tells of itself and of where it runs, and what is agreed with it there.

use std::sync::Arc;

use bytes::Bytes;
use russh::ChannelMsg;

use crate::agent::Agent;
use crate::channel::{Ends, send};

/// The subsystem's name.
pub(crate) const NAME: &str = "gad-greeting";

/// The longest line that is read.
const MAX_LINE: usize = 1 << 10;

/// Serves one channel.
pub(crate) async fn serve(mut ends: Ends, agent: Arc<Agent>) {
    let mut read: Vec<u8> = ends.early.concat();
    loop {
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&read[..end]).into_owned();
            read.drain(..=end);
            let answer = match line.split_once(' ').unwrap_or((&line, "")) {
                ("hello", _) => "\n".to_owned(),
                ("terminal", "on") => {
                    agent.allow_terminals(true);
                    "terminal on\n".to_owned()
                }
                ("terminal", "off") => {
                    agent.allow_terminals(false);
                    "terminal off\n".to_owned()
                }
                (word, _) => format!("unknown {word}\n"),
            };
            if send(&ends.write, None, Bytes::from(answer), &ends.valve)
                .await
                .is_err()
            {
                return;
            }
        }
        match ends.read.wait().await {
            Some(ChannelMsg::Data { data }) if read.len() + data.len() <= MAX_LINE => {
                read.extend_from_slice(&data);
            }
            Some(ChannelMsg::Data { .. } | ChannelMsg::Close | ChannelMsg::Eof) | None => {
                drop(ends.write.close().await);
                return;
            }
            Some(_) => {}
        }
    }
}
