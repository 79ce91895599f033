//! What can go wrong: with text, and in each step of the life of an envelope.

/// Why bytes or text are not a key, node id, network, multiaddr or peer address: what is wrong, and what is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A key of this many bytes.
    #[error("a key is 32 bytes (64 hexadecimal digits), not {0}")]
    KeyLength(usize),
    /// A key in text that is not 64 hexadecimal digits.
    #[error("a key is 64 hexadecimal digits, as in 6a49…b919")]
    KeyDigits,
    /// A public key that is not the canonical encoding of a Ristretto255 element.
    #[error("public key is not a canonical ristretto255 encoding")]
    PublicKey,
    /// A secret key or signature scalar that is not below the group order.
    #[error("secret key is not a canonical scalar")]
    Scalar,
    /// A node id of another length, or that is not hexadecimal.
    #[error("a node id is 13 bytes (26 hexadecimal digits)")]
    NodeId,
    /// Text that names no network.
    #[error("unknown network; use one of mainnet, stagenet, nextnet, localnet, igor, esmeralda")]
    Network,
    /// A multiaddr in text that does not start with a slash.
    #[error("a multiaddr starts with '/', as in /ip4/127.0.0.1/tcp/18189")]
    NoSlash,
    /// A multiaddr with a protocol this network does not use.
    #[error(
        "multiaddr has an unknown protocol {0}, use /ip4/127.0.0.1/tcp/18189 or /dns4/a.example/tcp/18189"
    )]
    UnknownProtocol(String),
    /// A multiaddr with a value that does not fit its protocol, named here.
    #[error("multiaddr has a malformed value for {0}, right is /ip4/127.0.0.1/tcp/18189")]
    Value(&'static str),
    /// A binary multiaddr whose last component ends early.
    #[error("multiaddr is cut off")]
    Truncated,
    /// A binary multiaddr with a varint that is too long or not minimal.
    #[error("multiaddr has a malformed varint")]
    Varint,
    /// A peer address without an address behind the key.
    #[error("a peer address is KEY::ADDRESS, as in 6a49…b919::/ip4/127.0.0.1/tcp/18189")]
    NoAddress,
}

/// Why a header does not convert, in the order the checks are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// There is no header.
    #[error("envelope has no header")]
    Missing,
    /// No destination, or not a canonical key.
    #[error("destination is missing or not a canonical key")]
    Destination,
    /// Not empty and not a canonical key.
    #[error("ephemeral key is not a canonical key")]
    EphemeralKey,
    /// Neither 1 nor 2.
    #[error("protocol version {0} is not supported")]
    Version(u32),
    /// Not a known type.
    #[error("message type {0} is not known")]
    MessageType(i32),
    /// A flag bit this protocol does not know.
    #[error("unknown flag bits in {0:#x}")]
    Flags(u32),
}

/// Why an envelope is not valid. Every hop can check these, so a relay must.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Encrypted, but without what encryption takes.
    #[error("encrypted message without destination, ephemeral key, signature or body")]
    Semantics,
    /// The signature is not the protobuf message.
    #[error("message signature is not the expected protobuf message")]
    Malformed,
    /// The signer of the signature is not a canonical public key.
    #[error("signer key of the message signature is not canonical")]
    Signer,
    /// The public nonce of the signature is not 32 bytes.
    #[error("public nonce of the message signature is not canonical")]
    Nonce,
    /// The scalar of the signature is not canonical.
    #[error("scalar of the message signature is not canonical")]
    Scalar,
    /// The signature does not cover header and body.
    #[error("message signature does not verify")]
    BadSignature,
}

/// Why a verified envelope does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Addressed to us but undecryptable. Only we can tell, so no peer is blamed, and nothing says which check
    /// failed.
    #[error("body addressed to this node does not decrypt")]
    Undecryptable,
    /// A body that is no envelope body within limits.
    #[error("body does not decode")]
    UndecodableBody,
    /// [`unpad`](crate::unpad): a block shorter than its length prefix.
    #[error("padded message is too short to hold its length")]
    TooShort,
    /// [`unpad`](crate::unpad): a block that is not a whole number of [`PADDING_BLOCK_BYTES`](crate::PADDING_BLOCK_BYTES).
    #[error("padded message is not a whole number of blocks")]
    NotWholeBlocks,
    /// [`unpad`](crate::unpad): a length prefix that points past the end of its block.
    #[error("length prefix points past the end of the message")]
    LengthPrefix,
}

/// Why a message cannot be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Receivers reject encrypted messages that do not name their recipient, and may ban the sender.
    #[error("an encrypted message must be addressed to the key it is encrypted for")]
    DestinationMismatch,
    /// The message has 4 GiB or more, which its length prefix cannot hold.
    #[error("message is too long to encrypt")]
    TooLong,
}
