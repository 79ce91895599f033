//! Server-sent events: bytes in, events out. Performs no I/O.

/// Longest line in bytes: 16 MiB, a message of the largest size in base64 and its text.
const MAX_LINE_BYTES: usize = 16 << 20;

/// An event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct SseEvent {
    /// Its type; empty if it has none.
    pub(super) name: String,
    /// Its id, if it is a number.
    pub(super) id: Option<u64>,
    /// Its lines of data.
    pub(super) data: String,
}

/// A line is longer than any of this API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong;

/// Splits what was received into events.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    received: Vec<u8>,
    /// Bytes at the beginning whose lines were taken.
    taken: usize,
    /// Bytes at the beginning that were taken or contain no line break.
    searched: usize,
    event: SseEvent,
    has_data: bool,
}

impl SseParser {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.received.drain(..self.taken);
        self.searched -= std::mem::take(&mut self.taken);
        self.received.extend_from_slice(bytes);
        if self.received.len() > 2 * MAX_LINE_BYTES {
            return Err(TooLong);
        }
        Ok(())
    }

    /// The next complete event.
    pub(super) fn next(&mut self) -> Option<SseEvent> {
        loop {
            let unsearched = self.received.get(self.searched..)?;
            let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.received.len();
                return None;
            };
            let end = self.searched + at;
            let line = self.received.get(self.taken..end)?.to_vec();
            self.searched = end + 1;
            self.taken = self.searched;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) {
                    return Some(event);
                }
            } else {
                self.field(line);
            }
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = value.parse().ok(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            // Comments keep the connection alive; other fields mean nothing here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, id: Option<u64>, data: &str) -> SseEvent {
        SseEvent {
            name: name.into(),
            id,
            data: data.into(),
        }
    }

    #[test]
    fn events_are_found_at_any_split() {
        let stream =
            b": alive\n\nid: 7\nevent: message\ndata: {\"a\":1}\n\ndata: x\r\ndata: y\r\n\r\n";
        for split in 0..stream.len() {
            let mut parser = SseParser::default();
            let mut events = Vec::new();
            for part in [&stream[..split], &stream[split..]] {
                parser.push(part).unwrap();
                events.extend(std::iter::from_fn(|| parser.next()));
            }
            let expected = [
                event("message", Some(7), "{\"a\":1}"),
                event("", None, "x\ny"),
            ];
            assert_eq!(events, expected, "split at {split}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = SseParser::default();
        let chunk = vec![b'x'; MAX_LINE_BYTES];
        parser.push(&chunk).unwrap();
        parser.push(&chunk).unwrap();
        assert_eq!(parser.push(b"x"), Err(TooLong));
    }
}
