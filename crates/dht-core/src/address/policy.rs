//! Which addresses a peer may advertise: specification 01, section 5.3.

use sha3::{Digest, Sha3_256};

use super::{Address, DnsKind, Host};

/// What a claim may contain besides public addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Accept `/memory/n` and unspecified IP addresses. For tests only; off by default.
    pub allow_test: bool,
}

/// Why a well-formed address may not be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressRefusal {
    /// Not one of the shapes this network dials.
    #[error("address has no shape this network dials")]
    Shape,
    /// Port 0 leads nowhere.
    #[error("address has port 0")]
    Port,
    /// 0.0.0.0 or ::.
    #[error("address is unspecified")]
    Unspecified,
    /// Checksum or version of the onion address is wrong.
    #[error("onion address has a wrong version or checksum")]
    Onion,
    /// A test address outside a test.
    #[error("address is for tests only")]
    TestOnly,
}

impl Address {
    /// Whether a peer may advertise this address. Loopback and private ranges may.
    ///
    /// # Errors
    /// [`AddressRefusal`] naming the rule.
    pub fn check_policy(&self, policy: &AddressPolicy) -> Result<(), AddressRefusal> {
        let (port, refusal) = match self.host().ok_or(AddressRefusal::Shape)? {
            Host::Dns {
                kind: DnsKind::Dns, ..
            } => return Err(AddressRefusal::Shape),
            Host::Dns { port, .. } => (port, None),
            Host::Ip(ip, port) => {
                let refused = ip.is_unspecified() && !policy.allow_test;
                (port, refused.then_some(AddressRefusal::Unspecified))
            }
            Host::Onion3 { address, port } => (
                port,
                (!onion_is_valid(&address)).then_some(AddressRefusal::Onion),
            ),
            Host::Memory(number) => {
                let refusal = (!policy.allow_test).then_some(AddressRefusal::TestOnly);
                (u16::from(number != 0), refusal)
            }
        };
        match refusal {
            Some(refusal) => Err(refusal),
            None if port == 0 => Err(AddressRefusal::Port),
            None => Ok(()),
        }
    }
}

/// Version byte 3, and the checksum of rend-spec-v3: the first two bytes of
/// SHA3-256(".onion checksum" ‖ key ‖ version).
fn onion_is_valid(address: &[u8; 35]) -> bool {
    let Some((key, [c0, c1, version])) = address.split_last_chunk::<3>() else {
        return false;
    };
    let hash = Sha3_256::new()
        .chain_update(b".onion checksum")
        .chain_update(key)
        .chain_update([*version])
        .finalize();
    *version == 3 && hash.starts_with(&[*c0, *c1])
}
