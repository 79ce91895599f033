//! Asks a peer for peers.

use std::collections::BTreeSet;

use bytes::Bytes;
use dht_core::{
    Address, Claim, ClaimError, Features, IdentitySignature, NodeId, ParseError, PublicKey,
};
use dht_peers::{MAX_CLAIM_ADDRESSES, MAX_CLAIMS};
use dht_proto::dht_rpc::{
    GetCloserPeersRequest, GetPeersRequest, GetPeersResponse, PeerIdentityClaim, PeerInfo,
};
use dht_rpc::{CallError, Client, ClientConfig, HandshakeError, Responses};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{DEFAULT_TOLD_PEERS, GET_CLOSER_PEERS, GET_PEERS};

/// Longest response that is read. A claim has 1 KiB of addresses at most, and there are five.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// A session of the peer-sync service on which another node is asked.
#[derive(Debug)]
pub struct PeerSyncClient<T>(Client<T>);

/// The peers that a node tells of, as they arrive. Dropping it cancels the rest with the next request.
#[derive(Debug)]
pub struct AnnouncedPeers<'a, T> {
    responses: Responses<'a, T, GetPeersResponse>,
    /// Peers that were asked for.
    asked: usize,
    /// Responses so far.
    received: usize,
    keys: BTreeSet<[u8; PublicKey::LENGTH]>,
}

/// A peer that another node tells of, before its claims are [validated](dht_peers::validate_claims).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedPeer {
    /// Key of the peer.
    pub public_key: PublicKey,
    /// Claims that the peer is said to have signed. Addresses that this node cannot read are left out, so that the
    /// signature of such a claim does not hold.
    pub claims: Vec<Claim>,
    /// Whether every address could be read.
    pub is_complete: bool,
}

