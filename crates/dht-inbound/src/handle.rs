//! The DHT's own messages: specification 03, section 3.12.

mod answer;
mod claim;
mod discovery;
mod join;
mod response;

use std::{
    marker::PhantomData,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use dht_core::{
    Claim, Clock, Disposition, DropReason, MessageType, NodeIdentity, Outbox, OutboxError,
    PublicKey,
};
use dht_peers::policy::{BanPolicy, Offence, Parties};
use dht_peers::{ClaimPolicy, ClaimsError, Directory, ValidClaims, validate_claims};
use dht_proto::Bounded;
use dht_stack::BoxError;
use tower_layer::Layer;
use tower_service::Service;
use tracing::debug;

pub use self::{
    answer::{AnswerCheck, AnswerError},
    claim::{ClaimParts, ConvertError, convert_claim},
    response::{DiscoveryAnswer, DiscoveryHook},
};
use crate::{CryptoPool, Message, Next, Step};

/// Consumes joins, discoveries and discovery responses, and drops what this node cannot read; passes everything else
/// on.
///
/// Peers learned go into the directory once their claim has been checked, on the pool. What goes out goes to the
/// [`Outbox`]; responses go to the [`DiscoveryHook`].
///
/// Specification 03, section 3.12, and 06, sections 2.2, 2.3 and 3.
#[derive(Debug)]
pub struct HandleLayer<P, O, H, C> {
    pool: P,
    handler: Arc<Handler<O, H, C>>,
}

/// Service produced by [`HandleLayer`].
#[derive(Debug)]
pub struct Handle<P, O, H, C, S> {
    pool: P,
    handler: Arc<Handler<O, H, C>>,
    inner: S,
}

/// What [`HandleLayer`] works with.
#[derive(Debug)]
pub struct Handler<O, H, C> {
    /// This node.
    pub identity: Arc<NodeIdentity>,
    /// Where peers are kept.
    pub directory: Directory,
    /// Takes relayed joins and answers to discoveries.
    pub outbox: O,
    /// Takes discovery responses.
    pub discovery: H,
    /// Takes offences.
    pub bans: BanPolicy,
    /// The time.
    pub clock: C,
    /// Which claims are acceptable.
    pub claims: ClaimPolicy,
}

/// What [`Handle`] does once a claim has been checked.
#[derive(Debug)]
pub struct AfterCheck<O, H, C, F> {
    handler: Arc<Handler<O, H, C>>,
    message: Message,
    subject: Subject,
    future: PhantomData<fn() -> F>,
}

/// Who says what, checked as far as it goes without arithmetic.
#[derive(Clone, Debug)]
struct Subject {
    key: PublicKey,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Join,
    Discovery { nonce: u64 },
}

/// How far a message got: done with, or up to a claim to be checked.
type Inspected = ControlFlow<Disposition, (Subject, Claim)>;

// === impl HandleLayer ===

impl<P, O, H, C> HandleLayer<P, O, H, C> {
    /// Checks claims on `pool`.
    pub fn new(pool: P, handler: Handler<O, H, C>) -> Self {
        Self {
            pool,
            handler: Arc::new(handler),
        }
    }
}

impl<P: Clone, O, H, C> Clone for HandleLayer<P, O, H, C> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            handler: Arc::clone(&self.handler),
        }
    }
}

impl<P: Clone, O, H, C, S> Layer<S> for HandleLayer<P, O, H, C> {
    type Service = Handle<P, O, H, C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Handle {
            pool: self.pool.clone(),
            handler: Arc::clone(&self.handler),
            inner,
        }
    }
}

// === impl Handle ===

impl<P: Clone, O, H, C, S: Clone> Clone for Handle<P, O, H, C, S> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            handler: Arc::clone(&self.handler),
            inner: self.inner.clone(),
        }
    }
}

/// The outcome of checking a claim.
type Checked = Result<ValidClaims, ClaimsError>;

