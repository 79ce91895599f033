//! Identity and envelope cryptography of the Tari messaging DHT.
//!
//! Everything between "an application wants to send a message" and "one `DhtEnvelope` byte string", and back.
//! No I/O, no async, no clock: time and randomness are arguments. References such as "01 section 6.2" name a
//! document of `docs/protocol` and a section in it.
//!
//! Sealing a message and opening it again:
//!
//! ```
//! use dht_core::{
//!     Destination, Encryption, Entropy, Features, NodeIdentity, RawEnvelope, SealRequest, SealSecrets, SecretKey,
//!     SeededEntropy, UnixSeconds, encode_parts, seal,
//! };
//!
//! let mut rng = SeededEntropy::new(7).rng(); // an operating-system generator outside of examples
//! let now = UnixSeconds(1_700_000_000);
//! let alice = SecretKey::random(&mut rng);
//! let bob = NodeIdentity::new(SecretKey::random(&mut rng), Features::NODE, vec![], now, &mut rng);
//!
//! let request = SealRequest {
//!     destination: Destination::PublicKey(*bob.public_key()),
//!     encryption: Encryption::EncryptFor(*bob.public_key()),
//!     expires: Some(now.saturating_add(3 * 60 * 60)),
//!     ..SealRequest::new(encode_parts(&["hello".into()]), &alice)
//! };
//! let frame = seal(request, SealSecrets::random(&mut rng))?.to_frame();
//!
//! let opened = RawEnvelope::parse(frame)?.into_sealed()?.verify()?.open(&bob)?;
//! assert_eq!(opened.parts(), Some(&["hello".into()][..]));
//! assert_eq!(opened.origin(), Some(&alice.public_key()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod claim;
mod disposition;
mod entropy;
mod envelope;
mod error;
mod failure;
mod features;
pub mod hash;
mod identity;
mod key_cache;
mod keys;
mod message;
mod network;
mod node_id;
mod peer_address;
mod priority;
mod remote_peer;
mod schnorr;
mod send;
mod settings;
mod severity;
mod strategy;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;
mod time;
mod transit;

pub use address::{Address, AddressComponent, AddressPolicy, DnsKind, Host};
pub use claim::{Claim, IdentitySignature, MAX_CLAIM_SKEW_SECONDS};
pub use disposition::{Disposition, DropReason};
#[cfg(feature = "os-entropy")]
pub use entropy::OsEntropy;
pub use entropy::{Entropy, SeededEntropy, SharedEntropy};
pub use envelope::{
    Content, DedupHash, DomainHeader, Fingerprint, FingerprintKey, Flags, Header, KeyAgreement,
    MAX_BATCH, Opened, PADDING_BLOCK_BYTES, ProtocolVersion, RawEnvelope, SealRequest, SealSecrets,
    Sealed, SealedMessage, Signing, Verified, binding_hash, decode_parts, dedup_hash, dedup_key,
    dedup_key_of, domain_parts, encode_envelope, encode_parts, open_batch, pad, seal, unpad,
    verify_batch,
};
pub use error::{ClaimError, HeaderError, OpenError, ParseError, SealError, VerifyError};
pub use failure::{error_chain, is_disk_full};
pub use features::Features;
pub use identity::NodeIdentity;
pub use key_cache::KeyCache;
pub use keys::{CompressedKey, PublicKey, SecretKey, SharedSecret};
pub use message::{Destination, Encryption, MessageTag, MessageType};
pub use network::Network;
pub use node_id::{Distance, NodeId};
pub use peer_address::PeerAddress;
pub use priority::Priority;
pub use remote_peer::{Deliverer, RemotePeer, SourceGroup};
pub use schnorr::MessageSignature;
pub use send::{
    Cause, DeliveryError, DialFailure, Message, OnDelivery, Payload, SendBuilder, SendParams,
    SendQueue, SendQueueError, SendRequest,
};
pub use settings::OutOfRange;
pub use severity::Severity;
pub use strategy::Strategy;
#[cfg(feature = "system-clock")]
pub use time::SystemClock;
pub use time::{Clock, ManualClock, SharedClock, UnixSeconds};
pub use transit::{InTransit, StoreOutcome};

#[cfg(all(doctest, feature = "os-entropy", feature = "system-clock"))]
#[doc = include_str!("../README.md")]
struct Readme;
