//! Encryption and signature, once for all recipients: specification 04, sections 5.2 to 5.4.

use std::{
    fmt,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready as ready_or_return},
};

use bytes::Bytes;
use dht_core::{
    Destination, Encryption, Flags, MessageTag, MessageType, NodeId, NodeIdentity, Priority,
    ProtocolVersion, SealRequest, SealSecrets, SealedMessage, SharedClock, Signing, UnixSeconds,
    seal,
};
use dht_proto::limits::MAX_MESSAGING_FRAME_BYTES;
use futures::future::Either;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    GenerateError, OutboundConfig, SeedDedup, Selected, SendMessageResponse, SendParams,
    SendRequest, metrics, prepare_body,
};

/// Everything needed to seal one message, on whatever thread.
#[derive(Debug)]
pub struct SealJob {
    body: Bytes,
    message_type: MessageType,
    destination: Destination,
    encryption: Encryption,
    signing: Signing,
    expires: UnixSeconds,
    tag: MessageTag,
    version: ProtocolVersion,
    identity: Arc<NodeIdentity>,
    secrets: SealSecrets,
}

/// Where sealing happens. The multiplications take some 100 µs, which a task that reads sockets should not spend.
///
/// ```
/// use std::future::{Ready, ready};
/// use dht_core::SealedMessage;
/// use dht_outbound::{GenerateError, SealJob, Sealer};
///
/// /// Seals on the calling task; a pool would send the job to one of its threads instead.
/// struct Here;
///
/// impl Sealer for Here {
///     type Future = Ready<Result<SealedMessage, GenerateError>>;
///
///     fn seal(&self, job: SealJob) -> Self::Future {
///         ready(job.run())
///     }
/// }
/// ```
pub trait Sealer {
    /// The sealed message, when it is.
    type Future: Future<Output = Result<SealedMessage, GenerateError>>;

    /// Starts to seal. A job that is thrown away answers [`GenerateError::Cancelled`].
    fn seal(&self, job: SealJob) -> Self::Future;
}

/// Seals on the calling task.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineSealer;

/// Turns a [`Selected`] request into a [`SealedRequest`] and remembers messages to many.
///
/// Specification 04, sections 5.2 to 5.4.
#[derive(Clone)]
pub struct SealLayer<P, D> {
    shared: Arc<Shared<P, D>>,
}

/// Service produced by [`SealLayer`].
pub struct Seal<P, D, S> {
    shared: Arc<Shared<P, D>>,
    inner: S,
}

struct Shared<P, D> {
    identity: Arc<NodeIdentity>,
    clock: SharedClock,
    validity_seconds: u64,
    version: ProtocolVersion,
    sealer: P,
    dedup: D,
}

/// A message ready to be encoded.
#[derive(Clone, Debug)]
pub struct SealedRequest {
    /// The message.
    pub envelope: Envelope,
    /// To whom; at least one.
    pub recipients: Vec<NodeId>,
    /// Trace id.
    pub tag: MessageTag,
    /// When it is shed.
    pub priority: Priority,
}

/// A message in the form it came in.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// Made here.
    Sealed(Box<SealedMessage>),
    /// Received, to be passed on unchanged.
    Frame(Bytes),
}

