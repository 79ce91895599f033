//! Requests and replies of a service, and a service made of typed methods.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use dht_proto::{Bounded, decode, encode};
use futures::{
    FutureExt as _, Stream, StreamExt as _, TryFutureExt as _,
    future::{self, BoxFuture},
    stream::BoxStream,
};
use prost::Message;
use tower_service::Service;

use crate::status::{Status, StatusCode};

/// One call of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<C> {
    /// Peer that calls: the [`Caller`](crate::Caller) that came with its stream.
    pub caller: C,
    /// Number of the method.
    pub method: u32,
    /// Time within which the first and each further response is due: what the client asked for, at most
    /// [`ServerConfig::max_deadline`](crate::ServerConfig::max_deadline).
    pub deadline: Duration,
    /// Encoded message of the method.
    pub payload: Bytes,
}

/// Answer of a service to one call.
pub enum Reply {
    /// One encoded message.
    Unary(Bytes),
    /// Encoded messages, until the stream ends or yields a failure.
    Stream(BoxStream<'static, Result<Bytes, Status>>),
}

type Handler<C> = Arc<dyn Fn(C, Bytes) -> BoxFuture<'static, Result<Reply, Status>> + Send + Sync>;

/// A service made of typed methods. Clones share the methods.
///
/// A request that does not decode within the bounds of its type is answered with [`StatusCode::BadRequest`], an unknown
/// method with [`StatusCode::UnsupportedMethod`].
///
/// ```
/// use dht_proto::message_header::MessageHeader;
/// use dht_rpc::{Router, Status};
///
/// # let _: Router<&'static str> =
/// Router::new().unary(1, |caller: &'static str, request: MessageHeader| async move {
///     match request.message_type {
///         0 => Err(Status::bad_request(format!("{caller} sent no type"))),
///         _ => Ok(request),
///     }
/// });
/// ```
pub struct Router<C> {
    methods: Arc<BTreeMap<u32, Handler<C>>>,
}

// === impl Router ===

impl<C> Router<C> {
    /// A router without methods.
    #[must_use]
    pub fn new() -> Self {
        let methods = Arc::default();
        Self { methods }
    }

    /// Adds a method with one answer.
    #[must_use]
    pub fn unary<Q, A, F>(
        self,
        method: u32,
        handler: impl Fn(C, Q) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: Bounded,
        A: Message + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        self.method(method, handler, |answer| Reply::Unary(encode(&answer)))
    }

    /// Adds a method with a stream of answers.
    #[must_use]
    pub fn streaming<Q, A, S, F>(
        self,
        method: u32,
        handler: impl Fn(C, Q) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: Bounded,
        A: Message,
        S: Stream<Item = Result<A, Status>> + Send + 'static,
        F: Future<Output = Result<S, Status>> + Send + 'static,
    {
        self.method(method, handler, |answers: S| {
            Reply::Stream(answers.map(|item| item.map(|item| encode(&item))).boxed())
        })
    }

    fn method<Q, R, F>(
        mut self,
        method: u32,
        handler: impl Fn(C, Q) -> F + Send + Sync + 'static,
        reply: fn(R) -> Reply,
    ) -> Self
    where
        Q: Bounded,
        R: 'static,
        F: Future<Output = Result<R, Status>> + Send + 'static,
    {
        let handler: Handler<C> = Arc::new(move |caller, payload| match decode(payload) {
            Ok(request) => handler(caller, request).map_ok(reply).boxed(),
            Err(_) => future::ready(Err(Status::bad_request("Failed to decode request"))).boxed(),
        });
        Arc::make_mut(&mut self.methods).insert(method, handler);
        self
    }
}

impl<C> Service<Request<C>> for Router<C> {
    type Response = Reply;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Reply, Status>>;

    /// Methods are functions: nothing waits here, and no room is reserved.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<C>) -> Self::Future {
        match self.methods.get(&request.method) {
            Some(handler) => handler(request.caller, request.payload),
            None => {
                let text = format!("method {} does not exist", request.method);
                let status = Status::new(StatusCode::UnsupportedMethod, text);
                future::ready(Err(status)).boxed()
            }
        }
    }
}

impl<C> Clone for Router<C> {
    fn clone(&self) -> Self {
        let methods = Arc::clone(&self.methods);
        Self { methods }
    }
}

impl<C> Default for Router<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for Router<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.methods.keys()).finish()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unary(payload) => f.debug_tuple("Unary").field(&payload.len()).finish(),
            Self::Stream(_) => f.debug_tuple("Stream").finish_non_exhaustive(),
        }
    }
}
