//! Records of the store, the keys of recipients, and positions in a mailbox.

use std::fmt;

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, PublicKey, UnixSeconds};

/// Owner of a mailbox: the 32-byte key of the recipient.
///
/// Kept as bytes, not as a checked point: the store compares keys and never computes with them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient([u8; 32]);

/// The number of a stored row; grows with every insertion and is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowId(pub u64);

/// How long a row is kept, and which goes first when room runs out (05 section 2, rows 14 and 17).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Retention {
    /// No destination: the first to go.
    Low,
    /// Addressed to a recipient in this node's region that this node has not met, and that may have been invented: goes
    /// before every [`Retention::High`] row.
    Unmet,
    /// Addressed to a recipient in this node's region that has connected to it.
    High,
}

/// A message to be stored.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Recipient in whose mailbox the message is stored.
    pub recipient: Recipient,
    /// Where the message was handed over from.
    pub deliverer: Deliverer,
    /// Hash over signature and body; a second insertion with the same hash stores nothing.
    pub hash: DedupHash,
    /// Retention class of the message.
    pub retention: Retention,
    /// The sender's own time limit, if it set one.
    pub expires: Option<UnixSeconds>,
    /// The encoded DHT header, byte for byte as received.
    pub header: Bytes,
    /// The encrypted body, byte for byte as received.
    pub body: Bytes,
}

/// A message taken out of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRecord {
    /// Number of the row.
    pub id: RowId,
    /// Recipient in whose mailbox the message is stored.
    pub recipient: Recipient,
    /// When this node stored it, on its own clock; after that was set back, the second of the row before.
    pub stored_at: UnixSeconds,
    /// The last second in which it is served.
    pub keep_until: UnixSeconds,
    /// Hash over signature and body.
    pub hash: DedupHash,
    /// Retention class of the message.
    pub retention: Retention,
    /// The encoded DHT header, byte for byte as received.
    pub header: Bytes,
    /// The encrypted body, byte for byte as received.
    pub body: Bytes,
}

/// A place in a mailbox: rows are ordered by second, then by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// When the row was stored.
    pub stored_at: UnixSeconds,
    /// Number of the row.
    pub id: RowId,
}

/// Outcome of an insertion.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Inserted {
    /// The message was new and is stored.
    Fresh(Position),
    /// The same message was stored before; nothing was changed.
    AlreadyExisted,
}

// === impl Recipient ===

impl Recipient {
    /// The mailbox of messages without a destination.
    ///
    /// No key has this encoding: it is not a canonical field element.
    pub const ANONYMOUS: Self = Self([0xff; 32]);

    pub(crate) const MIN: Self = Self([0; 32]);
    pub(crate) const MAX: Self = Self([0xff; 32]);

    /// The mailbox with these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key as 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key, if these bytes are one.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_bytes(&self.0).ok()
    }
}

impl From<&PublicKey> for Recipient {
    fn from(key: &PublicKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({})", Short(&self.0))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

// === impl Position ===

impl Position {
    /// Before every row.
    pub(crate) const FIRST: Self = Self {
        stored_at: UnixSeconds(0),
        id: RowId(0),
    };
    /// Behind every row.
    pub(crate) const LAST: Self = Self {
        stored_at: UnixSeconds(u64::MAX),
        id: RowId(u64::MAX),
    };

    /// The place behind this one.
    pub(crate) fn next(self) -> Option<Self> {
        match self.id.0.checked_add(1) {
            Some(id) => Some(Self {
                id: RowId(id),
                ..self
            }),
            None => Some(Self {
                stored_at: UnixSeconds(self.stored_at.0.checked_add(1)?),
                id: RowId(0),
            }),
        }
    }

    /// The place before this one.
    pub(crate) fn previous(self) -> Option<Self> {
        match self.id.0.checked_sub(1) {
            Some(id) => Some(Self {
                id: RowId(id),
                ..self
            }),
            None => Some(Self {
                stored_at: UnixSeconds(self.stored_at.0.checked_sub(1)?),
                id: RowId(u64::MAX),
            }),
        }
    }
}

// === impl Retention ===

impl Retention {
    /// How many there are.
    pub(crate) const COUNT: usize = 3;
    /// Every class, the first to go first.
    pub(crate) const ALL: [Self; Self::COUNT] = [Self::Low, Self::Unmet, Self::High];

    /// The number the specification gives it: 1 or 10; 5 is this library's own.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Low => 1,
            Self::Unmet => 5,
            Self::High => 10,
        }
    }

    /// The class with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Low),
            5 => Some(Self::Unmet),
            10 => Some(Self::High),
            _ => None,
        }
    }
}

// === impl StoredRecord ===

impl StoredRecord {
    /// Its place in the mailbox.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position {
            stored_at: self.stored_at,
            id: self.id,
        }
    }

    /// Bytes of header and body.
    #[must_use]
    pub fn size(&self) -> usize {
        self.header.len().saturating_add(self.body.len())
    }
}

// === impl Inserted ===

impl Inserted {
    /// The specification's answer "already existed".
    #[must_use]
    pub const fn already_existed(self) -> bool {
        matches!(self, Self::AlreadyExisted)
    }
}

/// The first bytes of a key: enough to tell rows apart, too few to tell from a log who gets messages.
struct Short<'a>(&'a [u8; 32]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(4)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