pin_project! {
    /// Response future of [`Seal`].
    pub struct SealFuture<P, D, S, F>
    where
        S: Service<SealedRequest>,
    {
        #[pin]
        state: State<P, D, S, F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<P, D, S, F>
    where
        S: Service<SealedRequest>,
    {
        Sealing { #[pin] sealing: F, pending: Option<Pending<P, D, S>> },
        Inner { #[pin] future: S::Future },
        Refused { error: GenerateError },
    }
}

/// What is needed once a message is sealed.
struct Pending<P, D, S> {
    shared: Arc<Shared<P, D>>,
    /// The service that was readied.
    inner: S,
    recipients: Vec<NodeId>,
    is_broadcast: bool,
    tag: MessageTag,
    priority: Priority,
}

// === impl SealJob ===

impl SealJob {
    /// Seals.
    ///
    /// # Errors
    /// [`GenerateError::Seal`].
    pub fn run(self) -> Result<SealedMessage, GenerateError> {
        let request = SealRequest {
            body: self.body,
            message_type: self.message_type,
            destination: self.destination,
            encryption: self.encryption,
            sender: self.identity.secret_key(),
            signing: self.signing,
            expires: Some(self.expires),
            tag: self.tag,
            version: self.version,
        };
        Ok(seal(request, self.secrets)?)
    }

    /// Whether there is anything to compute.
    #[must_use]
    pub fn is_trivial(&self) -> bool {
        self.encryption == Encryption::Clear && self.signing == Signing::Anonymous
    }
}

impl Sealer for InlineSealer {
    type Future = Ready<Result<SealedMessage, GenerateError>>;

    fn seal(&self, job: SealJob) -> Self::Future {
        ready(job.run())
    }
}

impl<P: Sealer + ?Sized> Sealer for Arc<P> {
    type Future = P::Future;

    fn seal(&self, job: SealJob) -> Self::Future {
        (**self).seal(job)
    }
}

// === impl SealLayer ===

impl<P, D> SealLayer<P, D> {
    /// Seals as `identity`, through `sealer`, and tells `dedup` of messages that may come back.
    pub fn new(
        identity: Arc<NodeIdentity>,
        clock: SharedClock,
        config: &OutboundConfig,
        sealer: P,
        dedup: D,
    ) -> Self {
        let OutboundConfig {
            validity_seconds,
            version,
            ..
        } = *config;
        Self {
            shared: Arc::new(Shared {
                identity,
                clock,
                validity_seconds,
                version,
                sealer,
                dedup,
            }),
        }
    }
}

impl<P, D, S> Layer<S> for SealLayer<P, D> {
    type Service = Seal<P, D, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Seal {
            shared: Arc::clone(&self.shared),
            inner,
        }
    }
}

// === impl Seal ===

/// What the params make of a message.
enum Plan {
    Job(SealJob),
    Done(SealedMessage),
}

type Sealing<P> = Either<Ready<Result<SealedMessage, GenerateError>>, <P as Sealer>::Future>;

impl<P, D> Shared<P, D> {
    fn plan(
        &self,
        params: SendParams,
        payload: crate::Payload,
        tag: MessageTag,
        rng: &mut rand_chacha::ChaCha12Rng,
    ) -> Result<Plan, GenerateError> {
        let body = prepare_body(payload, &params.strategy, rng);
        let (bytes, max) = (body.len(), MAX_MESSAGING_FRAME_BYTES);
        if bytes > max {
            return Err(GenerateError::TooLarge { bytes, max });
        }
        let is_clear = params.encryption == Encryption::Clear;
        if let Some(header) = params.header {
            if !is_clear || params.force_origin || params.flags != Flags::NONE {
                return Err(GenerateError::HeaderConflict);
            }
            return Ok(Plan::Done(SealedMessage {
                header: *header,
                body,
                binding_hash: None,
            }));
        }
        if is_clear && params.flags.contains(Flags::ENCRYPTED) {
            return Err(GenerateError::FlagConflict);
        }
        Ok(Plan::Job(SealJob {
            body,
            message_type: params.message_type,
            destination: params.destination,
            encryption: params.encryption,
            signing: if params.force_origin {
                Signing::Origin
            } else {
                Signing::Anonymous
            },
            // 0 means "never" on the wire.
            expires: UnixSeconds(
                self.clock
                    .now()
                    .saturating_add(self.validity_seconds)
                    .0
                    .max(1),
            ),
            tag,
            version: self.version,
            identity: Arc::clone(&self.identity),
            secrets: SealSecrets::random(rng),
        }))
    }
}

impl<P, D, S> Service<Selected> for Seal<P, D, S>
where
    P: Sealer,
    D: SeedDedup,
    S: Service<SealedRequest, Response = SendMessageResponse> + Clone,
{
    type Response = SendMessageResponse;
    type Error = S::Error;
    type Future = SealFuture<P, D, S, Sealing<P>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, selected: Selected) -> Self::Future {
        SealFuture {
            state: self.start(selected),
        }
    }
}

impl<P, D, S> Seal<P, D, S>
where
    P: Sealer,
    S: Service<SealedRequest> + Clone,
{
    fn start(&mut self, selected: Selected) -> State<P, D, S, Sealing<P>> {
        let Selected {
            request,
            recipients,
            is_broadcast,
            tag,
            mut rng,
        } = selected;
        let priority = request.priority();
        let (params, payload) = match request {
            SendRequest::Forward { frame, .. } => {
                let envelope = Envelope::Frame(frame);
                let request = SealedRequest {
                    envelope,
                    recipients,
                    tag,
                    priority,
                };
                return State::Inner {
                    future: self.inner.call(request),
                };
            }
            SendRequest::Message { params, payload } => (params, payload),
        };
        match self.shared.plan(*params, payload, tag, &mut rng) {
            Err(error) => State::Refused { error },
            // Correctness: never remembered. The signature in a given header is somebody else's, and whoever made it
            // could have us drop a third message whose hash it chose (specification 04, section 11.2, F-5).
            Ok(Plan::Done(sealed)) => {
                let envelope = Envelope::Sealed(Box::new(sealed));
                let request = SealedRequest {
                    envelope,
                    recipients,
                    tag,
                    priority,
                };
                State::Inner {
                    future: self.inner.call(request),
                }
            }
            Ok(Plan::Job(job)) => {
                let sealing = if job.is_trivial() {
                    Either::Left(ready(job.run()))
                } else {
                    Either::Right(self.shared.sealer.seal(job))
                };
                // `poll_ready` readied *this* inner: take it, and leave an unready clone behind.
                let unready = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, unready);
                let shared = Arc::clone(&self.shared);
                let pending = Pending {
                    shared,
                    inner,
                    recipients,
                    is_broadcast,
                    tag,
                    priority,
                };
                State::Sealing {
                    sealing,
                    pending: Some(pending),
                }
            }
        }
    }
}

