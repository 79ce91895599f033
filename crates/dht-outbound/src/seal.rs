//! Encryption, signature and encoding, once for all recipients: specification 04, sections 5.2 to 5.4 and 6.

use std::{
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use dht_core::{
    Cause, Clock as _, DedupHash, Deliverer, Encryption, Flags, MessageTag, NodeId, NodeIdentity,
    Payload, Priority, SealRequest, SealSecrets, SendParams, SendRequest, SharedClock, Signing,
    UnixSeconds, encode_envelope, seal,
};
use dht_dedup::{DedupMeta, DedupTable};
use dht_proto::limits::MAX_MESSAGING_FRAME_BYTES;
use futures::future::Either;
use rand_chacha::ChaCha12Rng;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use self::body::prepare_body;
use crate::{config::Config, deliver::Deliveries, error::SendError, metrics, select::Selected};

mod body;

/// Turns a [`Selected`] request into a [`SealedRequest`], on the calling task, and enters messages to many into the table
/// of duplicates, so that their echoes are recognised. A received frame is passed on as it is.
///
/// Specification 04, sections 5.2 to 5.4 and 6.
#[derive(Clone)]
pub struct SealLayer(Arc<Sealer>);

/// Service produced by [`SealLayer`].
#[derive(Clone)]
pub struct Seal<S> {
    sealer: Arc<Sealer>,
    inner: S,
}

/// One frame and the nodes that receive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRequest {
    /// Encoded envelope, the same bytes for every recipient.
    pub frame: Bytes,
    /// Nodes that receive a copy; at least one.
    pub recipients: Vec<NodeId>,
    /// Number that identifies the message in logs.
    pub tag: MessageTag,
    /// When it is shed.
    pub priority: Priority,
    /// Part of the node on whose behalf it is sent.
    pub cause: Cause,
    /// Deliverer of the message that it answers or passes on.
    pub deliverer: Option<Deliverer>,
    /// The hash of a message this node sealed for several peers.
    pub hash: Option<DedupHash>,
}

struct Sealer {
    identity: Arc<NodeIdentity>,
    clock: SharedClock,
    config: Config,
    dedup: DedupTable,
}

// === impl SealLayer ===

impl SealLayer {
    /// Seals as `identity`, and tells `dedup` of messages that may come back.
    #[must_use]
    pub fn new(
        identity: Arc<NodeIdentity>,
        clock: SharedClock,
        config: Config,
        dedup: DedupTable,
    ) -> Self {
        Self(Arc::new(Sealer {
            identity,
            clock,
            config,
            dedup,
        }))
    }
}

impl<S> Layer<S> for SealLayer {
    type Service = Seal<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Seal {
            sealer: Arc::clone(&self.0),
            inner,
        }
    }
}

// === impl Seal ===

impl<S> Service<Selected> for Seal<S>
where
    S: Service<SealedRequest, Response = Deliveries, Error = BoxError>,
{
    type Response = Deliveries;
    type Error = BoxError;
    type Future = Either<Ready<Result<Deliveries, BoxError>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, selected: Selected) -> Self::Future {
        match self.sealer.seal(selected) {
            Ok(request) => Either::Right(self.inner.call(request)),
            Err(error) => {
                tracing::debug!(%error, "message not sealed");
                Either::Left(ready(Err(error.into())))
            }
        }
    }
}

impl Sealer {
    fn seal(&self, selected: Selected) -> Result<SealedRequest, SendError> {
        let Selected {
            request,
            recipients,
            is_broadcast,
            tag,
            mut rng,
        } = selected;
        let (priority, cause) = (request.priority(), request.cause());
        let deliverer = request.on_behalf_of();
        let (frame, hash) = match request {
            SendRequest::Forward { frame, .. } => (frame, None),
            SendRequest::Message { params, payload } => {
                self.message(*params, payload, tag, is_broadcast, &mut rng)?
            }
        };
        // Refused here and not by the queue of each recipient.
        fits(&frame)?;
        Ok(SealedRequest {
            frame,
            recipients,
            tag,
            priority,
            cause,
            deliverer,
            hash,
        })
    }

    fn message(
        &self,
        params: SendParams,
        payload: Payload,
        tag: MessageTag,
        is_broadcast: bool,
        rng: &mut ChaCha12Rng,
    ) -> Result<(Bytes, Option<DedupHash>), SendError> {
        let body = prepare_body(payload, &params.strategy, rng);
        fits(&body)?;
        let is_clear = params.encryption == Encryption::Clear;
        if let Some(header) = params.header {
            if !is_clear || params.force_origin || params.flags != Flags::NONE {
                return Err(SendError::HeaderConflict);
            }
            // Correctness: never remembered. The signature in a given header is of another node, and its signer could
            // have us drop a third message whose hash it chose (04 section 11.2, 04 F-5).
            return Ok((encode_envelope(&header, &body), None));
        }
        if is_clear && params.flags.contains(Flags::ENCRYPTED) {
            return Err(SendError::FlagConflict);
        }
        let now = self.clock.now();
        // 0 means "never" on the wire.
        let expires = now.saturating_add(self.config.validity_seconds).0.max(1);
        let request = SealRequest {
            body,
            message_type: params.message_type,
            destination: params.destination,
            encryption: params.encryption,
            sender: self.identity.secret_key(),
            signing: if params.force_origin {
                Signing::Origin
            } else {
                Signing::Anonymous
            },
            expires: Some(UnixSeconds(expires)),
            tag,
            version: self.config.version,
        };
        let sealed = seal(request, SealSecrets::random(rng))?;
        // A clear unsigned body that is no envelope body has no hash: receivers drop it before they look.
        let hash = is_broadcast.then(|| sealed.dedup_key().ok()).flatten();
        if let Some(hash) = &hash {
            self.dedup.seed(hash, DedupMeta::of(&sealed.header), now);
            metrics::seeded();
        }
        Ok((encode_envelope(&sealed.header, &sealed.body), hash))
    }
}

fn fits(bytes: &Bytes) -> Result<(), SendError> {
    let (bytes, max) = (bytes.len(), MAX_MESSAGING_FRAME_BYTES);
    if bytes > max {
        return Err(SendError::TooLarge { bytes, max });
    }
    Ok(())
}

impl fmt::Debug for SealLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealLayer(..)")
    }
}

impl<S: fmt::Debug> fmt::Debug for Seal<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
