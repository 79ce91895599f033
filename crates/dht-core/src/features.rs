//! What a peer offers: specification 01, section 5.1.

use std::fmt;

/// Feature bits of a peer. Only the two known bits can be set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Features(u32);

/// A feature bit this protocol does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown peer feature bits in {0:#x}")]
pub struct FeaturesError(pub u32);

impl Features {
    /// A wallet or other light client: offers nothing.
    pub const CLIENT: Self = Self(0);
    /// Passes messages on.
    pub const MESSAGE_PROPAGATION: Self = Self(1);
    /// Stores messages for peers that are away.
    pub const DHT_STORE_FORWARD: Self = Self(2);
    /// A full node: both features.
    pub const NODE: Self = Self(3);

    /// Reads feature bits.
    ///
    /// # Errors
    /// [`FeaturesError`] if any bit other than the two known ones is set.
    pub const fn from_bits(bits: u32) -> Result<Self, FeaturesError> {
        if bits & !Self::NODE.0 == 0 {
            Ok(Self(bits))
        } else {
            Err(FeaturesError(bits))
        }
    }

    /// The bits as sent.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// True if every bit of `other` is set here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Exactly a full node; role tests of the protocol are exact.
    #[must_use]
    pub const fn is_node(self) -> bool {
        self.0 == Self::NODE.0
    }

    /// Exactly a client.
    #[must_use]
    pub const fn is_client(self) -> bool {
        self.0 == Self::CLIENT.0
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "client",
            1 => "propagation",
            2 => "store-forward",
            _ => "node",
        })
    }
}
