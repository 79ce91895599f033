//! Protocol negotiation at the start of every stream.
//! docs/protocol/02-transport-and-connectivity.md section 5.
//!
//! # Wire format
//!
//! | Bytes | Meaning |
//! |---|---|
//! | 1 | length n of the protocol id |
//! | 1 | flags: 1 optimistic, 2 terminate, 4 not supported |
//! | n | protocol id |

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{
    error::StreamError,
    limits::{MAX_PROPOSALS, NEGOTIATION_TIMEOUT},
};

/// The proposal stands whatever the other side thinks of it: no answer is sent.
const OPTIMISTIC: u8 = 1;
/// Nothing more will be proposed, or considered.
const TERMINATE: u8 = 2;
/// The proposed protocol is not spoken.
const NOT_SUPPORTED: u8 = 4;
const KNOWN_FLAGS: u8 = OPTIMISTIC | TERMINATE | NOT_SUPPORTED;

/// A frame of the negotiation protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    flags: u8,
    protocol: Bytes,
}

/// Decision of the responder's core about one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the frame, if any, and start the protocol.
    Accept {
        /// The protocol, from our own table.
        protocol: Bytes,
        /// Absent when the opener was optimistic.
        answer: Option<Frame>,
    },
    /// Send the frame and wait for another proposal.
    Refuse(Frame),
    /// Send the frame, if any, and give the stream up.
    End(Option<Frame>),
}

/// The responder: which protocols we speak and how many proposals failed. No I/O.
#[derive(Clone, Debug)]
pub struct Responder<'a> {
    supported: &'a [Bytes],
    refused: u8,
}

// === impl Frame ===

impl Frame {
    /// Bytes before the protocol id.
    pub const HEAD_BYTES: usize = 2;

    /// A proposal. An optimistic one is final and gets no answer.
    #[must_use]
    pub fn propose(protocol: Bytes, optimistic: bool) -> Self {
        Self {
            flags: if optimistic {
                OPTIMISTIC | TERMINATE
            } else {
                0
            },
            protocol,
        }
    }

    /// A frame from its head and id.
    ///
    /// # Errors
    /// [`StreamError::Flags`] if an unknown flag is set.
    pub fn new(flags: u8, protocol: Bytes) -> Result<Self, StreamError> {
        if flags & !KNOWN_FLAGS == 0 {
            Ok(Self { flags, protocol })
        } else {
            Err(StreamError::Flags(flags))
        }
    }

    /// The frame as sent, in one piece.
    ///
    /// # Errors
    /// [`StreamError::IdTooLong`] above 255 bytes.
    pub fn encode(&self) -> Result<Vec<u8>, StreamError> {
        let length = u8::try_from(self.protocol.len())
            .map_err(|_| StreamError::IdTooLong(self.protocol.len()))?;
        let mut bytes = vec![length, self.flags];
        bytes.extend_from_slice(&self.protocol);
        Ok(bytes)
    }

    /// Reads a frame from the front of `bytes`: the frame and its length, or `None` if it is not complete.
    ///
    /// # Errors
    /// [`StreamError::Flags`], as soon as the flags are there.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, StreamError> {
        let Some((&[length, flags], rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let frame = Self::new(flags, Bytes::new())?;
        let Some(protocol) = rest.get(..usize::from(length)) else {
            return Ok(None);
        };
        let used = Self::HEAD_BYTES + protocol.len();
        Ok(Some((
            Self {
                protocol: Bytes::copy_from_slice(protocol),
                ..frame
            },
            used,
        )))
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

// === impl Responder ===

impl<'a> Responder<'a> {
    /// A responder that speaks `supported`.
    #[must_use]
    pub const fn new(supported: &'a [Bytes]) -> Self {
        Self {
            supported,
            refused: 0,
        }
    }

    /// Checks a frame of the opener. The optimistic flag is looked at first: it comes with the terminate
    /// flag and must not be taken for an ending.
    pub fn on_frame(&mut self, frame: &Frame) -> Decision {
        let known = self
            .supported
            .iter()
            .find(|id| **id == frame.protocol)
            .cloned();
        match known {
            Some(protocol) if frame.has(OPTIMISTIC) => Decision::Accept {
                protocol,
                answer: None,
            },
            None if frame.has(OPTIMISTIC) => Decision::End(None),
            _ if frame.has(TERMINATE) => Decision::End(None),
            Some(protocol) => {
                let answer = Some(Frame {
                    flags: 0,
                    protocol: protocol.clone(),
                });
                Decision::Accept { protocol, answer }
            }
            None => {
                self.refused = self.refused.saturating_add(1);
                let last = self.refused >= MAX_PROPOSALS;
                let flags = if last {
                    NOT_SUPPORTED | TERMINATE
                } else {
                    NOT_SUPPORTED
                };
                let answer = Frame {
                    flags,
                    protocol: Bytes::new(),
                };
                if last {
                    Decision::End(Some(answer))
                } else {
                    Decision::Refuse(answer)
                }
            }
        }
    }
}

/// Opens `protocol` on a fresh stream. Optimistic: one write, no wait. Otherwise the answer is awaited.
///
/// # Errors
/// [`StreamError`]; the stream is of no more use then.
pub async fn propose<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    protocol: &Bytes,
    optimistic: bool,
) -> Result<(), StreamError> {
    let talk = async {
        let proposal = Frame::propose(protocol.clone(), optimistic);
        stream.write_all(&proposal.encode()?).await?;
        stream.flush().await?;
        if optimistic {
            return Ok(());
        }
        let answer = read_frame(stream).await?;
        if answer.has(NOT_SUPPORTED) {
            // We have nothing else to propose.
            let end = Frame {
                flags: TERMINATE,
                protocol: Bytes::new(),
            };
            stream.write_all(&end.encode()?).await?;
            Err(StreamError::NotSupported)
        } else if answer.protocol == *protocol {
            Ok(())
        } else {
            Err(StreamError::WrongAnswer)
        }
    };
    timeout(NEGOTIATION_TIMEOUT, talk)
        .await
        .map_err(|_| StreamError::Timeout)?
}

/// Answers on a stream the remote opened; returns the protocol agreed on.
///
/// # Errors
/// [`StreamError`]; the stream is of no more use then.
pub async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    supported: &[Bytes],
) -> Result<Bytes, StreamError> {
    let talk = async {
        let mut responder = Responder::new(supported);
        loop {
            let frame = read_frame(stream).await?;
            let (answer, outcome) = match responder.on_frame(&frame) {
                Decision::Accept { protocol, answer } => (answer, Some(Ok(protocol))),
                Decision::Refuse(answer) => (Some(answer), None),
                Decision::End(answer) => (answer, Some(Err(StreamError::NothingSupported))),
            };
            if let Some(answer) = answer {
                stream.write_all(&answer.encode()?).await?;
                stream.flush().await?;
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    };
    timeout(NEGOTIATION_TIMEOUT, talk)
        .await
        .map_err(|_| StreamError::Timeout)?
}

/// Reads exactly one frame and nothing behind it.
async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Frame, StreamError> {
    let mut head = [0; Frame::HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let [length, flags] = head;
    // The flags are checked before anything else is awaited.
    let frame = Frame::new(flags, Bytes::new())?;
    let mut protocol = vec![0; usize::from(length)];
    stream.read_exact(&mut protocol).await?;
    Ok(Frame {
        protocol: protocol.into(),
        ..frame
    })
}

#[cfg(test)]
mod tests;
