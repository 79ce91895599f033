//! Lines of the processes, and the messages they speak of.

use std::{
    fmt,
    io::{self, Write as _},
    str::FromStr,
};

use dht_node::Message;

/// Type of every message.
const MESSAGE_TYPE: i32 = 7;
/// Most bytes of a payload behind its number.
const MOST_BYTES: u64 = 4_000;

/// A line of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The node listens.
    Ready,
    /// The sender's outbox reports this message as received or stored.
    Acknowledged(u64),
    /// The consumer has read this message from the recipient's inbox.
    Read(u64),
    /// The consumer's ack of this message is durable.
    Acked(u64),
    /// Something happened that must not.
    Fault(String),
}

/// Writes a line for the checker.
pub(super) fn say(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// The message with this number.
pub(super) fn message(number: u64) -> Message {
    let mut payload = number.to_be_bytes().to_vec();
    let bytes = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % MOST_BYTES;
    payload.extend((0..bytes).map(|at| u8::try_from((number ^ at) % 256).unwrap_or(0)));
    Message {
        message_type: MESSAGE_TYPE,
        payload: payload.into(),
    }
}

/// The number of a message, if everything about it is as it was sent.
pub(super) fn number(received: &Message) -> Option<u64> {
    let (number, _) = received.payload.split_first_chunk()?;
    let number = u64::from_be_bytes(*number);
    (*received == message(number)).then_some(number)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Acknowledged(number) => write!(f, "acknowledged {number}"),
            Self::Read(number) => write!(f, "read {number}"),
            Self::Acked(number) => write!(f, "acked {number}"),
            // One line, whatever the text is.
            Self::Fault(text) => write!(f, "fault {}", text.replace('\n', " ")),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("not a line of a process: {line}");
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = || rest.parse().map_err(|_| wrong());
        match kind {
            "ready" if rest.is_empty() => Ok(Self::Ready),
            "acknowledged" => Ok(Self::Acknowledged(number()?)),
            "read" => Ok(Self::Read(number()?)),
            "acked" => Ok(Self::Acked(number()?)),
            "fault" => Ok(Self::Fault(rest.to_owned())),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        for line in [
            Line::Ready,
            Line::Acknowledged(7),
            Line::Read(8),
            Line::Acked(9),
            Line::Fault("no such file".to_owned()),
        ] {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        assert!("read".parse::<Line>().is_err());
    }

    #[test]
    fn changed_messages_are_told() {
        let mut changed = message(5);
        assert_eq!(number(&changed), Some(5));
        let mut payload = changed.payload.to_vec();
        payload.push(0);
        changed.payload = payload.into();
        assert_eq!(number(&changed), None);
    }
}
