//! What a client asks for, read from its lines. Nothing here touches the system.

/// The longest request or order that is read.
pub(super) const LINE_LIMIT: usize = 256;

/// The longest unknown word that is told to the client.
const WORD_LIMIT: usize = 32;

/// How many hexadecimal digits a key and a nonce have.
const DIGITS: usize = 32;

/// Names one script.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    /// The job.
    pub(super) key: String,
    /// The run.
    pub(super) nonce: String,
}

/// The first line on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Start the script that comes next, unless that was done; follow from its first byte.
    Start {
        name: Name,
        length: u64,
        umask: Option<u32>,
    },
    /// Follow from that byte on.
    Follow { name: Name, offset: u64 },
}

/// A later line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// All before that byte has been received.
    Ack(u64),
    /// End the script, in peace if it will.
    Cancel,
    /// End it at once.
    Kill,
    /// Its end is known: forget it.
    Done,
    /// End it and forget it.
    Drop,
}

/// A line that is neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// A word that a later version may know. The nonce is there if one was in its place.
    Unknown { nonce: Option<String>, word: String },
    /// Nothing that any version sends.
    Nonsense,
}

impl Request {
    pub(super) fn parse(line: &[u8]) -> Result<Self, Refused> {
        let text = std::str::from_utf8(line).map_err(|_| Refused::Nonsense)?;
        let mut words = text.split(' ');
        let verb = words.next().unwrap_or_default();
        let key = words.next().filter(|word| is_hex(word));
        let nonce = words.next().filter(|word| is_hex(word));
        if verb != "start" && verb != "follow" {
            return Err(unknown(nonce, verb));
        }
        let (Some(key), Some(nonce)) = (key, nonce) else {
            return Err(Refused::Nonsense);
        };
        let number = words.next().and_then(number).ok_or(Refused::Nonsense)?;
        let name = Name {
            key: key.to_owned(),
            nonce: nonce.to_owned(),
        };
        let mut umask = None;
        for option in words {
            match option.split_once('=') {
                Some(("umask", value)) if verb == "start" => {
                    umask = Some(octal(value).ok_or(Refused::Nonsense)?);
                }
                Some((word, _)) => return Err(unknown(Some(nonce), word)),
                None => return Err(unknown(Some(nonce), option)),
            }
        }
        Ok(match verb {
            "start" => Self::Start {
                name,
                length: number,
                umask,
            },
            _ => Self::Follow {
                name,
                offset: number,
            },
        })
    }
}

impl Order {
    pub(super) fn parse(line: &[u8]) -> Result<Self, Refused> {
        let text = std::str::from_utf8(line).map_err(|_| Refused::Nonsense)?;
        let (word, argument) = match text.split_once(' ') {
            Some((word, argument)) => (word, Some(argument)),
            None => (text, None),
        };
        match (word, argument) {
            ("ack", Some(byte)) => number(byte).map(Self::Ack).ok_or(Refused::Nonsense),
            ("cancel", None) => Ok(Self::Cancel),
            ("kill", None) => Ok(Self::Kill),
            ("done", None) => Ok(Self::Done),
            ("drop", None) => Ok(Self::Drop),
            ("ack" | "cancel" | "kill" | "done" | "drop", _) => Err(Refused::Nonsense),
            _ => Err(unknown(None, word)),
        }
    }
}

fn unknown(nonce: Option<&str>, word: &str) -> Refused {
    let known_form = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if word.is_empty() || word.len() > WORD_LIMIT || !word.bytes().all(known_form) {
        return Refused::Nonsense;
    }
    Refused::Unknown {
        nonce: nonce.map(str::to_owned),
        word: word.to_owned(),
    }
}

fn is_hex(word: &str) -> bool {
    word.len() == DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads digits and nothing else: `parse` alone takes a sign.
fn number(word: &str) -> Option<u64> {
    word.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| word.parse().ok())
        .flatten()
}

