//! Reads what the far side sends: noise of login shells, then the script's bytes with frames between them.
//!
//! A frame is the byte RS (0x1e), the nonce, a space, a word with its arguments and a line feed. The nonce is
//! drawn anew for every `run`, so that no script prints one by chance; what looks like the beginning of a frame
//! at the end of a piece is held back until the next piece tells.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;

/// The longest frame; nothing that the far side says needs more.
const FRAME_LIMIT: usize = 512;

/// How much a scanner holds back at most of what was taken from it as far as it goes: a frame without its end.
pub const HELD_LIMIT: usize = FRAME_LIMIT + 64;

/// How much a login shell may print before the far side speaks.
const NOISE_LIMIT: usize = 1 << 20;

/// What the far side tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// It follows from that byte on.
    Open(u64),
    /// A segment of the spool is complete and the next begins at that byte: tell it once they are safe.
    Next(u64),
    /// The script ended with that code, and meanwhile the kernel killed so often for want of memory.
    End(u8, u64),
    /// The supervisor is gone without an end, and meanwhile the kernel killed so often for want of memory.
    Gone(u64),
    /// Nothing of the script is left on the machine.
    Forgotten,
    /// The spool in that directory could not be written.
    Full(String),
    /// The script could not be kept.
    Fail(String),
    /// No process can be started there, so the script is not, or nobody could go on taking its output.
    Crowded,
    /// The machine lacks this, and no script runs without.
    Lacks(String),
    /// The agent does not know this word of what it was asked: it is of another version.
    Unknown(String),
    /// The agent could not start the script's shell, for this reason.
    Unable(String),
    /// A process that no signal ended: pid and name.
    Left(String),
}

/// What the scanner finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The script's output.
    Bytes(Bytes),
    /// A frame.
    Frame(Frame),
}

/// The stream does not keep the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Login shells print without end.
    #[error("the login shell's start-up files print more than {NOISE_LIMIT} bytes")]
    Noise,
    /// A frame that is not known.
    #[error("it sent a frame that this version does not know: {0}")]
    Frame(String),
}

/// Splits one stream of one connection into bytes and frames. What does not keep the protocol is the end of it: whatever comes
/// after that is dropped.
#[derive(Debug)]
pub struct Scanner {
    finder: Finder<'static>,
    buffer: BytesMut,
    noise: Option<usize>,
    malformed: Option<Malformed>,
}

impl Scanner {
    /// Returns a scanner for a stream that begins with noise, ended by an `open` (or what stands in its place).
    #[must_use]
    pub fn new(nonce: &str) -> Self {
        Self {
            finder: Finder::new(&format!("\x1e{nonce} ")).into_owned(),
            buffer: BytesMut::new(),
            noise: Some(0),
            malformed: None,
        }
    }

    /// Adds what came.
    pub fn push(&mut self, data: &[u8]) {
        if self.malformed.is_none() {
            self.buffer.extend_from_slice(data);
        }
    }

    /// Returns how many bytes wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Takes the next item; `None` means that more must come first.
    ///
    /// # Errors
    /// Where the stream does not keep the protocol, and from then on.
    pub fn take(&mut self) -> Result<Option<Item>, Malformed> {
        if let Some(malformed) = &self.malformed {
            return Err(malformed.clone());
        }
        let taken = self.scan();
        if let Err(malformed) = &taken {
            self.malformed = Some(malformed.clone());
            self.buffer = BytesMut::new();
        }
        taken
    }

    fn scan(&mut self) -> Result<Option<Item>, Malformed> {
        let Some(at) = self.finder.find(&self.buffer) else {
            let held = self.held();
            let free = self.buffer.len() - held;
            if free == 0 {
                return Ok(None);
            }
            return self.give(free);
        };
        if at > 0 {
            return self.give(at);
        }
        let start = self.finder.needle().len();
        let Some(length) = memchr::memchr(b'\n', &self.buffer[start..]) else {
            if self.buffer.len() > start + FRAME_LIMIT {
                let text = String::from_utf8_lossy(&self.buffer[start..start + 40]).into_owned();
                return Err(Malformed::Frame(crate::error::one_line(&text)));
            }
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&self.buffer[start..start + length]).into_owned();
        // However it arrived: a frame's fate must not depend on where the stream was cut.
        let frame = (length <= FRAME_LIMIT)
            .then(|| parse(&text))
            .flatten()
            .ok_or_else(|| {
                Malformed::Frame(crate::error::one_line(&text).chars().take(80).collect())
            })?;
        self.buffer.advance(start + length + 1);
        self.noise = None;
        Ok(Some(Item::Frame(frame)))
    }

    fn give(&mut self, length: usize) -> Result<Option<Item>, Malformed> {
        let bytes = self.buffer.split_to(length).freeze();
        match &mut self.noise {
            None => Ok(Some(Item::Bytes(bytes))),
            Some(sum) => {
                *sum += length;
                if *sum > NOISE_LIMIT {
                    return Err(Malformed::Noise);
                }
                self.scan()
            }
        }
    }

    /// How many bytes at the end may be the beginning of a frame.
    fn held(&self) -> usize {
        let needle = self.finder.needle();
        let tail = &self.buffer[self.buffer.len().saturating_sub(needle.len() - 1)..];
        (0..tail.len())
            .find(|i| needle.starts_with(&tail[*i..]))
            .map_or(0, |i| tail.len() - i)
    }
}

