//! Errors in the settings of a node.

use dht_core::OutOfRange;

/// Why a node does not take its settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// A setting, or one of a list, has a value of the right kind that no node can use.
    #[error("{key} is {value}, {why}")]
    Unusable {
        /// Key of the setting in the configuration file, with its section.
        key: &'static str,
        /// Value that was found.
        value: String,
        /// Reason for people, which goes on after a comma.
        why: String,
    },
    /// Name servers would learn, without the proxy, where this node is and which network it joins.
    #[cfg(all(feature = "dns-seeds", feature = "socks"))]
    #[error(
        "dns_seeds are looked up without transport.proxy; leave them out, or set transport.proxy_for to \"onion\""
    )]
    DnsBesideProxy,
    /// The node would tell its local networks where it is, which it hides from others.
    #[cfg(all(feature = "lan", feature = "socks"))]
    #[error(
        "lan_discovery announces this node on its local networks; leave it out, or both tor.control and a transport.proxy for more than \"onion\""
    )]
    LanBesideTor,
    /// Both files are named.
    #[cfg(feature = "tor")]
    #[error("tor.cookie_file and tor.password_file are both set; name one of them")]
    CookieAndPassword,
}

impl ConfigError {
    /// Of a value that no node can use.
    pub(crate) fn unusable(
        key: &'static str,
        value: impl ToString,
        why: impl Into<String>,
    ) -> Self {
        let (value, why) = (value.to_string(), why.into());
        Self::Unusable { key, value, why }
    }

    /// Key of the wrong setting in the configuration file, with its section.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::OutOfRange(error) => error.key,
            Self::Unusable { key, .. } => key,
            #[cfg(all(feature = "dns-seeds", feature = "socks"))]
            Self::DnsBesideProxy => "dns_seeds",
            #[cfg(all(feature = "lan", feature = "socks"))]
            Self::LanBesideTor => "lan_discovery",
            #[cfg(feature = "tor")]
            Self::CookieAndPassword => "tor.cookie_file",
        }
    }
}
