//! How much one neighbour may ask of this node: law 3, before any public-key work.
//!
//! The flood limit of specification 03, section 5 bans who sends too much, but only when the meter is read, every two
//! minutes. Until then the buckets here hold a neighbour to what a node can carry beside its other neighbours.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use dht_core::{Clock, Disposition, DropReason, MessageType, RawEnvelope, SharedClock};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Filtered, Inbound, Received, metrics};

mod bucket;
mod limiter;

pub use limiter::{RateLimiter, UNDECODABLE_FRAME_BYTES};

/// Tokens of a bucket: how fast they come back, and how many there are at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: u32,
    /// Tokens at most. The clock counts seconds, so a bucket holds at least one second's tokens, whatever this says,
    /// and at least one.
    pub burst: u32,
}

/// How much of each kind a neighbour may send. Exact copies of messages already seen cost nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimits {
    /// Application messages. Defaults to 20 000 a second, half of what two cores verify: one neighbour alone never
    /// takes it all.
    pub application: Rate,
    /// Joins, its own and those it passes on. Defaults to 50 a second, 2 000 at once.
    pub join: Rate,
    /// Discoveries, its own and those it passes on. Defaults to 50 a second, 2 000 at once.
    pub discovery: Rate,
    /// Discovery responses, which are only ever its own. Defaults to 20 a second, 500 at once.
    pub discovery_response: Rate,
    /// Requests for stored mail. Defaults to 5 a second, 100 at once: each reads the store.
    pub mail_request: Rate,
    /// Stored mail, in messages of up to a hundred. Defaults to 20 a second, 500 at once.
    pub mail: Rate,
    /// Bytes that are no envelope. Defaults to 256 KiB a second, 4 MiB at once. A neighbour beyond it is not listened
    /// to at all until it has made up for it: nobody can be made to pass on what does not decode.
    pub undecodable_bytes: Rate,
}

/// The buckets of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// [`RateLimits::application`]; types this node does not know count here as well.
    Application,
    /// [`RateLimits::join`].
    Join,
    /// [`RateLimits::discovery`].
    Discovery,
    /// [`RateLimits::discovery_response`].
    DiscoveryResponse,
    /// [`RateLimits::mail_request`].
    MailRequest,
    /// [`RateLimits::mail`].
    Mail,
    /// [`RateLimits::undecodable_bytes`].
    UndecodableBytes,
}

impl Rate {
    /// So much a second, and as much at once.
    #[must_use]
    pub const fn per_second(tokens: u32) -> Self {
        Self {
            per_second: tokens,
            burst: tokens,
        }
    }
}

impl RateLimits {
    /// As good as no limit, for measurements.
    pub const NONE: Self = {
        let rate = Rate::per_second(u32::MAX);
        Self {
            application: rate,
            join: rate,
            discovery: rate,
            discovery_response: rate,
            mail_request: rate,
            mail: rate,
            undecodable_bytes: rate,
        }
    };

    const fn of(&self, bucket: Bucket) -> Rate {
        match bucket {
            Bucket::Application => self.application,
            Bucket::Join => self.join,
            Bucket::Discovery => self.discovery,
            Bucket::DiscoveryResponse => self.discovery_response,
            Bucket::MailRequest => self.mail_request,
            Bucket::Mail => self.mail,
            Bucket::UndecodableBytes => self.undecodable_bytes,
        }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        let rate = |per_second, burst| Rate { per_second, burst };
        Self {
            application: rate(20_000, 20_000),
            join: rate(50, 2_000),
            discovery: rate(50, 2_000),
            discovery_response: rate(20, 500),
            mail_request: rate(5, 100),
            mail: rate(20, 500),
            undecodable_bytes: rate(256 * 1_024, 4 * 1_024 * 1_024),
        }
    }
}

impl Bucket {
    /// Every bucket, in the order in which a neighbour's are kept.
    pub const ALL: [Self; 7] = [
        Self::Application,
        Self::Join,
        Self::Discovery,
        Self::DiscoveryResponse,
        Self::MailRequest,
        Self::Mail,
        Self::UndecodableBytes,
    ];

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Join => "join",
            Self::Discovery => "discovery",
            Self::DiscoveryResponse => "discovery_response",
            Self::MailRequest => "mail_request",
            Self::Mail => "mail",
            Self::UndecodableBytes => "undecodable_bytes",
        }
    }

    /// The bucket of messages with this type number.
    #[must_use]
    pub fn of_wire_type(number: i32) -> Self {
        match MessageType::from_wire(number) {
            Some(MessageType::Join) => Self::Join,
            Some(MessageType::Discovery) => Self::Discovery,
            Some(MessageType::DiscoveryResponse) => Self::DiscoveryResponse,
            Some(MessageType::SafRequestMessages) => Self::MailRequest,
            Some(MessageType::SafStoredMessages) => Self::Mail,
            _ => Self::Application,
        }
    }
}

