//! One session of a server: handshake, then one request after the other (specification 02, section 8).

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use dht_proto::limits;
use futures::{FutureExt as _, StreamExt as _, future, stream::BoxStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    time::timeout,
};
use tower_service::Service;

use super::{ServerConfig, table::Slot};
use crate::{
    error::{ProtocolError, ReadError, RejectReason},
    frame::{FrameReader, FrameWriter},
    message::{
        ClientMessage, MAX_PAYLOAD_BYTES, accepted, failure, item, last, offers_version, pong,
        rejected,
    },
    metrics,
    router::{Reply, Request},
    status::{Status, StatusCode},
};

/// Bytes of responses that are gathered while the service has more at once.
const GATHERED_BYTES: usize = 32 * 1024;

/// Why a session ended before its client closed it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The client took too long for the handshake.
    #[error("client did not make the handshake in time")]
    HandshakeTimedOut,
    /// The client offers no version that this server speaks.
    #[error("client speaks no known version")]
    Version,
    /// The client sent nothing for too long.
    #[error("session was idle for too long")]
    Idle,
    /// The session made room for another one.
    #[error("session made room for another")]
    Culled,
    /// The client does not take what is written.
    #[error("client does not read")]
    WriteTimedOut,
    /// The client broke the protocol.
    #[error("client broke the protocol")]
    Protocol(#[from] ProtocolError),
    /// The stream failed.
    #[error("stream failed")]
    Io(#[from] io::Error),
}

pub(super) struct Session<T, C, S> {
    reader: FrameReader<ReadHalf<T>>,
    writer: FrameWriter<WriteHalf<T>>,
    caller: C,
    service: S,
    config: ServerConfig,
}

/// How the answer to a call ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// The session goes on.
    Answered,
    /// The client closed its side.
    Closed,
}

// === impl Session ===

impl<T, C, S> Session<T, C, S>
where
    T: AsyncRead + AsyncWrite,
    C: Clone,
    S: Service<Request<C>, Response = Reply, Error = Status>,
{
    pub(super) fn new(stream: T, caller: C, service: S, config: ServerConfig) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: FrameReader::new(reader),
            writer: FrameWriter::new(writer),
            caller,
            service,
            config,
        }
    }

    pub(super) async fn run<P: Ord, G: Ord>(
        mut self,
        slot: &Slot<P, G>,
    ) -> Result<(), SessionError> {
        let handshake = timeout(self.config.handshake_limit, self.handshake()).await;
        handshake.map_err(|_| SessionError::HandshakeTimedOut)??;
        loop {
            slot.set_idle(true);
            let frame = self.reader.next(self.config.max_request_bytes);
            let frame = timeout(self.config.idle_limit, frame).await;
            let Some(frame) = frame.map_err(|_| SessionError::Idle)?? else {
                break;
            };
            slot.set_idle(false);
            match ClientMessage::decode(frame)? {
                ClientMessage::Ping { id } => self.writer.push(&pong(id)),
                // Its call has been answered.
                ClientMessage::Cancel { .. } => continue,
                ClientMessage::NoDeadline { id } => {
                    let status = Status::bad_request("deadline is under 1 s");
                    push_failure(&mut self.writer, id, &status);
                }
                ClientMessage::Call {
                    id,
                    method,
                    deadline,
                    payload,
                } => {
                    let request = Request {
                        caller: self.caller.clone(),
                        method,
                        deadline: Duration::from_secs(deadline).min(self.config.max_deadline),
                        payload,
                    };
                    if self.answer(id, request).await? == Ended::Closed {
                        break;
                    }
                }
            }
            flush(&mut self.writer, self.config.write_limit).await?;
        }
        let closing = timeout(self.config.write_limit, self.writer.close()).await;
        Ok(closing.map_err(|_| SessionError::WriteTimedOut)??)
    }

    async fn handshake(&mut self) -> Result<(), SessionError> {
        let frame = self.reader.next(limits::MAX_RPC_SESSION_BYTES).await?;
        let frame = frame.ok_or(io::ErrorKind::UnexpectedEof);
        if offers_version(frame.map_err(io::Error::from)?)? {
            self.writer.push(&accepted());
            return Ok(self.writer.flush().await?);
        }
        self.writer
            .push(&rejected(RejectReason::UnsupportedVersion));
        self.writer.close().await?;
        Err(SessionError::Version)
    }

    /// Answers a call; what is left to be written is in the writer then. The client may cancel or close meanwhile.
    async fn answer(&mut self, id: u16, request: Request<C>) -> Result<Ended, SessionError> {
        let deadline = request.deadline;
        let mut watch = Watch {
            reader: &mut self.reader,
            limit: self.config.max_request_bytes,
            id,
        };
        let mut cancelled = false;
        let reply = {
            let service = &mut self.service;
            let call = async move {
                future::poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(request).await
            };
            let mut call = pin!(timeout(deadline, call));
            loop {
                tokio::select! {
                    biased;
                    reply = &mut call => break reply,
                    watched = watch.next(), if !cancelled => match watched? {
                        Watched::Cancelled => cancelled = true,
                        Watched::Closed => return Ok(Ended::Closed),
                    },
                }
            }
        };
        let writer = &mut self.writer;
        let items = match reply {
            Err(_) => {
                push_failure(writer, id, &deadline_passed());
                return Ok(Ended::Answered);
            }
            Ok(Err(status)) => {
                push_failure(writer, id, &status);
                return Ok(Ended::Answered);
            }
            Ok(Ok(Reply::Unary(payload))) => {
                match check(payload) {
                    Ok(payload) => {
                        metrics::answered(StatusCode::Ok.name());
                        writer.push(&last(id, payload));
                    }
                    Err(status) => push_failure(writer, id, &status),
                }
                return Ok(Ended::Answered);
            }
            Ok(Ok(Reply::Stream(_))) if cancelled => {
                metrics::answered("cancelled");
                return Ok(Ended::Answered);
            }
            Ok(Ok(Reply::Stream(items))) => items,
        };
        let write_limit = self.config.write_limit;
        let sending = timeout(
            self.config.reply_limit,
            send(writer, id, items, deadline, write_limit),
        );
        tokio::select! {
            biased;
            sent = sending => match sent.unwrap_or_else(|_| Ok(Err(deadline_passed())))? {
                Ok(()) => {
                    metrics::answered(StatusCode::Ok.name());
                    self.writer.push(&last(id, Bytes::new()));
                }
                Err(status) => push_failure(&mut self.writer, id, &status),
            },
            watched = watch.next() => {
                metrics::answered("cancelled");
                if let Watched::Closed = watched? {
                    return Ok(Ended::Closed);
                }
            }
        }
        Ok(Ended::Answered)
    }
}

