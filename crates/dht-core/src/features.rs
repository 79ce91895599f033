//! Feature bits of a peer (01 section 5.1).

use std::fmt;

bitflags::bitflags! {
    /// Services that a peer offers to others.
    ///
    /// `from_bits` refuses bits that the protocol does not know.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Features: u32 {
        /// The peer passes messages on.
        const MESSAGE_PROPAGATION = 1;
        /// The peer stores messages for offline peers.
        const DHT_STORE_FORWARD = 2;
    }
}

impl Features {
    /// A wallet or other light client: no feature.
    pub const CLIENT: Self = Self::empty();
    /// A full node: both features.
    pub const NODE: Self = Self::all();

    /// Whether the bits are exactly those of a full node; the protocol compares roles exactly.
    #[must_use]
    pub const fn is_node(self) -> bool {
        self.bits() == Self::NODE.bits()
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::CLIENT => "client",
            Self::MESSAGE_PROPAGATION => "propagation",
            Self::DHT_STORE_FORWARD => "store-forward",
            _ => "node",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_feature_bits_are_refused() {
        for bits in 0..4 {
            assert_eq!(Features::from_bits(bits).map(|it| it.bits()), Some(bits));
        }
        assert_eq!(Features::from_bits(4), None);
        let shown = [0, 1, 2, 3].map(|bits| Features::from_bits_truncate(bits).to_string());
        assert_eq!(shown, ["client", "propagation", "store-forward", "node"]);
    }
}