/// Drops what exceeds the rate of its type.
#[derive(Clone, Debug)]
pub struct RateLayer<C> {
    limiter: RateLimiter,
    clock: C,
}

/// Service produced by [`RateLayer`].
#[derive(Clone, Debug)]
pub struct RateFilter<C, S> {
    limiter: RateLimiter,
    clock: C,
    inner: S,
}

/// Charges frames that turn out to be no envelope, and drops everything of a neighbour that sent too many.
#[derive(Clone)]
pub struct JunkLayer {
    limiter: RateLimiter,
    clock: SharedClock,
}

/// Service produced by [`JunkLayer`].
#[derive(Clone)]
pub struct JunkFilter<S> {
    limiter: RateLimiter,
    clock: SharedClock,
    inner: S,
}

pin_project! {
    /// Response future of [`JunkFilter`].
    pub struct JunkFuture<F> {
        #[pin]
        inner: F,
        charge: Option<Charge>,
    }
}

/// Whom to charge for a frame that does not decode.
struct Charge {
    limiter: RateLimiter,
    clock: SharedClock,
    source: dht_core::NodeId,
    bytes: usize,
}

// === impl RateLayer ===

impl<C> RateLayer<C> {
    /// Takes tokens from `limiter`, at the time of `clock`.
    pub const fn new(limiter: RateLimiter, clock: C) -> Self {
        Self { limiter, clock }
    }
}

impl<C: Clone, S> Layer<S> for RateLayer<C> {
    type Service = RateFilter<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateFilter {
            limiter: self.limiter.clone(),
            clock: self.clock.clone(),
            inner,
        }
    }
}

impl<C, S> Service<Inbound<RawEnvelope>> for RateFilter<C, S>
where
    C: Clock,
    S: Service<Inbound<RawEnvelope>, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, message: Inbound<RawEnvelope>) -> Self::Future {
        // Without a header it is dropped further on, at no cost.
        let kind = message.envelope.header().map(|header| header.message_type);
        let bucket = kind.map_or(Bucket::Application, Bucket::of_wire_type);
        let source = &message.source.node_id;
        if self.limiter.try_take(source, bucket, self.clock.now()) {
            return Filtered::passed(self.inner.call(message));
        }
        metrics::rate_limited(bucket.name());
        Filtered::dropped(DropReason::Overload)
    }
}

// === impl JunkLayer ===

impl JunkLayer {
    /// Charges `limiter`, at the time of `clock`.
    #[must_use]
    pub const fn new(limiter: RateLimiter, clock: SharedClock) -> Self {
        Self { limiter, clock }
    }
}

impl std::fmt::Debug for JunkLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("JunkLayer").field(&self.limiter).finish()
    }
}

impl<S> Layer<S> for JunkLayer {
    type Service = JunkFilter<S>;

    fn layer(&self, inner: S) -> Self::Service {
        JunkFilter {
            limiter: self.limiter.clone(),
            clock: SharedClock::clone(&self.clock),
            inner,
        }
    }
}

impl<S> std::fmt::Debug for JunkFilter<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("JunkFilter").field(&self.limiter).finish()
    }
}

impl<S> Service<Received> for JunkFilter<S>
where
    S: Service<Received, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<JunkFuture<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, received: Received) -> Self::Future {
        let source = received.source.node_id;
        if self.limiter.is_in_debt(&source, || self.clock.now()) {
            metrics::rate_limited(Bucket::UndecodableBytes.name());
            return Filtered::dropped(DropReason::Overload);
        }
        let charge = Charge {
            limiter: self.limiter.clone(),
            clock: SharedClock::clone(&self.clock),
            source,
            bytes: received.frame.len(),
        };
        Filtered::passed(JunkFuture {
            inner: self.inner.call(received),
            charge: Some(charge),
        })
    }
}

impl<F> std::fmt::Debug for JunkFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JunkFuture(..)")
    }
}

impl<F, E> Future for JunkFuture<F>
where
    F: Future<Output = Result<Disposition, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = ready!(this.inner.poll(cx));
        if let Ok(Disposition::Dropped(DropReason::Undecodable | DropReason::Empty)) = outcome
            && let Some(charge) = this.charge.take()
        {
            let now = charge.clock.now();
            charge
                .limiter
                .charge_junk(&charge.source, charge.bytes, now);
        }
        Poll::Ready(outcome)
    }
}

#[cfg(test)]
mod tests;
