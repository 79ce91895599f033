//! Errors of texts, of claims, and of each step in the life of an envelope.

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
    /// The public key of the secret key zero, which everybody has. In text only.
    #[error("this is the key of nobody: its secret is zero, which everybody knows")]
    NobodysKey,
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
    /// The recipient's key is the identity point, with which everybody derives the same secret.
    #[error("the recipient's key is zero: everybody could read the message")]
    IdentityKey,
    /// The message has 4 GiB or more, which its length prefix cannot hold.
    #[error("message is too long to encrypt")]
    TooLong,
}

/// Why a claim does not decode, or is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A feature bit this node does not know.
    #[error("unknown peer feature bits in {0:#x}")]
    Features(u32),
    /// An address that does not decode.
    #[error("claim has a malformed address")]
    Malformed(#[source] ParseError),
    /// Bytes that are no encoded claim; see [`Claim::decode`](crate::Claim::decode).
    #[error("claim does not decode")]
    Encoding,
    /// There is no signature.
    #[error("claim is not signed")]
    NotSigned,
    /// A version of the signature that does not fit one byte.
    #[error("identity signature version does not fit one byte")]
    Version,
    /// A public nonce that is not a canonical point.
    #[error("public nonce of the identity signature is not canonical")]
    Nonce,
    /// A scalar that is not canonical.
    #[error("scalar of the identity signature is not canonical")]
    Scalar,
    /// A time that is not a date.
    #[error("identity signature time is not a representable date")]
    Date,
    /// A peer without any claim, which cannot be checked.
    #[error("peer has no claim")]
    NoClaims,
    /// More claims of one peer than accepted.
    #[error("peer has {found} claims, at most {max} are accepted")]
    TooManyClaims {
        /// Claims of the peer.
        found: usize,
        /// Most claims that are accepted.
        max: usize,
    },
    /// A claim for another key than the one that was searched for.
    #[error("claim is for another key")]
    OtherKey,
    /// The record held under this node id has another key.
    #[error("public key differs from the one already known for this node id")]
    KeyMismatch,
    /// A claim without an address.
    #[error("claim has no address")]
    NoAddresses,
    /// More addresses in one claim than accepted.
    #[error("claim has {found} addresses, at most {max} are accepted")]
    TooManyAddresses {
        /// Addresses of the claim.
        found: usize,
        /// Most addresses that are accepted.
        max: usize,
    },
    /// Addresses that are too long together.
    #[error("claim has {found} bytes of addresses, at most {max} are accepted")]
    TooLong {
        /// Bytes of all addresses.
        found: usize,
        /// Most bytes that are accepted.
        max: usize,
    },
    /// An address that has none of the shapes this network dials.
    #[error("address has no shape this network dials")]
    AddressShape,
    /// An address with port 0, which leads nowhere.
    #[error("address has port 0")]
    AddressPort,
    /// The address 0.0.0.0 or ::.
    #[error("address is unspecified")]
    AddressUnspecified,
    /// An onion address whose checksum or version is wrong.
    #[error("onion address has a wrong version or checksum")]
    AddressOnion,
    /// A test address outside a test.
    #[error("address is for tests only")]
    AddressTestOnly,
    /// Signed before 1970.
    #[error("identity signature time is negative")]
    NegativeTime,
    /// Signed more than a day ahead.
    #[error("identity signature time is more than a day in the future")]
    FromTheFuture,
    /// A signature that does not hold.
    #[error("identity signature does not verify")]
    BadSignature,
}

impl ClaimError {
    /// Whether only bad faith explains it: a signature that does not hold. Everything else can be an honest peer
    /// with other limits, an unusual address or a wrong clock.
    #[must_use]
    pub const fn is_offence(&self) -> bool {
        matches!(self, Self::BadSignature)
    }

    /// Whether an address decodes and may not be advertised; see [`Address::check_policy`](crate::Address::check_policy).
    #[must_use]
    pub const fn is_address(&self) -> bool {
        matches!(
            self,
            Self::AddressShape
                | Self::AddressPort
                | Self::AddressUnspecified
                | Self::AddressOnion
                | Self::AddressTestOnly
        )
    }
}
