//! Takes in what a peer tells of others.

use std::{fmt, time::Duration};

use dht_core::{Claim, Distance, NodeId, SharedClock};
use dht_peers::{
    Change, ClaimPolicy, Directory,
    policy::{BanPolicy, Offence, Parties},
    validate_claims,
};
use dht_rpc::{CallError, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{AnnouncedPeer, AnnouncedPeers, PeerSyncClient, SyncError};
use crate::density::AROUND;

/// Time for the session and all answers of one peer. What the rates of a node of ours delay takes a quarter of it; a peer that
/// stalls holds a round of discovery no longer.
const ASK_LIMIT: Duration = Duration::from_secs(45);

/// Request to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Peers from anywhere, 1 to 500.
    pub peers: u32,
    /// Whether clients are wanted among them.
    pub include_clients: bool,
    /// Whether the peers closest to this node, and those closest to the other one, are asked for as well.
    pub closest: bool,
}

/// Outcome of asking a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncReport {
    /// Peer that was asked.
    pub peer: NodeId,
    /// Whether it was connected.
    pub was_connected: bool,
    /// Peers that were not known before.
    pub new: usize,
    /// Peers that were known.
    pub duplicates: usize,
    /// Distance between the peer and the last of the twenty nodes closest to it, if it told of twenty.
    pub around: Option<Distance>,
    /// Why the answer was not read to its end.
    pub failure: Option<SyncFailure>,
}

/// Why the answer of a peer was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFailure {
    /// There was no connection or no session.
    Session,
    /// The call failed or took too long, and nobody is to blame.
    Call,
    /// The peer serves no such method: stock nodes of version 6 have no `get_closer_peers`.
    Unsupported,
    /// The peer did what it must not do. Whether it is banned depends on the profile.
    Offence(Offence),
}

/// Enters peers in the directory that others tell of, and reports offences.
#[derive(Clone)]
pub struct Learner {
    /// Directory that the peers are entered in, as hearsay.
    pub directory: Directory,
    /// Policy that offences are reported to.
    pub bans: BanPolicy,
    /// Clock that claims are checked by.
    pub clock: SharedClock,
    /// Rules for claims.
    pub claims: ClaimPolicy,
}

// === impl SyncReport ===

impl SyncReport {
    /// The report of a peer that could not be asked.
    #[must_use]
    pub const fn of(peer: NodeId) -> Self {
        Self {
            peer,
            was_connected: false,
            new: 0,
            duplicates: 0,
            around: None,
            failure: None,
        }
    }

    /// Whether the peer was asked and answered without an error.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.was_connected && self.failure.is_none()
    }
}

// === impl Learner ===

impl fmt::Debug for Learner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learner")
            .field("directory", &self.directory)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

