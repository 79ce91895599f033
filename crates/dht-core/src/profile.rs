//! The two ways of attributing offences.

use std::{fmt, str::FromStr};

/// Whom an offence is attributed to where it is not proven who did it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum AttributionProfile {
    /// Blames only what is proven.
    #[default]
    Strict,
    /// Blames as the network's first implementation does.
    Legacy,
}

/// Not the name of a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown attribution profile; write strict or legacy")]
pub struct UnknownProfile;

impl fmt::Display for AttributionProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Legacy => "legacy",
        })
    }
}

impl FromStr for AttributionProfile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        match name {
            "strict" => Ok(Self::Strict),
            "legacy" => Ok(Self::Legacy),
            _ => Err(UnknownProfile),
        }
    }
}