fn octal(word: &str) -> Option<u32> {
    (word.len() <= 4 && word.bytes().all(|byte| (b'0'..=b'7').contains(&byte)))
        .then(|| u32::from_str_radix(word, 8).ok())
        .flatten()
        .filter(|mask| *mask <= 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff";
    const NONCE: &str = "ffeeddccbbaa99887766554433221100";

    fn name() -> Name {
        Name {
            key: KEY.to_owned(),
            nonce: NONCE.to_owned(),
        }
    }

    fn request(tail: &str) -> Result<Request, Refused> {
        Request::parse(tail.replace("ID", &format!("{KEY} {NONCE}")).as_bytes())
    }

    #[test]
    fn requests_are_read() {
        let start = |length, umask| Request::Start {
            name: name(),
            length,
            umask,
        };
        assert_eq!(request("start ID 17"), Ok(start(17, None)));
        assert_eq!(request("start ID 0 umask=022"), Ok(start(0, Some(0o22))));
        assert_eq!(request("start ID 0 umask=0"), Ok(start(0, Some(0))));
        assert_eq!(
            request(&format!("follow ID {}", u64::MAX)),
            Ok(Request::Follow {
                name: name(),
                offset: u64::MAX
            })
        );
    }

    #[test]
    fn what_a_later_version_may_send_is_named() {
        let unknown = |nonce: Option<&str>, word: &str| {
            Err(Refused::Unknown {
                nonce: nonce.map(str::to_owned),
                word: word.to_owned(),
            })
        };
        assert_eq!(request("pause ID 1"), unknown(Some(NONCE), "pause"));
        assert_eq!(request("hello"), unknown(None, "hello"));
        assert_eq!(request("start ID 1 nice=5"), unknown(Some(NONCE), "nice"));
        assert_eq!(
            request("follow ID 1 umask=0"),
            unknown(Some(NONCE), "umask")
        );
        assert_eq!(
            request("start ID 1 quietly"),
            unknown(Some(NONCE), "quietly")
        );
        let order = Order::parse(b"freeze 10").unwrap_err();
        assert_eq!(
            order,
            Refused::Unknown {
                nonce: None,
                word: "freeze".to_owned()
            }
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            " ",
            "start",
            "start ID",
            "start ID ",
            "start ID +1",
            "start ID -1",
            "start ID 18446744073709551616",
            "start ID 1 ",
            "start ID 1 umask=8",
            "start ID 1 umask=",
            "start ID 1 umask=01777",
            "start ID  1",
            "start ../../etc ID 1",
            "follow ID x",
            "\u{1b}[2J",
        ] {
            assert_eq!(request(line), Err(Refused::Nonsense), "{line:?}");
        }
        for line in [
            "",
            "ack",
            "ack x",
            "ack 1 2",
            "cancel 1",
            "done ",
            "Gr\u{fc}n",
        ] {
            assert_eq!(
                Order::parse(line.as_bytes()),
                Err(Refused::Nonsense),
                "{line:?}"
            );
        }
        assert_eq!(Order::parse(b"\xff"), Err(Refused::Nonsense));
        assert_eq!(Request::parse(b"start \xff"), Err(Refused::Nonsense));
    }

    #[test]
    fn orders_are_read() {
        for (line, order) in [
            ("ack 0", Order::Ack(0)),
            ("ack 16777216", Order::Ack(16_777_216)),
            ("cancel", Order::Cancel),
            ("kill", Order::Kill),
            ("done", Order::Done),
            ("drop", Order::Drop),
        ] {
            assert_eq!(Order::parse(line.as_bytes()), Ok(order));
        }
    }

    /// Whatever is changed in a good line, it is read, named or refused; a name that is read is one of digits.
    #[test]
    fn any_line_ends_in_an_answer() {
        let good = format!("start {KEY} {NONCE} 12 umask=022");
        for at in 0..good.len() {
            for byte in 0..=u8::MAX {
                let mut line = good.clone().into_bytes();
                line[at] = byte;
                for line in [&line[..], &line[..at], &line[at..]] {
                    if let Ok(Request::Start { name, .. }) = Request::parse(line) {
                        assert!(is_hex(&name.key) && is_hex(&name.nonce));
                    }
                    if let Err(Refused::Unknown { word, .. }) = Order::parse(line) {
                        assert!(word.len() <= WORD_LIMIT && word.is_ascii());
                    }
                }
            }
        }
    }
}
