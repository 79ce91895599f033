//! The calling side of a session.

use std::{marker::PhantomData, time::Duration};

use bytes::Bytes;
use dht_proto::{
    Bounded, decode, encode, limits,
    rpc::{RpcRequest, RpcResponse},
};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    error::{CallError, HandshakeError, ProtocolError},
    frame::{FrameReader, FrameWriter},
    message::{ACK, FIN, check_reply, decode_response, session},
    metrics,
    status::Status,
};

/// Time that a server gets for a response (specification 02, section 8.2).
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(120);
/// Time beyond the deadline in which a response may still arrive. A stock server says nothing when a deadline passes.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);
/// Time in which the server must reply to a new session. A stock server makes one handshake after the other, each of up
/// to 15 s.
pub const DEFAULT_HANDSHAKE_WAIT: Duration = Duration::from_secs(90);
/// Bytes of responses to the call before that are skipped: more than a cancelled stream can have under way in the windows of
/// its connection. The reference skips 20 responses, so that few of its cancelled streams leave a usable session.
pub const MAX_LATE_BYTES: usize = 16 * 1024 * 1024;

/// Time in which a cancellation must leave this node.
const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// Limits of a [`Client`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Time that the server gets for the first response to a call, and for each further one. Sent with each request in
    /// whole seconds, at least 1. Defaults to [`DEFAULT_DEADLINE`].
    pub deadline: Duration,
    /// Time beyond [`deadline`](Self::deadline) that the client waits. Defaults to [`DEFAULT_GRACE`].
    pub grace: Duration,
    /// Time in which all responses to a streaming call must have arrived. Defaults to three times
    /// [`DEFAULT_DEADLINE`].
    pub stream_limit: Duration,
    /// Time in which the server must reply to a new session. Defaults to [`DEFAULT_HANDSHAKE_WAIT`].
    pub handshake_wait: Duration,
    /// Bytes of the longest response that is read. Defaults to 4 MiB, the longest there may be.
    pub max_response_bytes: usize,
}

/// A session on which calls are made, one at a time. Dropping it closes the stream.
///
/// # Cancel safety
/// The future of a call may be dropped at any time. The next call then first waits for the answer to a unary call or
/// ping, or cancels a stream; what still arrives of it is skipped.
#[derive(Debug)]
pub struct Client<T> {
    reader: FrameReader<ReadHalf<T>>,
    writer: FrameWriter<WriteHalf<T>>,
    config: ClientConfig,
    /// Id of the last call, 0 before the first.
    last_id: u16,
    /// Request whose last response has not arrived.
    under_way: Option<UnderWay>,
    /// Bytes of responses to the call before that were skipped since the last request.
    late_bytes: usize,
    /// An error ended the session.
    ended: bool,
}

/// The answers to a streaming call. Dropping it before its end cancels the call with the next request; see
/// [`cancel`](Self::cancel).
#[derive(Debug)]
pub struct Responses<'a, T, A> {
    client: &'a mut Client<T>,
    id: u16,
    /// When all of them must have arrived.
    end: Instant,
    finished: bool,
    answer: PhantomData<fn() -> A>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    id: u16,
    method: u32,
    kind: Kind,
    /// When the client gives up.
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unary,
    Stream,
    Ping,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            deadline: DEFAULT_DEADLINE,
            grace: DEFAULT_GRACE,
            stream_limit: DEFAULT_DEADLINE * 3,
            handshake_wait: DEFAULT_HANDSHAKE_WAIT,
            max_response_bytes: limits::MAX_RPC_FRAME_BYTES,
        }
    }
}

// === impl Client ===

impl<T: AsyncRead + AsyncWrite> Client<T> {
    /// Asks for a session on a stream whose protocol both sides agreed on.
    ///
    /// # Errors
    /// [`HandshakeError`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the stream.
    pub async fn connect(stream: T, config: ClientConfig) -> Result<Self, HandshakeError> {
        let connected = timeout(config.handshake_wait, Self::handshake(stream, config)).await;
        let connected = connected.unwrap_or(Err(HandshakeError::TimedOut));
        metrics::handshake(
            connected
                .as_ref()
                .map_or_else(HandshakeError::name, |_| "ok"),
        );
        connected
    }