/// Reads what the client sends while it is answered.
struct Watch<'a, R> {
    reader: &'a mut FrameReader<R>,
    limit: usize,
    /// Id of the call.
    id: u16,
}

enum Watched {
    Cancelled,
    Closed,
}

impl<R: AsyncRead + Unpin> Watch<'_, R> {
    /// Waits until the client cancels the call or closes its side; anything else but a late cancellation of an earlier
    /// call breaks the protocol. Cancel safe.
    async fn next(&mut self) -> Result<Watched, SessionError> {
        loop {
            let Some(frame) = self.reader.next(self.limit).await? else {
                return Ok(Watched::Closed);
            };
            match ClientMessage::decode(frame)? {
                ClientMessage::Cancel { id } if id == self.id => return Ok(Watched::Cancelled),
                ClientMessage::Cancel { .. } => {}
                _ => return Err(ProtocolError::Pipelined.into()),
            }
        }
    }
}

/// Sends the items of a stream; the inner error is the failure that ends it.
async fn send<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    id: u16,
    mut items: BoxStream<'static, Result<Bytes, Status>>,
    deadline: Duration,
    write_limit: Duration,
) -> Result<Result<(), Status>, SessionError> {
    loop {
        let next = match items.next().now_or_never() {
            Some(next) => next,
            None => {
                flush(writer, write_limit).await?;
                match timeout(deadline, items.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(Err(deadline_passed())),
                }
            }
        };
        match next {
            None => return Ok(Ok(())),
            Some(payload) => match payload.and_then(check) {
                Ok(payload) => writer.push(&item(id, payload)),
                Err(status) => return Ok(Err(status)),
            },
        }
        if writer.queued() >= GATHERED_BYTES {
            flush(writer, write_limit).await?;
        }
    }
}

async fn flush<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    limit: Duration,
) -> Result<(), SessionError> {
    let flushed = timeout(limit, writer.flush()).await;
    Ok(flushed.map_err(|_| SessionError::WriteTimedOut)??)
}

/// A payload that fits a response, or the failure that is sent instead.
fn check(payload: Bytes) -> Result<Bytes, Status> {
    if payload.len() <= MAX_PAYLOAD_BYTES {
        return Ok(payload);
    }
    let text = format!("response is over the limit of {MAX_PAYLOAD_BYTES} bytes");
    Err(Status::new(StatusCode::MalformedResponse, text))
}

fn deadline_passed() -> Status {
    Status::new(StatusCode::Timeout, "deadline passed")
}

fn push_failure<W: AsyncWrite + Unpin>(writer: &mut FrameWriter<W>, id: u16, status: &Status) {
    metrics::answered(status.code.name());
    writer.push(&failure(id, status));
}

// === impl SessionError ===

impl SessionError {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::HandshakeTimedOut => "handshake_timeout",
            Self::Version => "version",
            Self::Idle => "idle",
            Self::Culled => "culled",
            Self::WriteTimedOut => "write_timeout",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "io",
        }
    }
}

impl From<ReadError> for SessionError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Protocol(error) => Self::Protocol(error),
            ReadError::Io(error) => Self::Io(error),
        }
    }
}
