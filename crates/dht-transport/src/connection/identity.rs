//! The identity exchange: who the peer says it is, right after Noise.
//! docs/protocol/02-transport-and-connectivity.md sections 4.3 and 12.

use std::{io, sync::Arc};

use bytes::Bytes;
use dht_core::{
    Address, AddressPolicy, Claim, ClaimError, Features, IdentitySignature, PublicKey, UnixSeconds,
};
use dht_peers::policy::Offence;
use dht_proto::{
    DecodeError,
    identity::PeerIdentityMsg,
    limits::{
        MAX_CLAIM_ADDRESSES, MAX_IDENTITY_BYTES, MAX_PROTOCOL_ID_BYTES, MAX_PROTOCOLS,
        MAX_USER_AGENT_BYTES,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::limits::IDENTITY_TIMEOUT;

/// Bytes before the protobuf message: version, then the length in little-endian.
const HEAD_BYTES: usize = 3;

/// Identity that a peer presented, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Addresses and features, signed by the peer.
    pub claim: Arc<Claim>,
    /// Its software, unsigned; only printable ASCII is left.
    pub user_agent: Arc<str>,
    /// Protocol ids it offers, unsigned.
    pub protocols: Arc<[Bytes]>,
}

/// Rules for the identity of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdentityRules {
    /// Own major version: a higher one is refused. 0 in every known application.
    pub version: u8,
    /// Which addresses a claim may hold.
    pub addresses: AddressPolicy,
}

/// Why an identity was refused. [`offence`](Self::offence) says whether the peer is banned for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The connection broke.
    #[error("connection failed during the identity exchange: {0}")]
    Io(io::ErrorKind),
    /// Nothing, or not everything, within [`IDENTITY_TIMEOUT`].
    #[error("no identity within the time limit")]
    Timeout,
    /// A higher major version than ours.
    #[error("identity has version {0}, which is newer than ours")]
    Version(u8),
    /// The announced length is over [`MAX_IDENTITY_BYTES`]; the body was not read.
    #[error("identity of {0} bytes is too long")]
    TooLong(usize),
    /// Not the protobuf message.
    #[error("identity does not decode")]
    Decode(#[source] DecodeError),
    /// Over [`MAX_USER_AGENT_BYTES`].
    #[error("user agent of {0} bytes is too long")]
    UserAgentTooLong(usize),
    /// Over [`MAX_PROTOCOLS`].
    #[error("{0} protocol ids are too many")]
    TooManyProtocols(usize),
    /// Over [`MAX_PROTOCOL_ID_BYTES`].
    #[error("protocol id of {0} bytes is too long")]
    ProtocolIdTooLong(usize),
    /// A claim that does not decode, has an address that may not be advertised, or is not validly signed.
    #[error("identity has a claim that is refused")]
    Claim(#[from] ClaimError),
}

impl IdentityError {
    /// The offence of the authenticated peer; `None` for what an honest peer may cause. `we_dialled` is true on the
    /// side that dialled.
    ///
    /// 02 section 4.3 with the corrections of 02 section 17, 17: a time-out is only held against the side that
    /// dialled in, and an empty address list, an unsupported address form or a wrong clock against no peer.
    #[must_use]
    pub const fn offence(&self, we_dialled: bool) -> Option<Offence> {
        match self {
            Self::Decode(_)
            | Self::TooLong(_)
            | Self::UserAgentTooLong(_)
            | Self::TooManyProtocols(_)
            | Self::ProtocolIdTooLong(_)
            | Self::Claim(ClaimError::TooManyAddresses { .. }) => Some(Offence::MalformedIdentity),
            Self::Claim(ClaimError::AddressShape) => None,
            Self::Claim(error) if error.is_address() => Some(Offence::RefusedAddress),
            Self::Claim(ClaimError::NegativeTime | ClaimError::BadSignature) => {
                Some(Offence::ForgedIdentity)
            }
            Self::Version(_) => Some(Offence::IdentityVersion),
            Self::Timeout if we_dialled => None,
            Self::Timeout => Some(Offence::IdentityTimeout),
            Self::Io(_) | Self::Claim(_) => None,
        }
    }
}

impl From<io::Error> for IdentityError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// The frame this node sends: version, little-endian length, message.
///
/// # Errors
/// [`IdentityError::TooLong`] if the message is over [`MAX_IDENTITY_BYTES`].
pub fn encode_identity(
    version: u8,
    claim: &Claim,
    user_agent: &str,
    protocols: &[Bytes],
) -> Result<Vec<u8>, IdentityError> {
    let message = dht_proto::encode(&PeerIdentityMsg {
        addresses: claim
            .addresses
            .iter()
            .map(|address| Bytes::copy_from_slice(address.as_bytes()))
            .collect(),
        features: claim.features.bits(),
        supported_protocols: protocols.to_vec(),
        user_agent: user_agent.to_owned(),
        identity_signature: Some((&claim.signature).into()),
    });
    if message.len() > MAX_IDENTITY_BYTES {
        return Err(IdentityError::TooLong(message.len()));
    }
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(HEAD_BYTES + message.len());
    frame.push(version);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&message);
    Ok(frame)
}