    async fn handshake(stream: T, config: ClientConfig) -> Result<Self, HandshakeError> {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = FrameReader::new(reader);
        let mut writer = FrameWriter::new(writer);
        writer.push(&session());
        // A server without room rejects unread, so that writing may fail while its reason is already here.
        let written = writer.flush().await;
        match (reader.next(limits::MAX_RPC_SESSION_BYTES).await, written) {
            (Ok(Some(reply)), _) => check_reply(reply)?,
            (_, Err(error)) => return Err(error.into()),
            (Ok(None), _) => return Err(HandshakeError::Closed),
            (Err(error), _) => return Err(error.into()),
        }
        Ok(Self {
            reader,
            writer,
            config,
            last_id: 0,
            under_way: None,
            late_bytes: 0,
            ended: false,
        })
    }

    /// Makes a call with one answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn unary<Q: Message, A: Bounded>(
        &mut self,
        method: u32,
        request: &Q,
    ) -> Result<A, CallError> {
        let answered = async {
            let (id, until) = self.start(Kind::Unary, method, encode(request)).await?;
            let response = self.receive(id, until).await?;
            self.under_way = None;
            payload(response)
        };
        let answered = answered.await;
        self.note(answered.as_ref().err());
        decode(answered?).map_err(CallError::Undecodable)
    }

    /// Makes a call with a stream of answers.
    ///
    /// # Errors
    /// [`CallError`]. The server's failures come from [`Responses::next`].
    pub async fn stream<Q: Message, A: Bounded>(
        &mut self,
        method: u32,
        request: &Q,
    ) -> Result<Responses<'_, T, A>, CallError> {
        let end = Instant::now() + self.config.stream_limit;
        match self.start(Kind::Stream, method, encode(request)).await {
            Ok((id, _)) => Ok(Responses {
                client: self,
                id,
                end,
                finished: false,
                answer: PhantomData,
            }),
            Err(error) => {
                self.note(Some(&error));
                Err(error)
            }
        }
    }

    /// Asks whether the server is there, and measures the time until it answers.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ping(&mut self) -> Result<Duration, CallError> {
        let answered = async {
            let (id, until) = self.start(Kind::Ping, 0, Bytes::new()).await?;
            let sent = Instant::now();
            self.receive(id, until).await?;
            self.under_way = None;
            Ok(sent.elapsed())
        };
        let answered = answered.await;
        self.note(answered.as_ref().err());
        answered
    }

    /// Whether an error ended the session; a new one is needed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.ended
    }

    /// Brings the call before to its end, and sends a request.
    async fn start(
        &mut self,
        kind: Kind,
        method: u32,
        payload: Bytes,
    ) -> Result<(u16, Instant), CallError> {
        if self.ended {
            return Err(CallError::Closed);
        }
        let (id, flags) = match kind {
            Kind::Ping => (0, ACK),
            Kind::Unary | Kind::Stream => (self.last_id.checked_add(1).unwrap_or(1), 0),
        };
        let request = RpcRequest {
            flags,
            payload,
            ..self.request(id, method)
        };
        let (bytes, limit) = (request.encoded_len(), limits::MAX_RPC_FRAME_BYTES);
        if bytes > limit {
            return Err(CallError::RequestTooLong { bytes, limit });
        }
        self.end_dropped_call().await?;
        if kind != Kind::Ping {
            (self.last_id, self.late_bytes) = (id, 0);
        }
        self.writer.push(&request);
        let until = Instant::now() + self.config.deadline + self.config.grace;
        self.under_way = Some(UnderWay {
            id,
            method,
            kind,
            until,
        });
        let flushed = timeout_at(until, self.writer.flush()).await;
        flushed.map_err(|_| CallError::TimedOut)??;
        Ok((id, until))
    }

    fn request(&self, id: u16, method: u32) -> RpcRequest {
        RpcRequest {
            request_id: id.into(),
            method,
            deadline: self.config.deadline.as_secs().max(1),
            ..RpcRequest::default()
        }
    }

    /// Ends a request whose future was dropped. A server closes the session when a request comes while it answers a
    /// unary one, so that its answer is waited for; a stream is cancelled.
    async fn end_dropped_call(&mut self) -> Result<(), CallError> {
        let Some(dropped) = self.under_way else {
            return Ok(());
        };
        if dropped.kind == Kind::Stream {
            let cancellation = RpcRequest {
                flags: FIN,
                ..self.request(dropped.id, dropped.method)
            };
            self.writer.push(&cancellation);
        } else {
            let flushed = timeout_at(dropped.until, self.writer.flush()).await;
            flushed.map_err(|_| CallError::TimedOut)??;
            self.receive(dropped.id, dropped.until).await?;
        }
        self.under_way = None;
        Ok(())
    }

    /// The next response to the request under way.
    async fn receive(&mut self, id: u16, until: Instant) -> Result<RpcResponse, CallError> {
        loop {
            let frame = timeout_at(until, self.reader.next(self.config.max_response_bytes)).await;
            let frame = frame.map_err(|_| CallError::TimedOut)??;
            let frame = frame.ok_or(CallError::Closed)?;
            let bytes = frame.len();
            let response = decode_response(frame)?;
            // Calls have ids from 1, pings have 0.
            let is_ping = id == 0;
            let received = response.request_id;
            match response.flags & ACK != 0 {
                true if is_ping && received == 0 => return Ok(response),
                true => return Err(ProtocolError::UnexpectedAck.into()),
                false if !is_ping && received == u32::from(id) => return Ok(response),
                false => {}
            }
            let before = match id {
                0 => self.last_id,
                // The ids wrap, and skip 0.
                1 => u16::MAX,
                id => id - 1,
            };
            if received != u32::from(before) {
                let expected = id;
                return Err(ProtocolError::WrongResponse { expected, received }.into());
            }
            self.late_bytes += bytes;
            if self.late_bytes > MAX_LATE_BYTES {
                return Err(ProtocolError::TooMuchLate.into());
            }
        }
    }

    /// Counts a call that ended, and the session if an error ends it.
    fn note(&mut self, error: Option<&CallError>) {
        metrics::call(error.map_or("ok", CallError::name));
        self.ended |= error.is_some_and(CallError::ends_session);
    }
}