/// Why a peer, or all further ones, could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The call failed.
    #[error("call failed")]
    Call(#[from] CallError),
    /// The node tells of more peers than it was asked for. Nothing follows.
    #[error("more than {asked} peers")]
    TooMany {
        /// Peers that were asked for.
        asked: usize,
    },
    /// A response without a peer. Further ones may follow.
    #[error("response without a peer")]
    Empty,
    /// A peer whose key is none. Further ones may follow.
    #[error("key of the peer is invalid")]
    Key(#[source] ParseError),
    /// A peer with a claim that cannot be read. Further ones may follow.
    #[error("claim of the peer is invalid")]
    Claim(#[from] ClaimError),
    /// A peer that came before. Further ones may follow.
    #[error("peer was told of before")]
    Duplicate,
}

// === impl PeerSyncClient ===

impl<T: AsyncRead + AsyncWrite> PeerSyncClient<T> {
    /// Asks for a session on a stream of [`PEER_SYNC_PROTOCOL`](super::PEER_SYNC_PROTOCOL).
    ///
    /// # Errors
    /// [`HandshakeError`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the stream.
    pub async fn connect(stream: T) -> Result<Self, HandshakeError> {
        let config = ClientConfig {
            max_response_bytes: MAX_RESPONSE_BYTES,
            ..ClientConfig::default()
        };
        Client::connect(stream, config).await.map(Self)
    }

    /// Asks for `n` peers, 0 for 100.
    ///
    /// # Errors
    /// [`CallError`] if the request cannot be sent.
    pub async fn peers(
        &mut self,
        n: u32,
        include_clients: bool,
    ) -> Result<AnnouncedPeers<'_, T>, CallError> {
        let request = GetPeersRequest {
            n,
            include_clients,
            max_claims: WANTED_CLAIMS,
            max_addresses_per_claim: WANTED_ADDRESSES,
        };
        let asked = if n == 0 {
            DEFAULT_TOLD_PEERS
        } else {
            to_usize(n)
        };
        let responses = self.0.stream(GET_PEERS, &request).await?;
        Ok(AnnouncedPeers::new(responses, asked))
    }

    /// Asks for the `n` peers closest to a node id, 1 to 100, or to this node's own; not for the excluded ones, at most
    /// 1 000, nor for this node.
    ///
    /// # Errors
    /// [`CallError`] if the request cannot be sent. Numbers out of range are the node's to refuse.
    pub async fn closer_peers(
        &mut self,
        closer_to: Option<&NodeId>,
        n: u32,
        excluded: &[NodeId],
        include_clients: bool,
    ) -> Result<AnnouncedPeers<'_, T>, CallError> {
        let bytes = |id: &NodeId| Bytes::copy_from_slice(id.as_bytes());
        let request = GetCloserPeersRequest {
            n,
            excluded: excluded.iter().map(bytes).collect(),
            closer_to: closer_to.map(bytes).unwrap_or_default(),
            include_clients,
            max_claims: WANTED_CLAIMS,
            max_addresses_per_claim: WANTED_ADDRESSES,
        };
        let responses = self.0.stream(GET_CLOSER_PEERS, &request).await?;
        Ok(AnnouncedPeers::new(responses, to_usize(n)))
    }

    /// Whether an error ended the session; a new one is needed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

// === impl AnnouncedPeers ===

impl<'a, T: AsyncRead + AsyncWrite> AnnouncedPeers<'a, T> {
    const fn new(responses: Responses<'a, T, GetPeersResponse>, asked: usize) -> Self {
        Self {
            responses,
            asked,
            received: 0,
            keys: BTreeSet::new(),
        }
    }

    /// The next peer; `None` after the last.
    ///
    /// # Errors
    /// [`SyncError`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no peer.
    pub async fn next(&mut self) -> Result<Option<AnnouncedPeer>, SyncError> {
        let asked = self.asked;
        if self.received > asked {
            return Ok(None);
        }
        let Some(response) = self.responses.next().await? else {
            return Ok(None);
        };
        self.received += 1;
        if self.received > asked {
            return Err(SyncError::TooMany { asked });
        }
        let peer = AnnouncedPeer::try_from(response.peer.ok_or(SyncError::Empty)?)?;
        if !self.keys.insert(*peer.public_key.as_bytes()) {
            return Err(SyncError::Duplicate);
        }
        Ok(Some(peer))
    }
}

// === impl AnnouncedPeer ===

impl TryFrom<PeerInfo> for AnnouncedPeer {
    type Error = SyncError;

    fn try_from(info: PeerInfo) -> Result<Self, SyncError> {
        let stated = info.claims.iter().map(|claim| claim.addresses.len());
        let stated: usize = stated.sum();
        let claims = info.claims.into_iter().map(claim);
        let claims: Vec<Claim> = claims.collect::<Result<_, _>>()?;
        let read: usize = claims.iter().map(|claim| claim.addresses.len()).sum();
        Ok(Self {
            public_key: PublicKey::from_bytes(&info.public_key).map_err(SyncError::Key)?,
            is_complete: read == stated,
            claims,
        })
    }
}

fn claim(claim: PeerIdentityClaim) -> Result<Claim, ClaimError> {
    let signature = claim.identity_signature.ok_or(ClaimError::NotSigned)?;
    let features = Features::from_bits(claim.peer_features);
    let addresses = claim.addresses.into_iter().map(Address::from_bytes);
    Ok(Claim {
        addresses: addresses.filter_map(Result::ok).collect(),
        features: features.ok_or(ClaimError::Features(claim.peer_features))?,
        signature: IdentitySignature::try_from(&signature)?,
    })
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Claims of a peer that are wanted.
const WANTED_CLAIMS: u32 = 5;
/// Addresses of a claim that are wanted.
const WANTED_ADDRESSES: u32 = 5;

// The number asked for is the number that may be kept.
const _: () = assert!(WANTED_CLAIMS as usize == MAX_CLAIMS);
const _: () = assert!(WANTED_ADDRESSES as usize == MAX_CLAIM_ADDRESSES);

#[cfg(test)]
mod tests {
    use dht_core::UnixSeconds;
    use dht_peers::test_util;
    use proptest::prelude::*;

    use super::*;

    /// Claim that the peer of seed 3 signed, as another node passes it on.
    fn info() -> PeerInfo {
        let addresses = ["/ip4/1.2.3.4/tcp/5", "/ip4/1.2.3.5/tcp/5"];
        let claim = test_util::claim(3, &addresses, Features::NODE, UnixSeconds(1));
        let bytes = |address: &Address| Bytes::copy_from_slice(address.as_bytes());
        let claim = PeerIdentityClaim {
            addresses: claim.addresses.iter().map(bytes).collect(),
            peer_features: claim.features.bits(),
            identity_signature: Some((&claim.signature).into()),
        };
        PeerInfo {
            public_key: Bytes::copy_from_slice(test_util::public_key(3).as_bytes()),
            claims: vec![claim],
        }
    }

    /// An address of a later version is left out; the signature, which covers it, no longer holds.
    #[test]
    fn unreadable_addresses_are_left_out() {
        for is_readable in [true, false] {
            let mut info = info();
            if !is_readable {
                info.claims[0].addresses[1] = Bytes::from_static(&[0xff, 0xff, 0x7f]);
            }
            let peer = AnnouncedPeer::try_from(info).unwrap();
            let claim = &peer.claims[0];
            assert_eq!(claim.addresses.len(), 1 + usize::from(is_readable));
            assert_eq!(peer.is_complete, is_readable);
            let verified = claim.verify(&peer.public_key, UnixSeconds(1));
            assert_eq!(verified.is_ok(), is_readable);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_peers_never_panic(
            public_key in prop::collection::vec(any::<u8>(), 0..40),
            address in prop::collection::vec(any::<u8>(), 0..40),
            peer_features in any::<u32>(),
            updated_at in any::<i64>(),
            is_ours in any::<bool>(),
        ) {
            let mut info = info();
            if !is_ours {
                info.public_key = public_key.into();
            }
            let claim = &mut info.claims[0];
            claim.addresses.push(address.into());
            claim.peer_features = peer_features;
            claim.identity_signature.as_mut().unwrap().updated_at = updated_at;
            if let Ok(peer) = AnnouncedPeer::try_from(info) {
                let policy = dht_peers::ClaimPolicy::default();
                let _ = dht_peers::validate_claims(
                    &peer.public_key, peer.claims, None, &policy, UnixSeconds(1),
                );
            }
        }
    }
}
