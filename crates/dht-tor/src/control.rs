//! One connection to a control port.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{
    error::ControlError,
    reply::{Reply, ReplyReader},
};

/// Time for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Events that wait to be taken; earlier ones are dropped.
const MAX_EVENTS: usize = 16;
/// Longest text of a refusal that is shown, in characters.
const MAX_TEXT: usize = 200;

/// A connection on which one command is sent at a time.
pub(crate) struct Control<S> {
    stream: BufReader<S>,
    reader: ReplyReader,
    events: VecDeque<Reply>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Control<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
            reader: ReplyReader::default(),
            events: VecDeque::new(),
        }
    }

    /// Sends a command, which is its name and arguments without line ends, and returns the reply, which is no refusal.
    pub(crate) async fn request(
        &mut self,
        name: &'static str,
        arguments: &str,
    ) -> Result<Reply, ControlError> {
        debug_assert!(!arguments.contains(['\r', '\n']), "one line is one command");
        let line = Zeroizing::new(format!("{name}{arguments}\r\n"));
        let answered = timeout(ANSWER_LIMIT, async {
            self.stream.write_all(line.as_bytes()).await?;
            self.stream.flush().await?;
            loop {
                let reply = self.reader.next(&mut self.stream).await?;
                if !reply.is_event() {
                    return Ok::<_, ControlError>(reply);
                }
                if self.events.len() == MAX_EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(reply);
            }
        });
        let reply = answered.await.map_err(|_| ControlError::Timeout)??;
        if reply.code == 250 {
            return Ok(reply);
        }
        let text = reply.lines.last().map_or("", String::as_str);
        Err(ControlError::Refused {
            command: name,
            code: reply.code,
            text: text.escape_debug().take(MAX_TEXT).collect(),
        })
    }

    /// The next event. Cancelling it loses none.
    pub(crate) async fn event(&mut self) -> Result<Reply, ControlError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        let reply = self.reader.next(&mut self.stream).await?;
        if reply.is_event() {
            Ok(reply)
        } else {
            Err(ControlError::Protocol("a reply without a command"))
        }
    }
}
