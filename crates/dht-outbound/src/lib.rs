//! Tower stack that turns a send request into sealed frames for chosen peers.
//!
//! [`outbound`] composes the pipeline; each of its layers can be used alone. A request names whom it is for with a
//! [`Strategy`](dht_core::Strategy); [`select`] turns that into peers and can say why. The message is then sealed and
//! encoded once, and the same bytes go to everybody through a sink, a `Service<OutboundMessage>`.
//!
//! The specification sections named in the documentation are those of `docs/protocol/04-outbound.md` and
//! `docs/protocol/06-discovery-and-peer-sync.md`.
//!
//! [`Requester`] and [`Driver`] put a bounded queue in front, so that the parts of a node need only a handle. [`Searcher`] finds
//! recipients nobody knows.
//!
//! ```
//! use dht_core::{Entropy, NodeId, SeededEntropy, Strategy, UnixSeconds};
//! use dht_outbound::{Candidates, SelectConfig, select};
//! use dht_peers::{Connections, Directory};
//!
//! let (connections, me) = (Connections::new(), NodeId::default());
//! let candidates = Candidates {
//!     me: &me,
//!     connected: &connections.snapshot(),
//!     directory: &Directory::new(me),
//!     now: UnixSeconds(1_700_000_000),
//! };
//! let strategy = Strategy::Broadcast { exclude: vec![] };
//! let chosen = select(&strategy, candidates, &SelectConfig::default(), &mut SeededEntropy::new(1).rng());
//! assert_eq!(chosen.explain(), "broadcast: 0 chosen");
//! ```

mod body;
mod config;
mod delivery;
mod dial;
mod discover;
mod driver;
mod encode;
mod fanout;
mod log;
mod metrics;
mod requester;
mod response;
mod seal;
mod search;
mod seed;
mod select;
mod stack;

pub use body::prepare_body;
pub use config::{
    BROADCAST_FACTOR, DISCOVERY_TIMEOUT, MAX_CONCURRENT, MAX_DIALLED, MAX_PARKED, MAX_REPORTS,
    MAX_REQUEST_BYTES, MESSAGE_VALIDITY_SECONDS, NEIGHBOURING_NODES, OutboundConfig,
    PIPELINE_TIMEOUT, PROPAGATION_FACTOR, PropagationRule, QUEUE_REQUESTS, SelectConfig,
};
pub use delivery::{
    Deliveries, Delivery, DeliveryFailure, DeliveryReply, MessageSendState, MessageSendStates,
};
pub(crate) use dht_core::{DomainMessage, Payload, SendBuilder, SendParams, SendRequest};
pub use dial::{ConnectError, Dial, DialError, DialOrDiscover};
pub use discover::{Discover, DiscoverFuture, DiscoverLayer, DiscoverService};
pub use driver::{Driver, DriverLimits, Report, Submission};
pub use encode::{Encode, EncodeFuture, EncodeLayer, EncodedRequest};
pub use fanout::{FanOut, FanOutFuture, FanOutLayer, OutboundMessage};
pub use log::{LogMessage, LogMessageLayer, LogRequest, LogRequestFuture, LogRequestLayer};
pub use metrics::describe;
pub use requester::{OutboundError, Requester};
pub use response::{GenerateError, PendingDiscovery, SendFailure, SendMessageResponse};
pub use seal::{
    Envelope, InlineSealer, Seal, SealFuture, SealJob, SealLayer, SealedRequest, Sealer,
};
pub use search::{Answered, MAX_SEARCHES, SEARCH_INTERVAL, SearchError, SearchLimits, Searcher};
pub use seed::SeedDedup;
pub use select::{
    Candidates, Chosen, Select, SelectFuture, SelectLayer, Selected, Selection, Why, select,
};
pub use stack::{OutboundParts, outbound};
