//! Attribution profiles.

use std::{fmt, str::FromStr};

/// Choice of the banned party when a message does not prove which peer misbehaved (03 section 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum AttributionProfile {
    /// Bans only for what is proven: a relay never for bytes that another node signed, a signer never for a message
    /// that another node delivered unless the message alone proves guilt.
    #[default]
    Strict,
    /// Bans as the network's first implementation does.
    Legacy,
}

/// A text that is not the name of an [`AttributionProfile`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_parse_as_printed() {
        for profile in [AttributionProfile::Strict, AttributionProfile::Legacy] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert_eq!("Strict".parse::<AttributionProfile>(), Err(UnknownProfile));
    }
}