impl<P, O, H, C, S> Service<Message> for Handle<P, O, H, C, S>
where
    P: CryptoPool,
    O: Outbox,
    H: DiscoveryHook,
    C: Clock,
    S: Service<Message, Response = Disposition>,
    S::Error: Into<BoxError>,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = Step<P::Future<Checked>, AfterCheck<O, H, C, S::Future>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, message: Message) -> Self::Future {
        if !message.is_readable() {
            return Step::ended(Disposition::Dropped(DropReason::NotForUs));
        }
        if message.is_repeat() || !message.opened.header.message_type.is_dht() {
            return Step::passed(self.inner.call(message));
        }
        let (subject, claim) = match self.handler.inspect(&message) {
            Ok(ControlFlow::Continue(claimed)) => claimed,
            Ok(ControlFlow::Break(disposition)) => return Step::ended(disposition),
            Err(error) => return Step::failed(error),
        };
        let handler = Arc::clone(&self.handler);
        let known = handler.directory.find(&subject.key.node_id());
        let (policy, now, key) = (handler.claims, handler.clock.now(), subject.key);
        let check = move || validate_claims(&key, vec![claim], known.as_deref(), &policy, now);
        let next = AfterCheck {
            handler,
            message,
            subject,
            future: PhantomData,
        };
        Step::new(self.pool.run(check), next)
    }
}

impl<O, H, C, F> Next<Checked> for AfterCheck<O, H, C, F>
where
    O: Outbox,
    C: Clock,
{
    type Future = F;

    fn next(self, checked: Checked) -> Result<ControlFlow<Disposition, F>, BoxError> {
        let Self {
            handler,
            message,
            subject,
            ..
        } = self;
        let disposition = match (checked, subject.kind) {
            (Ok(claims), Kind::Join) => handler.joined(&message, &claims)?,
            (Ok(claims), Kind::Discovery { nonce }) => handler.discovered(&claims, nonce)?,
            (Err(cause), kind) => {
                debug!(%cause, "claim refused");
                let offence = match (kind, cause) {
                    (_, ClaimsError::KeyMismatch) => None,
                    (Kind::Join, cause) if cause.is_offence() => Some(Offence::JoinForgedClaim),
                    (Kind::Join, _) => Some(Offence::JoinRefusedClaim),
                    (Kind::Discovery { .. }, cause) => {
                        cause.is_offence().then_some(Offence::DiscoveryForgedClaim)
                    }
                };
                if let Some(offence) = offence {
                    handler.blame(offence, &message);
                }
                Disposition::Dropped(DropReason::BadProtocolMessage)
            }
        };
        Ok(ControlFlow::Break(disposition))
    }
}

impl<O, H, C> Handler<O, H, C>
where
    H: DiscoveryHook,
{
    /// Everything that needs no arithmetic.
    fn inspect(&self, message: &Message) -> Result<Inspected, OutboxError> {
        let Some(origin) = message.opened.origin() else {
            self.blame(Offence::AnonymousProtocolMessage, message);
            return Ok(dropped(DropReason::Unauthenticated));
        };
        match message.opened.header.message_type {
            _ if origin == self.identity.public_key() => Ok(dropped(DropReason::OwnMessage)),
            MessageType::Join => Ok(self.inspect_join(message, origin)),
            MessageType::Discovery => Ok(self.inspect_discovery(message, origin)),
            _ => self
                .inspect_response(message, origin)
                .map(ControlFlow::Break),
        }
    }
}

impl<O, H, C> Handler<O, H, C> {
    /// Decodes part 0, or blames the signer.
    fn decode<M: Bounded>(&self, message: &Message) -> Option<M> {
        let part = message.opened.parts().and_then(|parts| parts.first());
        let decoded = part.and_then(|part: &Bytes| dht_proto::decode(part.clone()).ok());
        if decoded.is_none() {
            self.blame(Offence::UndecodableProtocolMessage, message);
        }
        decoded
    }

    fn blame(&self, offence: Offence, message: &Message) {
        let parties = Parties {
            deliverer: Some(message.source.node_id.into()),
            origin: message.opened.origin().map(|key| (*key).into()),
            ..Parties::default()
        };
        self.bans.report(offence, parties);
    }
}

const fn dropped<T>(reason: DropReason) -> ControlFlow<Disposition, T> {
    ControlFlow::Break(Disposition::Dropped(reason))
}

/// What becomes of a message that breaks the rules of its kind.
const BAD: ControlFlow<Disposition, (Subject, Claim)> = dropped(DropReason::BadProtocolMessage);

#[cfg(test)]
mod tests;
