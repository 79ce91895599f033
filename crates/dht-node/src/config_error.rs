//! What is wrong with the settings of a node.

use dht_core::OutOfRange;

/// Why a node does not take its settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Name servers would learn, without the proxy, where this node is and which network it joins.
    #[cfg(all(feature = "dns-seeds", feature = "socks"))]
    #[error(
        "dns_seeds are looked up without transport.proxy; leave them out, or set transport.proxy_for to \"onion\""
    )]
    DnsBesideProxy,
    /// The secret key of the onion service would cross a network.
    #[cfg(feature = "tor")]
    #[error("tor.control is {0}, which is not on this machine, as 127.0.0.1:9051 is")]
    RemoteControlPort(std::net::SocketAddr),
    /// Both files are named.
    #[cfg(feature = "tor")]
    #[error("tor.cookie_file and tor.password_file are both set; name one of them")]
    CookieAndPassword,
}

impl ConfigError {
    /// Key of the wrong setting in the configuration file, with its section.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::OutOfRange(error) => error.key,
            #[cfg(all(feature = "dns-seeds", feature = "socks"))]
            Self::DnsBesideProxy => "dns_seeds",
            #[cfg(feature = "tor")]
            Self::RemoteControlPort(_) => "tor.control",
            #[cfg(feature = "tor")]
            Self::CookieAndPassword => "tor.cookie_file",
        }
    }
}
