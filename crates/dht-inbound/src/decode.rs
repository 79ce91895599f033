//! From bytes to the structure of an envelope: specification 03, section 3.2, steps 1 to 3, and F-1.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{Disposition, DropReason, MessageType, NodeId, RawEnvelope};
use dht_peers::Directory;
use dht_peers::policy::{BanPolicy, Offence, Parties};
use dht_proto::DecodeError;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Span, trace};

use crate::{Filtered, Inbound, Received};

/// Says whether a neighbour is known.
///
/// Specification 03, section 3.2, step 3, and F-3.
pub trait KnownSources: Send + Sync + 'static {
    /// Whether messages of this neighbour are looked at.
    fn is_known(&self, id: &NodeId) -> bool;
}

/// Everybody the transport lets through is known: it has authenticated the peer and keeps its own lists.
#[derive(Clone, Copy, Debug, Default)]
pub struct Authenticated;

/// Decodes frames as envelopes, without touching a point of the curve.
///
/// Drops what is empty, does not decode, differs from its own canonical encoding, or comes from nobody we know. None
/// of these brings a ban, save a short one for an unknown source.
///
/// Specification 03, section 3.2, steps 1 to 3.
#[derive(Debug)]
pub struct DecodeLayer<K> {
    shared: Arc<Shared<K>>,
}

/// Service produced by [`DecodeLayer`].
#[derive(Debug)]
pub struct Decode<K, S> {
    shared: Arc<Shared<K>>,
    inner: S,
}

#[derive(Debug)]
struct Shared<K> {
    sources: K,
    bans: BanPolicy,
}

impl KnownSources for Authenticated {
    fn is_known(&self, _: &NodeId) -> bool {
        true
    }
}

impl KnownSources for Directory {
    fn is_known(&self, id: &NodeId) -> bool {
        self.contains(id)
    }
}

// === impl DecodeLayer ===

impl<K> DecodeLayer<K> {
    /// Accepts frames from those `sources` knows.
    pub fn new(sources: K, bans: BanPolicy) -> Self {
        Self {
            shared: Arc::new(Shared { sources, bans }),
        }
    }
}

impl<K> Clone for DecodeLayer<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K, S> Layer<S> for DecodeLayer<K> {
    type Service = Decode<K, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Decode {
            shared: Arc::clone(&self.shared),
            inner,
        }
    }
}

// === impl Decode ===

impl<K, S: Clone> Clone for Decode<K, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<K, S> Service<Received> for Decode<K, S>
where
    K: KnownSources,
    S: Service<Inbound<RawEnvelope>, Response = Disposition>,
{
    type Response = Disposition;
    type Error = S::Error;
    type Future = Filtered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, received: Received) -> Self::Future {
        match self.shared.decode(received) {
            Ok(message) => Filtered::passed(self.inner.call(message)),
            Err(reason) => Filtered::dropped(reason),
        }
    }
}

impl<K: KnownSources> Shared<K> {
    fn decode(&self, received: Received) -> Result<Inbound<RawEnvelope>, DropReason> {
        let Received {
            source,
            frame,
            permit,
        } = received;
        let envelope = RawEnvelope::parse(frame).map_err(|cause| {
            trace!(%cause, "not an envelope");
            match cause {
                DecodeError::Empty => DropReason::Empty,
                _ => DropReason::Undecodable,
            }
        })?;
        record_identity(&envelope);
        if !self.sources.is_known(&source.node_id) {
            let deliverer = Parties::deliverer(source.node_id);
            self.bans.report(Offence::UnknownSource, deliverer);
            return Err(DropReason::UnknownSource);
        }
        if !envelope.is_canonical() {
            return Err(DropReason::NotCanonical);
        }
        Ok(Inbound {
            source,
            permit,
            fingerprint: None,
            envelope,
        })
    }
}

/// Tells the span of the message what it is about.
fn record_identity(envelope: &RawEnvelope) {
    let span = Span::current();
    if let Some(header) = envelope.header()
        && !span.is_disabled()
    {
        span.record("tag", header.message_tag);
        span.record(
            "kind",
            MessageType::from_wire(header.message_type).map_or("unknown", MessageType::name),
        );
    }
}

#[cfg(test)]
mod tests;
