//! The pipeline as a whole: specification 04, section 1.

use std::sync::Arc;

use dht_core::{NodeIdentity, SharedClock, SharedEntropy};
use dht_peers::{Connections, Directory};
use dht_stack::{BoxError, stack};
use tower_service::Service;

use crate::{
    Discover, DiscoverLayer, EncodeLayer, EncodedRequest, FanOutLayer, LogMessageLayer,
    LogRequestLayer, OutboundConfig, OutboundMessage, SealLayer, SealedRequest, Sealer, SeedDedup,
    SelectLayer, Selected, SendMessageResponse, SendRequest,
};

/// What the pipeline works with.
#[derive(Clone)]
pub struct OutboundParts<P, D> {
    /// Who sends.
    pub identity: Arc<NodeIdentity>,
    /// Who is connected.
    pub connections: Connections,
    /// Who is known.
    pub directory: Directory,
    /// The time, for expiry and bans.
    pub clock: SharedClock,
    /// Randomness, one generator a message.
    pub entropy: SharedEntropy,
    /// Settings.
    pub config: OutboundConfig,
    /// Where sealing happens.
    pub sealer: P,
    /// The duplicate table of the inbound side.
    pub dedup: D,
    /// Finds unknown recipients, if anybody does.
    pub discover: Option<Arc<dyn Discover>>,
}

/// Composes the pipeline. A request meets: search for the recipient if it turns out to be unknown, log, select, seal
/// and remember, encode, fan out, log, `sink`.
///
/// `sink` takes a message when it has put it into the peer's queue; it must not wait for a dial or a write.
///
/// Specification 04, section 1.
///
/// ```
/// use std::sync::Arc;
/// use dht_core::{
///     DomainMessage, Entropy, Features, ManualClock, NodeIdentity, Payload, SecretKey, SeededEntropy, SendParams,
///     SendRequest, UnixSeconds,
/// };
/// use dht_outbound::{
///     InlineSealer, OutboundConfig, OutboundMessage, OutboundParts, outbound,
/// };
/// use dht_peers::{Connections, Directory};
/// use dht_stack::BoxError;
/// use tower::{ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let entropy = Arc::new(SeededEntropy::new(1));
/// let now = UnixSeconds(1_700_000_000);
/// let mut rng = entropy.rng();
/// let me = NodeIdentity::new(SecretKey::random(&mut rng), Features::NODE, vec![], now, &mut rng);
/// let parts = OutboundParts {
///     connections: Connections::new(),
///     directory: Directory::new(*me.node_id()),
///     identity: Arc::new(me),
///     clock: Arc::new(ManualClock::new(now)),
///     entropy,
///     config: OutboundConfig::default(),
///     sealer: InlineSealer,
///     dedup: (),
///     discover: None,
/// };
/// let pipeline = outbound(parts, service_fn(|message: OutboundMessage| async move {
///     message.reply.send(Ok(()));
///     Ok::<_, BoxError>(())
/// }));
///
/// let hello = Payload::Domain(DomainMessage::new(1, &b"hello"[..]));
/// let request = SendRequest::new(SendParams::builder().broadcast(vec![]).finish(), hello);
/// let response = pipeline.oneshot(request).await?;
/// assert_eq!(response.name(), "nobody"); // Nobody is connected.
/// # Ok(())
/// # }
/// ```
pub fn outbound<P, D, S>(
    parts: OutboundParts<P, D>,
    sink: S,
) -> impl Service<
    SendRequest,
    Response = SendMessageResponse,
    Error = BoxError,
    Future: Future<Output = Result<SendMessageResponse, BoxError>> + Send + 'static,
> + Clone
+ Send
+ 'static
where
    P: Sealer + Send + Sync + 'static,
    P::Future: Send,
    D: SeedDedup,
    S: Service<OutboundMessage> + Clone + Send + Sync + Unpin + 'static,
    S::Error: Into<BoxError> + Send,
    S::Response: Send,
    S::Future: Send,
{
    let OutboundParts {
        identity,
        connections,
        directory,
        clock,
        entropy,
        config,
        ..
    } = parts;
    let seal = SealLayer::new(
        identity,
        Arc::clone(&clock),
        &config,
        parts.sealer,
        parts.dedup,
    );
    let discover = match parts.discover {
        Some(discover) => DiscoverLayer::new(discover, config.discovery_timeout),
        None => DiscoverLayer::disabled(),
    };
    stack(sink)
        .push(LogMessageLayer)
        .check_service::<OutboundMessage>()
        .push(FanOutLayer)
        // Outside the fan-out, so that a frame is encoded once for all recipients.
        .check_service::<EncodedRequest>()
        .push(EncodeLayer)
        .check_service::<SealedRequest>()
        .push(seal)
        .check_service::<Selected>()
        // Outside sealing: a message for nobody costs no arithmetic.
        .push(SelectLayer::new(
            connections,
            directory,
            config.select,
            clock,
            entropy,
        ))
        .check_service::<SendRequest>()
        .push(LogRequestLayer)
        // Outermost, so that a request waiting for a search holds nothing inside.
        .push(discover)
        .check_service::<SendRequest>()
        .into_inner()
}

impl<P, D> std::fmt::Debug for OutboundParts<P, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboundParts")
            .field("config", &self.config)
            .field("discover", &self.discover.is_some())
            .finish_non_exhaustive()
    }
}
