//! On whose behalf this node dials.

use dht_core::{Cause, Deliverer};

use crate::limits;

/// Part of the node on whose behalf a peer is dialled. Each has a share of the dials at one time, of the connections, and
/// of the name lookups, so that none keeps the others out.
///
/// An address is an untrusted target if [nobody but peers](dht_peers::AddressRecord::is_hearsay) names it, unless the operator
/// dials, and for `Peer` always. From a public network such a dial reaches no private one; each target, and each group of
/// them, is dialled [sparingly](crate::limits::PEER_DIALS_PER_TARGET); and through a proxy no name is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DialCause {
    /// The operator: configured peers, and commands.
    Operator,
    /// A message or a search of the application.
    Application,
    /// This node's own place in the network: joins, searches, requests for stored messages.
    Overlay,
    /// A message of a peer, which this node answers or passes on. The peer chose the target, so such a dial tries one
    /// address once, and counts for the source group of its target as an inbound connection does; the connection is closed
    /// when the peer has no further use for it.
    Peer,
    /// Somebody on a local network of this node announced itself there ([`Transport::dial_on_link`](crate::Transport::dial_on_link)).
    Lan,
}

/// On whose behalf one dial runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requester {
    pub(crate) cause: DialCause,
    /// Deliverer of the message that causes a dial of [`DialCause::Peer`]. All dials without one share one part of the places.
    pub(crate) deliverer: Option<Deliverer>,
}

impl From<DialCause> for Requester {
    fn from(cause: DialCause) -> Self {
        Self {
            cause,
            deliverer: None,
        }
    }
}

impl DialCause {
    /// Every cause of a dial, the most important first.
    pub const ALL: [Self; 5] = [
        Self::Operator,
        Self::Application,
        Self::Overlay,
        Self::Peer,
        Self::Lan,
    ];

    /// A short name for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Application => "application",
            Self::Overlay => "overlay",
            Self::Peer => "peer",
            Self::Lan => "lan",
        }
    }

    /// Dials at one time.
    pub(crate) const fn most_dials(self) -> usize {
        match self {
            Self::Operator => limits::MAX_OPERATOR_DIALS,
            Self::Application => limits::MAX_APPLICATION_DIALS,
            Self::Overlay => limits::MAX_OVERLAY_DIALS,
            Self::Peer => limits::MAX_PEER_DIALS,
            Self::Lan => limits::MAX_LAN_DIALS,
        }
    }

    /// One of the parts of a pool that has a part for each cause.
    pub(crate) fn of<T>(self, [operator, application, overlay, peer, lan]: &[T; 5]) -> &T {
        match self {
            Self::Operator => operator,
            Self::Application => application,
            Self::Overlay => overlay,
            Self::Peer => peer,
            Self::Lan => lan,
        }
    }

    /// As [`of`](Self::of), to change it.
    pub(crate) fn of_mut<T>(
        self,
        [operator, application, overlay, peer, lan]: &mut [T; 5],
    ) -> &mut T {
        match self {
            Self::Operator => operator,
            Self::Application => application,
            Self::Overlay => overlay,
            Self::Peer => peer,
            Self::Lan => lan,
        }
    }
}

impl From<Cause> for DialCause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Application => Self::Application,
            Cause::Overlay | Cause::StoredRequest => Self::Overlay,
            Cause::Reply | Cause::StoredAnswer | Cause::Forward => Self::Peer,
        }
    }
}
