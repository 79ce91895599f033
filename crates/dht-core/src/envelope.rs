//! The DHT envelope, from received bytes to opened content and back (01 sections 6 and 7).
//!
//! ```text
//! frame ─ RawEnvelope::parse ─► RawEnvelope ─ into_sealed ─► Sealed ─ verify ─► Verified ─ open ─► Opened
//!          structure only        no arithmetic   keys checked      signature          Readable / Unreadable
//! ```

mod agreement;
mod batch;
mod binding;
mod body;
mod dedup_hash;
mod dedup_key;
mod fingerprint;
mod header;
mod open;
mod open_batch;
mod pad;
mod raw;
mod seal;
mod sealed;

pub use agreement::KeyAgreement;
pub use batch::{MAX_BATCH, verify_batch};
pub use binding::binding_hash;
pub use body::{DomainHeader, decode_parts, domain_parts, encode_parts};
pub use dedup_hash::{DedupHash, dedup_hash};
pub use dedup_key::{dedup_key, dedup_key_of};
pub use fingerprint::{Fingerprint, FingerprintKey};
pub use header::{Flags, Header, ProtocolVersion};
pub use open::{Content, Opened};
pub use open_batch::open_batch;
pub use pad::{PADDING_BLOCK_BYTES, pad, unpad};
pub use raw::RawEnvelope;
pub use seal::{SealRequest, SealSecrets, SealedMessage, Signing, encode_envelope, seal};
pub use sealed::{Sealed, Verified};