/// Checks the three bytes before the message and returns its length.
///
/// # Errors
/// [`IdentityError::Version`], then [`IdentityError::TooLong`].
pub(crate) fn decode_head(
    head: [u8; HEAD_BYTES],
    rules: &IdentityRules,
) -> Result<usize, IdentityError> {
    let [version, low, high] = head;
    if version > rules.version {
        return Err(IdentityError::Version(version));
    }
    let length = usize::from(u16::from_le_bytes([low, high]));
    if length > MAX_IDENTITY_BYTES {
        return Err(IdentityError::TooLong(length));
    }
    Ok(length)
}

/// Decodes and checks an identity message, in the order of 02 section 4.3.
///
/// # Errors
/// The first rule that does not hold.
pub fn check_identity(
    message: Bytes,
    key: &PublicKey,
    rules: &IdentityRules,
    now: UnixSeconds,
) -> Result<PeerInfo, IdentityError> {
    let message: PeerIdentityMsg = dht_proto::decode(message).map_err(IdentityError::Decode)?;
    check_lengths(&message)?;
    let addresses = message
        .addresses
        .into_iter()
        .map(Address::from_bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(ClaimError::Malformed)?;
    let features =
        Features::from_bits(message.features).ok_or(ClaimError::Features(message.features))?;
    let signature = message.identity_signature.ok_or(ClaimError::NotSigned)?;
    let signature = IdentitySignature::try_from(&signature)?;
    for address in &addresses {
        address.check_policy(&rules.addresses)?;
    }
    let claim = Claim {
        addresses,
        features,
        signature,
    };
    claim.verify(key, now)?;
    let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
    Ok(PeerInfo {
        claim: Arc::new(claim),
        user_agent: message
            .user_agent
            .chars()
            .filter(printable)
            .collect::<String>()
            .into(),
        // Copied, so that a connection does not hold on to the whole message.
        protocols: message
            .supported_protocols
            .iter()
            .map(|id| Bytes::copy_from_slice(id))
            .collect(),
    })
}

fn check_lengths(message: &PeerIdentityMsg) -> Result<(), IdentityError> {
    if message.user_agent.len() > MAX_USER_AGENT_BYTES {
        return Err(IdentityError::UserAgentTooLong(message.user_agent.len()));
    }
    if message.supported_protocols.len() > MAX_PROTOCOLS {
        return Err(IdentityError::TooManyProtocols(
            message.supported_protocols.len(),
        ));
    }
    let longest = message
        .supported_protocols
        .iter()
        .map(Bytes::len)
        .max()
        .unwrap_or_default();
    if longest > MAX_PROTOCOL_ID_BYTES {
        return Err(IdentityError::ProtocolIdTooLong(longest));
    }
    match message.addresses.len() {
        0 => Err(ClaimError::NoAddresses.into()),
        1..=MAX_CLAIM_ADDRESSES => Ok(()),
        found => Err(ClaimError::TooManyAddresses {
            found,
            max: MAX_CLAIM_ADDRESSES,
        }
        .into()),
    }
}

/// Sends our frame and reads theirs. Both sides send at once; a frame fits every socket buffer, so neither
/// waits for the other.
///
/// # Errors
/// [`IdentityError`].
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    channel: &mut S,
    ours: &[u8],
    key: &PublicKey,
    rules: &IdentityRules,
    now: UnixSeconds,
) -> Result<PeerInfo, IdentityError> {
    channel.write_all(ours).await?;
    channel.flush().await?;
    let receive = async {
        let mut head = [0; HEAD_BYTES];
        channel.read_exact(&mut head).await?;
        let mut message = vec![0; decode_head(head, rules)?];
        channel.read_exact(&mut message).await?;
        Ok::<_, IdentityError>(message)
    };
    let message = timeout(IDENTITY_TIMEOUT, receive)
        .await
        .map_err(|_| IdentityError::Timeout)??;
    check_identity(message.into(), key, rules, now)
}

#[cfg(test)]
mod tests;