// === impl Responses ===

impl<T: AsyncRead + AsyncWrite, A: Bounded> Responses<'_, T, A> {
    /// The next answer; `None` after the last.
    ///
    /// # Errors
    /// [`CallError`]. No answer follows an error, but for [`CallError::Undecodable`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no answer.
    pub async fn next(&mut self) -> Result<Option<A>, CallError> {
        if self.finished {
            return Ok(None);
        }
        let config = &self.client.config;
        let until = (Instant::now() + config.deadline + config.grace).min(self.end);
        let response = self.client.receive(self.id, until).await;
        let item = response.and_then(|response| {
            let last = response.flags & FIN != 0 || response.status != 0;
            let bytes = payload(response)?;
            // The last response is no item, unless a server saves the frame.
            Ok((last, (!last || !bytes.is_empty()).then_some(bytes)))
        });
        let last = item.as_ref().map_or(true, |(last, _)| *last);
        if last {
            self.finished = true;
            self.client.under_way = None;
            self.client.note(item.as_ref().err());
        }
        let (_, item) = item?;
        item.map(|bytes| decode(bytes).map_err(CallError::Undecodable))
            .transpose()
    }

    /// Cancels the call: the server sends no further answer. Waits at most 2 s for the request to leave.
    ///
    /// # Errors
    /// [`CallError`] if it cannot be sent.
    pub async fn cancel(self) -> Result<(), CallError> {
        if self.finished {
            return Ok(());
        }
        let client = self.client;
        let cancelled = async {
            client.end_dropped_call().await?;
            let flushed = timeout(CANCEL_WAIT, client.writer.flush()).await;
            Ok(flushed.map_err(|_| CallError::TimedOut)??)
        };
        let cancelled: Result<(), CallError> = cancelled.await;
        client.note(cancelled.as_ref().err());
        cancelled
    }
}

fn payload(response: RpcResponse) -> Result<Bytes, CallError> {
    match response.status {
        0 => Ok(response.payload),
        status => Err(Status::from_response(status, &response.payload).into()),
    }
}