impl<P, D, S> Pending<P, D, S>
where
    D: SeedDedup,
    S: Service<SealedRequest>,
{
    fn send(mut self, sealed: SealedMessage) -> S::Future {
        if self.is_broadcast
            && let Ok(hash) = sealed.dedup_key()
        {
            let signed = !sealed.header.signature.is_empty();
            self.shared.dedup.seed(hash, sealed.header.expires, signed);
            metrics::seeded();
        }
        self.inner.call(SealedRequest {
            envelope: Envelope::Sealed(Box::new(sealed)),
            recipients: self.recipients,
            tag: self.tag,
            priority: self.priority,
        })
    }
}

impl<P, D, S, F> Future for SealFuture<P, D, S, F>
where
    D: SeedDedup,
    S: Service<SealedRequest, Response = SendMessageResponse>,
    F: Future<Output = Result<SealedMessage, GenerateError>>,
{
    type Output = Result<SendMessageResponse, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Inner { future } => return future.poll(cx),
                StateProj::Refused { error } => {
                    let error = *error;
                    tracing::debug!(%error, "message not generated");
                    return Poll::Ready(Ok(crate::SendFailure::from(error).into()));
                }
                StateProj::Sealing { sealing, pending } => {
                    let sealed = ready_or_return!(sealing.poll(cx));
                    match (sealed, pending.take()) {
                        (Ok(sealed), Some(pending)) => State::Inner {
                            future: pending.send(sealed),
                        },
                        (Err(error), _) => State::Refused { error },
                        (Ok(_), None) => State::Refused {
                            error: GenerateError::Cancelled,
                        },
                    }
                }
            };
            state.set(next);
        }
    }
}

impl<P, D, S: Clone> Clone for Seal<P, D, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<P, D> fmt::Debug for SealLayer<P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealLayer(..)")
    }
}

impl<P, D, S: Service<SealedRequest>, F> fmt::Debug for SealFuture<P, D, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealFuture(..)")
    }
}

impl<P, D, S: fmt::Debug> fmt::Debug for Seal<P, D, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
