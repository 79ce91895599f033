//! Replies of the control port, within bounds (control-spec, section 2.3).

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt as _};
use zeroize::Zeroizing;

use crate::error::ControlError;

/// Longest line of a reply in bytes, with its end.
const MAX_LINE_BYTES: usize = 4096;
/// Most lines of a reply, those of its data included.
const MAX_REPLY_LINES: usize = 256;

/// A whole reply. Wiped when dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Status of the last line.
    pub(crate) code: u16,
    /// Text of each line behind its status, then the data that follows it.
    pub(crate) lines: Zeroizing<Vec<String>>,
}

/// Collects the lines of replies. Cancelling a read loses nothing.
#[derive(Debug, Default)]
pub(crate) struct ReplyReader {
    line: Zeroizing<Vec<u8>>,
    lines: Zeroizing<Vec<String>>,
    /// Whether the lines of a data block are read.
    in_data: bool,
}

impl Reply {
    /// Whether it is told without having been asked for.
    pub(crate) const fn is_event(&self) -> bool {
        matches!(self.code, 600..=699)
    }

    /// The text behind `NAME=` on a line of its own.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.lines
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

impl ReplyReader {
    /// The next reply.
    pub(crate) async fn next(
        &mut self,
        stream: &mut (impl AsyncBufRead + Unpin),
    ) -> Result<Reply, ControlError> {
        loop {
            let room = MAX_LINE_BYTES - self.line.len();
            let mut bounded = (&mut *stream).take(room as u64);
            bounded.read_until(b'\n', &mut self.line).await?;
            if self.line.last() != Some(&b'\n') {
                return Err(if self.line.len() == MAX_LINE_BYTES {
                    ControlError::Protocol("a line is too long")
                } else {
                    ControlError::Io(std::io::ErrorKind::UnexpectedEof)
                });
            }
            let line = std::mem::take(&mut self.line);
            if let Some(code) = self.take(&line)? {
                let lines = std::mem::take(&mut self.lines);
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Takes one line; the status if the reply is complete.
    fn take(&mut self, line: &[u8]) -> Result<Option<u16>, ControlError> {
        if self.lines.len() == MAX_REPLY_LINES {
            return Err(ControlError::Protocol("a reply has too many lines"));
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line);
        let text = text.map_err(|_| ControlError::Protocol("a line is not UTF-8"))?;
        if self.in_data {
            match text {
                "." => self.in_data = false,
                text => self.lines.push(text.to_owned()),
            }
            return Ok(None);
        }
        let malformed = ControlError::Protocol("a line has no status");
        let Some((status, rest)) = text.split_at_checked(3) else {
            return Err(malformed);
        };
        let is_number = status.bytes().all(|byte| byte.is_ascii_digit());
        let Some(code) = status.parse().ok().filter(|_| is_number) else {
            return Err(malformed);
        };
        let mut rest = rest.chars();
        let separator = rest.next();
        self.lines.push(rest.as_str().to_owned());
        match separator {
            Some(' ') => return Ok(Some(code)),
            Some('-') => {}
            Some('+') => self.in_data = true,
            _ => return Err(malformed),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mut bytes: &[u8]) -> Result<Vec<(u16, Vec<String>)>, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut reader, mut replies) = (ReplyReader::default(), Vec::new());
            while !bytes.is_empty() {
                let reply = reader.next(&mut bytes).await?;
                replies.push((reply.code, reply.lines.to_vec()));
            }
            Ok(replies)
        })
    }

    #[test]
    fn replies_have_lines_and_data() {
        let text = b"250-ServiceID=abc\r\n250 OK\r\n250+info=\r\na\r\nb\r\n.\r\n250 OK\r\n650 HS_DESC x\r\n";
        let replies = read(text).unwrap();
        let expected: [(u16, &[&str]); 3] = [
            (250, &["ServiceID=abc", "OK"]),
            (250, &["info=", "a", "b", "OK"]),
            (650, &["HS_DESC x"]),
        ];
        for (reply, (code, lines)) in replies.iter().zip(expected) {
            assert_eq!(reply.0, code);
            assert_eq!(reply.1, lines);
        }
        assert_eq!(replies.len(), 3);
    }

    #[test]
    fn hostile_replies_are_refused() {
        let endless = vec![b'2'; MAX_LINE_BYTES + 1];
        let many = b"250-x\r\n".repeat(MAX_REPLY_LINES + 1);
        let block = [&b"250+x\r\n"[..], &b"y\r\n".repeat(MAX_REPLY_LINES)].concat();
        let protocol: [&[u8]; 8] = [
            &endless,
            &many,
            &block,
            b"25\r\n",
            b"+50 x\r\n",
            b"250x\r\n",
            b"250\r\n",
            b"250 \xff\r\n",
        ];
        for bytes in protocol {
            let refused = read(bytes).unwrap_err();
            assert!(matches!(refused, ControlError::Protocol(_)), "{refused}");
        }
        let cut = read(b"250-x\r\n250 O").unwrap_err();
        assert!(matches!(cut, ControlError::Io(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _read = read(&bytes);
        }

        #[test]
        fn any_lines_are_read_or_refused(lines in "([0-9]{2,4}[ +-]?[a-z.]{0,4}\r?\n){0,12}") {
            let _read = read(lines.as_bytes());
        }
    }
}
