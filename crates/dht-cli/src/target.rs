//! Peers as arguments of commands.

use std::{fmt, str::FromStr};

use dht_core::{NodeId, PeerAddress, PublicKey, error_chain};

/// A peer by its public key, with its addresses if they were given: `KEY` or `KEY::ADDR`.
#[derive(Clone, Debug)]
pub(crate) struct Recipient {
    pub(crate) key: PublicKey,
    pub(crate) peer: Option<PeerAddress>,
}

/// A peer that the node knows, by its public key or its node id.
#[derive(Clone, Debug)]
pub(crate) struct KnownPeer(String);

impl KnownPeer {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("::") {
            let peer = dialled(text)?;
            return Ok(Self {
                key: peer.public_key,
                peer: Some(peer),
            });
        }
        let key: PublicKey = text.parse().map_err(|error| error_chain(&error))?;
        Ok(Self { key, peer: None })
    }
}

/// Parses a peer and refuses an address at which no node can be.
pub(crate) fn dialled(text: &str) -> Result<PeerAddress, String> {
    let peer: PeerAddress = text.parse().map_err(|error| error_chain(&error))?;
    for address in &peer.addresses {
        address.check_dialled().map_err(|error| {
            format!(
                "nobody can dial {address}: {error}; a node dials /ip4/IP/tcp/PORT, /ip6/IP/tcp/PORT and /dns4/NAME/tcp/PORT"
            )
        })?;
    }
    Ok(peer)
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peer {
            Some(peer) => peer.fmt(f),
            None => self.key.fmt(f),
        }
    }
}

impl FromStr for KnownPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim();
        let parsed = match digits.len() {
            26 => digits.parse::<NodeId>().map(drop),
            64 => digits.parse::<PublicKey>().map(drop),
            _ if digits.contains("::") => {
                return Err("the public key is enough, without its address".to_owned());
            }
            length => {
                return Err(format!(
                    "a public key has 64 hexadecimal digits and a node id 26, not {length}"
                ));
            }
        };
        parsed.map_err(|error| error_chain(&error))?;
        Ok(Self(digits.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_peers_name_the_cause() {
        let zeros = "0".repeat(64);
        for (text, expected) in [
            ("zzz", "not 3"),
            (&"z".repeat(26), "node id"),
            (&"z".repeat(64), "64 hexadecimal digits"),
            (
                &format!("{zeros}::/ip4/127.0.0.1/tcp/1"),
                "without its address",
            ),
        ] {
            let error = text.parse::<KnownPeer>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("0".repeat(26).parse::<KnownPeer>().is_ok());
        let key = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919";
        for (text, expected) in [
            (zeros.clone(), "key of nobody"),
            (format!("{zeros}::/ip4/127.0.0.1/tcp/1"), "key of nobody"),
            (format!("{key}::/ip4/0.0.0.0/tcp/1"), "is unspecified"),
            (format!("{key}::/ip4/127.0.0.1/tcp/0"), "has port 0"),
            (format!("{key}::/ip4/127.0.0.1"), "no shape"),
            (format!("{key}::/memory/1"), "for tests only"),
        ] {
            let error = text.parse::<Recipient>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
