//! From bytes to the structure of an envelope: specification 03, section 3.2, steps 1 to 3, and F-1.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use dht_core::{Disposition, DropReason, MessageType, NodeId, RawEnvelope};
use dht_peers::Directory;
use dht_proto::DecodeError;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Span, trace};

use crate::{BanSink, Bans, Filtered, Inbound, Offence, Parties, Received};

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
pub struct DecodeLayer<K, B> {
    shared: Arc<Shared<K, B>>,
}

/// Service produced by [`DecodeLayer`].
#[derive(Debug)]
pub struct Decode<K, B, S> {
    shared: Arc<Shared<K, B>>,
    inner: S,
}

#[derive(Debug)]
struct Shared<K, B> {
    sources: K,
    bans: Bans<B>,
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

impl<K, B> DecodeLayer<K, B> {
    /// Accepts frames from those `sources` knows.
    pub fn new(sources: K, bans: Bans<B>) -> Self {
        Self {
            shared: Arc::new(Shared { sources, bans }),
        }
    }
}

impl<K, B> Clone for DecodeLayer<K, B> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K, B, S> Layer<S> for DecodeLayer<K, B> {
    type Service = Decode<K, B, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Decode {
            shared: Arc::clone(&self.shared),
            inner,
        }
    }
}

// === impl Decode ===

impl<K, B, S: Clone> Clone for Decode<K, B, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<K, B, S> Service<Received> for Decode<K, B, S>
where
    K: KnownSources,
    B: BanSink,
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

impl<K: KnownSources, B: BanSink> Shared<K, B> {
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
            let parties = Parties {
                source: Some(source.node_id),
                ..Parties::default()
            };
            self.bans.report(Offence::UnknownSource, parties);
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
