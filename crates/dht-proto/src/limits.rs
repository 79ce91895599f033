//! How large messages may be, and why. Each bound is checked before anything is allocated by it.

/// One frame of the messaging protocol, hence one `DhtEnvelope`: 8 MiB (specification 02, section 6).
pub const MAX_MESSAGING_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// One frame of the RPC protocol: 4 MiB (specification 02, section 6).
pub const MAX_RPC_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// One `PeerIdentityMsg`: 1 KiB (specification 02, section 4.3).
pub const MAX_IDENTITY_BYTES: usize = 1024;

/// The handshake messages of an RPC session: nothing legitimate comes near (specification 02, section 16).
pub const MAX_RPC_SESSION_BYTES: usize = 1024;

/// Fields one decode may expand to. A frame of empty parts would otherwise become millions of allocations
/// (03 section 9.3, 03 F-6).
pub const MAX_DECODE_ITEMS: usize = 1_024;

/// Bytes of one message that may be in fields this version does not know. Later versions may add some; megabytes of them
/// would be carried, hashed and kept for nothing.
pub const MAX_UNKNOWN_BYTES: usize = 16 * 1024;

/// Parts of one envelope body; real ones have one or two (03 section 9.3, 03 F-6).
pub const MAX_ENVELOPE_PARTS: usize = 16;

/// Messages in one store-and-forward answer that are looked at; an honest responder sends at most 50
/// (specification 05, section 11).
pub const MAX_STORED_MESSAGES: usize = 1_024;

/// Body of a message stored for another node: 512 KiB (specification 05, section 11).
pub const MAX_STORED_BODY_BYTES: usize = 512 * 1024;

/// Addresses in one identity claim (specification 01, section 5.3).
pub const MAX_CLAIM_ADDRESSES: usize = 5;

/// Protocol ids in one identity message (specification 01, section 5.3).
pub const MAX_PROTOCOLS: usize = 20;

/// Bytes of one protocol id (specification 01, section 5.3).
pub const MAX_PROTOCOL_ID_BYTES: usize = 50;

/// Bytes of a user agent (specification 01, section 5.3).
pub const MAX_USER_AGENT_BYTES: usize = 50;

/// Node ids excluded in one request for closer peers (specification 02, section 8.3).
pub const MAX_EXCLUDED_PEERS: usize = 1_000;
