//! Which network a node belongs to: the first byte of each connection (02 section 4.1).

use std::{fmt, str::FromStr};

use crate::error::ParseError;

/// A network and its wire byte (02 section 4.1).
///
/// ```
/// use dht_core::Network;
///
/// let network: Network = "esmeralda".parse()?;
/// assert_eq!(network.wire_byte(), 0xc9);
/// # Ok::<(), dht_core::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[expect(missing_docs, reason = "the names are the networks' own")]
pub enum Network {
    MainNet,
    StageNet,
    NextNet,
    #[default]
    LocalNet,
    Igor,
    Esmeralda,
}

impl Network {
    /// Every network that is known.
    pub const ALL: [Self; 6] = [
        Self::MainNet,
        Self::StageNet,
        Self::NextNet,
        Self::LocalNet,
        Self::Igor,
        Self::Esmeralda,
    ];

    /// The byte a dialler sends first.
    #[must_use]
    pub const fn wire_byte(self) -> u8 {
        match self {
            Self::MainNet => 0x00,
            Self::StageNet => 0x01,
            Self::NextNet => 0x50,
            Self::LocalNet => 0x10,
            Self::Igor => 0x24,
            Self::Esmeralda => 0xc9,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::MainNet => "mainnet",
            Self::StageNet => "stagenet",
            Self::NextNet => "nextnet",
            Self::LocalNet => "localnet",
            Self::Igor => "igor",
            Self::Esmeralda => "esmeralda",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Network {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|network| network.name().eq_ignore_ascii_case(text))
            .ok_or(ParseError::Network)
    }
}
