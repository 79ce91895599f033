//! A node's own identity.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::RwLock;
use rand_core::CryptoRng;

use crate::{
    address::Address,
    claim::Claim,
    features::Features,
    keys::{PublicKey, SecretKey},
    node_id::NodeId,
    time::UnixSeconds,
};

/// Key pair, node id, features and the current signed claim of this node.
///
/// One key pair does everything: it is the Noise static key, signs the claim and clear messages, and
/// receives encrypted ones.
///
/// ```
/// use dht_core::{Features, NodeIdentity, SeededEntropy, Entropy, SecretKey, UnixSeconds};
///
/// let mut rng = SeededEntropy::new(1).rng();
/// let now = UnixSeconds(1_700_000_000);
/// let me = NodeIdentity::new(
///     SecretKey::random(&mut rng),
///     Features::NODE,
///     vec!["/ip4/203.0.113.7/tcp/18189".parse()?],
///     now,
///     &mut rng,
/// );
/// me.claim().verify(me.public_key(), now)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NodeIdentity {
    secret: SecretKey,
    public: PublicKey,
    node_id: NodeId,
    features: Features,
    claim: RwLock<Arc<Claim>>,
}

impl NodeIdentity {
    /// Makes an identity and signs its first claim. Peers accept claims of 1 to 5 addresses; this function does not check that.
    pub fn new(
        secret: SecretKey,
        features: Features,
        addresses: Vec<Address>,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let claim = Claim::sign(&secret, addresses, features, now, rng);
        Self::with_claim(secret, claim)
    }

    /// An identity that presents a claim which this key signed before, with the features of the claim. Nobody checks
    /// the signature here; see [`Claim::verify`].
    #[must_use]
    pub fn with_claim(secret: SecretKey, claim: Claim) -> Self {
        let public = secret.public_key();
        Self {
            public,
            node_id: public.node_id(),
            features: claim.features,
            claim: RwLock::new(Arc::new(claim)),
            secret,
        }
    }

    /// Secret key of this node.
    #[must_use]
    pub const fn secret_key(&self) -> &SecretKey {
        &self.secret
    }

    /// Public key of this node.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The node id of the public key.
    #[must_use]
    pub const fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    /// Features that this node claims.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// Claim that this node presents now.
    #[must_use]
    pub fn claim(&self) -> Arc<Claim> {
        Arc::clone(&self.claim.read())
    }

    /// Takes on a new set of addresses, 1 to 5 of them, and signs it as of `now`. The same set in another order changes nothing, so
    /// that the signed order stays the sent order.
    pub fn set_addresses(
        &self,
        addresses: Vec<Address>,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) {
        let mut claim = self.claim.write();
        let held: BTreeSet<_> = claim.addresses.iter().map(Address::as_bytes).collect();
        let wanted: BTreeSet<_> = addresses.iter().map(Address::as_bytes).collect();
        if held != wanted {
            *claim = Arc::new(Claim::sign(
                &self.secret,
                addresses,
                self.features,
                now,
                rng,
            ));
        }
    }
}