impl Learner {
    /// Asks a peer over a stream of [`PEER_SYNC_PROTOCOL`](super::PEER_SYNC_PROTOCOL), for 45 s at most. What was told before an
    /// error is kept.
    ///
    /// # Cancel safety
    /// Dropping the future drops the stream; peers that were entered stay.
    pub async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite,
        peer: NodeId,
        ask: Ask,
    ) -> SyncReport {
        let mut report = SyncReport {
            was_connected: true,
            ..SyncReport::of(peer)
        };
        let asking = timeout(ASK_LIMIT, self.ask_all(stream, ask, &mut report));
        match asking.await.unwrap_or(Err(SyncFailure::Call)) {
            Ok(()) => {}
            Err(failure) => {
                tracing::debug!(peer = %peer.short(), ?failure, "peers not told of");
                report.failure = Some(failure);
                if let SyncFailure::Offence(offence) = failure {
                    self.bans.report(offence, Parties::peer(peer));
                }
            }
        }
        report
    }

    async fn ask_all(
        &self,
        stream: impl AsyncRead + AsyncWrite,
        ask: Ask,
        report: &mut SyncReport,
    ) -> Result<(), SyncFailure> {
        let client = PeerSyncClient::connect(stream).await;
        let mut client = client.map_err(|_| SyncFailure::Session)?;
        self.some(&mut client, ask.peers, ask.include_clients, report)
            .await?;
        if ask.closest {
            match self.ask_closest(&mut client, report).await {
                Err(SyncFailure::Unsupported) => {}
                asked => asked?,
            }
        }
        Ok(())
    }

    /// Asks for the peers closest to this node, and for those closest to the other one.
    async fn ask_closest<T: AsyncRead + AsyncWrite>(
        &self,
        client: &mut PeerSyncClient<T>,
        report: &mut SyncReport,
    ) -> Result<(), SyncFailure> {
        let (me, peer) = (*self.directory.me(), report.peer);
        self.closest(client, me, report).await?;
        let mut around = self.closest(client, peer, report).await?;
        around.sort_unstable();
        report.around = around.get(AROUND - 1).copied();
        Ok(())
    }

    /// Asks for the nodes closest to an id, and returns how far they are from it.
    async fn closest<T: AsyncRead + AsyncWrite>(
        &self,
        client: &mut PeerSyncClient<T>,
        target: NodeId,
        report: &mut SyncReport,
    ) -> Result<Vec<Distance>, SyncFailure> {
        let told = self.closer(client, &target, AROUND, false, report).await?;
        Ok(told.iter().map(|id| target.distance(id)).collect())
    }

    /// Asks for the `n` peers closest to an id, enters them, and returns their ids.
    pub(crate) async fn closer<T: AsyncRead + AsyncWrite>(
        &self,
        client: &mut PeerSyncClient<T>,
        target: &NodeId,
        n: usize,
        include_clients: bool,
        report: &mut SyncReport,
    ) -> Result<Vec<NodeId>, SyncFailure> {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let peers = client.closer_peers(Some(target), n, &[], include_clients);
        let peers = peers.await.map_err(|error| self.of_call(&error))?;
        self.enter_all(peers, report).await
    }

    /// Asks for `n` peers from anywhere, enters them, and returns their ids.
    pub(crate) async fn some<T: AsyncRead + AsyncWrite>(
        &self,
        client: &mut PeerSyncClient<T>,
        n: u32,
        include_clients: bool,
        report: &mut SyncReport,
    ) -> Result<Vec<NodeId>, SyncFailure> {
        let peers = client.peers(n, include_clients).await;
        let peers = peers.map_err(|error| self.of_call(&error))?;
        self.enter_all(peers, report).await
    }

    /// Reads an answer to its end.
    async fn enter_all<T: AsyncRead + AsyncWrite>(
        &self,
        mut peers: AnnouncedPeers<'_, T>,
        report: &mut SyncReport,
    ) -> Result<Vec<NodeId>, SyncFailure> {
        let mut told = Vec::new();
        loop {
            match peers.next().await {
                Ok(Some(peer)) => {
                    told.push(peer.public_key.node_id());
                    self.enter(peer, report)?;
                }
                Ok(None) => return Ok(told),
                Err(error) => self.refuse(&error)?,
            }
        }
    }

    /// Enters one peer; an error if the rest is not to be read.
    fn enter(&self, peer: AnnouncedPeer, report: &mut SyncReport) -> Result<(), SyncFailure> {
        let AnnouncedPeer {
            public_key,
            claims,
            is_complete,
        } = peer;
        let id = public_key.node_id();
        if id == *self.directory.me() {
            return Ok(());
        }
        let known = self.directory.find(&id);
        let is_old = |claim: &Claim| {
            known
                .as_ref()
                .and_then(|known| known.claim())
                .is_some_and(|known| **known == *claim)
        };
        let is_deleted = known
            .as_ref()
            .is_some_and(|known| known.deleted_at().is_some());
        // Nothing that this node did not check before.
        if !is_deleted && !claims.is_empty() && claims.iter().all(is_old) {
            report.duplicates += 1;
            return Ok(());
        }
        let now = self.clock.now();
        match validate_claims(&public_key, claims, known.as_deref(), &self.claims, now) {
            Ok(valid) => {
                let record = valid.to_record(now);
                match self.directory.hear(record, &report.peer, now) {
                    Change::Added => report.new += 1,
                    Change::Updated | Change::Unchanged => report.duplicates += 1,
                    Change::Ourselves | Change::KeyMismatch => {}
                }
                Ok(())
            }
            Err(error) => {
                tracing::debug!(peer = %id.short(), %error, "peer not entered");
                // The signature covers the addresses that this node could not read.
                let offence = match error.is_offence() && is_complete {
                    true => Offence::SyncForgedClaim,
                    false => Offence::SyncRefusedClaim,
                };
                self.unless_tolerated(offence)
            }
        }
    }

    /// Consequence of an error in an answer: none if the item is skipped.
    fn refuse(&self, error: &SyncError) -> Result<(), SyncFailure> {
        match error {
            SyncError::Empty | SyncError::Key(_) | SyncError::Claim(_) => {
                self.unless_tolerated(Offence::SyncUnconvertible)
            }
            SyncError::Duplicate => Err(SyncFailure::Offence(Offence::SyncDuplicate)),
            SyncError::TooMany { .. } => Err(SyncFailure::Offence(Offence::SyncTooManyPeers)),
            SyncError::Call(error) => Err(self.of_call(error)),
        }
    }

    fn of_call(&self, error: &CallError) -> SyncFailure {
        match error {
            CallError::Status(status) if status.code == StatusCode::UnsupportedMethod => {
                SyncFailure::Unsupported
            }
            CallError::Status(_) => SyncFailure::Offence(Offence::SyncStatus),
            CallError::TimedOut => SyncFailure::Offence(Offence::SyncTimeout),
            error if error.is_server_fault() => SyncFailure::Offence(Offence::SyncProtocol),
            _ => SyncFailure::Call,
        }
    }

    /// An offence that bans nobody costs the item, and the rest is read.
    fn unless_tolerated(&self, offence: Offence) -> Result<(), SyncFailure> {
        match offence.penalty(self.bans.profile()) {
            Some(_) => Err(SyncFailure::Offence(offence)),
            None => Ok(()),
        }
    }
}
