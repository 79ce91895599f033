//! Sends messages: finds, selects and seals, and hands one frame to each chosen peer's queue.
//!
//! [`Outbound`] is the one door. A [`SendRequest`](dht_core::SendRequest) names its recipients with a
//! [`Strategy`](dht_core::Strategy); [`select`] turns that into peers and can say why. The message is then sealed and
//! encoded once, and the same bytes go to all of them through a sink, a `Service<OutboundMessage>`. Each copy has a
//! [`CopyDelivery`]. The [`Searcher`] finds recipients that are not known.
//!
//! The specification sections named in the documentation are those of `docs/protocol/04-outbound.md` and
//! `docs/protocol/06-discovery-and-peer-sync.md`.
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

mod config;
mod deliver;
mod discover;
mod error;
mod log;
mod metrics;
mod outbound;
mod pipeline;
mod queue;
mod seal;
mod search;
mod select;
mod shared;
mod worker;

pub use config::{
    BROADCAST_FACTOR, Config, DISCOVERY_SECONDS, MAX_DIALLED, MAX_REPORTS, MAX_REQUEST_BYTES,
    MAX_REQUESTS, MAX_SEARCHING, MAX_WAITING, MESSAGE_VALIDITY_SECONDS, NEIGHBOURING_NODES,
    PIPELINE_SECONDS, PROPAGATION_FACTOR, PropagationRule, SelectConfig,
};
pub use deliver::{
    CopyDelivery, Deliveries, DeliveryOutcome, DeliveryReply, FanOut, FanOutFuture, FanOutLayer,
    OutboundMessage,
};
pub use discover::Discover;
pub use error::SendError;
pub use log::{LogMessage, LogMessageLayer, LogRequest, LogRequestFuture, LogRequestLayer};
pub use metrics::describe_metrics;
pub use outbound::Outbound;
pub use pipeline::{PipelineParts, pipeline};
pub use seal::{Seal, SealLayer, SealedRequest};
pub use search::{
    Answered, Connector, Dial, MAX_SEARCHES, SEARCH_INTERVAL, SearchCause, SearchError,
    SearchLimits, Searcher,
};
pub use select::{Candidates, Chosen, Select, SelectLayer, Selected, Selection, Why, select};
pub use worker::Worker;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