fn parse(text: &str) -> Option<Frame> {
    let (word, argument) = text.split_once(' ').unwrap_or((text, ""));
    Some(match word {
        "open" => Frame::Open(argument.parse().ok()?),
        "next" => Frame::Next(argument.parse().ok()?),
        "end" => {
            let (code, kills) = argument.split_once(' ').unwrap_or((argument, "0"));
            Frame::End(code.parse().ok()?, kills.parse().ok()?)
        }
        "gone" if argument.is_empty() => Frame::Gone(0),
        "gone" => Frame::Gone(argument.parse().ok()?),
        "forgotten" => Frame::Forgotten,
        "full" => Frame::Full(argument.to_owned()),
        "fail" => Frame::Fail(argument.to_owned()),
        "crowded" => Frame::Crowded,
        "lacks" => Frame::Lacks(argument.to_owned()),
        "unknown" => Frame::Unknown(argument.to_owned()),
        "unable" => Frame::Unable(argument.to_owned()),
        "left" => Frame::Left(argument.to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff";

    fn scan(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Frame>) {
        let mut scanner = Scanner::new(NONCE);
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        for piece in pieces {
            scanner.push(piece);
            while let Some(item) = scanner.take().unwrap() {
                match item {
                    Item::Bytes(b) => bytes.extend_from_slice(&b),
                    Item::Frame(f) => frames.push(f),
                }
            }
        }
        (bytes, frames)
    }

    fn stream(noise: &[u8], body: &[u8], code: u8) -> Vec<u8> {
        let mut all = noise.to_vec();
        all.extend(format!("\x1e{NONCE} open 0\n").bytes());
        all.extend(body);
        all.extend(format!("\x1e{NONCE} end {code} 3\n").bytes());
        all
    }

    #[test]
    fn noise_is_dropped_and_the_nonce_alone_is_no_frame() {
        let body = format!("{NONCE}\n\x1e{NONCE}\x1e");
        let all = stream(
            format!("motd {NONCE} open 0\n").as_bytes(),
            body.as_bytes(),
            7,
        );
        let (bytes, frames) = scan(&[&all]);
        assert_eq!(bytes, body.as_bytes());
        assert_eq!(frames, [Frame::Open(0), Frame::End(7, 3)]);
    }

    #[test]
    fn a_machine_that_lacks_something_says_so_instead() {
        let all = format!("noise\x1e{NONCE} crowded\n\x1e{NONCE} lacks /proc\n");
        let (bytes, frames) = scan(&[all.as_bytes()]);
        assert_eq!(bytes, b"");
        assert_eq!(frames, [Frame::Crowded, Frame::Lacks("/proc".into())]);
    }

    #[test]
    fn a_line_is_given_at_once() {
        let mut scanner = Scanner::new(NONCE);
        scanner.push(format!("\x1e{NONCE} open 0\nhello\n").as_bytes());
        assert_eq!(scanner.take().unwrap(), Some(Item::Frame(Frame::Open(0))));
        assert_eq!(
            scanner.take().unwrap(),
            Some(Item::Bytes(Bytes::from_static(b"hello\n")))
        );
    }

    #[test]
    fn what_breaks_the_protocol_is_named() {
        for (text, cause) in [
            (format!("\x1e{NONCE} dance 1\n"), "dance 1"),
            (format!("\x1e{NONCE} end 256\n"), "end 256"),
            (format!("\x1e{NONCE} end 0 many\n"), "end 0 many"),
            (format!("\x1e{NONCE} {}", "x".repeat(1000)), "xxxx"),
        ] {
            let mut scanner = Scanner::new(NONCE);
            scanner.push(text.as_bytes());
            let error = scanner.take().unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
        let mut scanner = Scanner::new(NONCE);
        scanner.push(&vec![b'x'; NOISE_LIMIT + 100]);
        assert_eq!(scanner.take(), Err(Malformed::Noise));
    }

    #[test]
    fn what_comes_after_a_malformed_frame_is_dropped() {
        let mut scanner = Scanner::new(NONCE);
        scanner.push(format!("\x1e{NONCE} dance 1\n").as_bytes());
        let malformed = scanner.take().unwrap_err();
        for _ in 0..1000 {
            scanner.push(&stream(b"", b"body", 0));
            assert_eq!(scanner.take(), Err(malformed.clone()));
            assert_eq!(scanner.waiting(), 0);
        }
    }

    #[test]
    fn a_frame_without_end_is_not_waited_for() {
        let mut scanner = Scanner::new(NONCE);
        scanner.push(format!("\x1e{NONCE} left ").as_bytes());
        for _ in 0..10_000 {
            scanner.push(b"x");
            drop(scanner.take());
            assert!(scanner.waiting() <= HELD_LIMIT, "{}", scanner.waiting());
        }
        assert!(scanner.take().is_err());
    }

    proptest! {
        #[test]
        fn the_body_comes_out_whole_however_it_is_cut(
            body in proptest::collection::vec(prop_oneof![Just(0x1eu8), Just(b'0'), Just(b'\n'), any::<u8>()], 0..400),
            cuts in proptest::collection::vec(0usize..600, 0..20),
            code: u8,
        ) {
            let all = stream(b"noise", &body, code);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % all.len()).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &all[w[0]..w[1]]).collect();
            let (bytes, frames) = scan(&pieces);
            prop_assert_eq!(bytes, body);
            prop_assert_eq!(frames, vec![Frame::Open(0), Frame::End(code, 3)]);
        }

        #[test]
        fn any_bytes_end_in_items_or_a_reason(pieces: Vec<Vec<u8>>) {
            let mut scanner = Scanner::new(NONCE);
            for piece in &pieces {
                scanner.push(piece);
                while let Ok(Some(_)) = scanner.take() {}
                prop_assert!(scanner.waiting() <= HELD_LIMIT);
            }
        }
    }
}
