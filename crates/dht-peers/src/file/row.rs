//! Rows of the file: peers and bans as bytes, integers in big-endian order.
//!
//! A peer holds each of its claims once, as received. An address of a claim is its position in it.

use std::sync::Arc;

use bytes::{Buf, BufMut as _, TryGetError};
use dht_core::{
    Address, Claim, CompressedKey, Features, IdentitySignature, NodeId, Severity, UnixSeconds,
};

use crate::{
    address::{AddressRecord, Average, MAX_ADDRESSES, MAX_FAILURE_BYTES, truncate},
    agent::{Agent, MAX_PROTOCOLS, MAX_USER_AGENT_BYTES},
    ban::{Ban, MAX_REASON_BYTES},
    claims::MAX_STATED_ADDRESSES,
    group::NetGroup,
    moment::Moment,
    policy::rules,
    record::PeerRecord,
};

/// A row that this version does not read; the peer is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

type Result<T> = std::result::Result<T, Unreadable>;

/// Instead of a position among claims, or among their addresses.
const NONE: u8 = u8::MAX;
/// Instead of a position among claims, for an address that nobody signed and the operator did not name.
const UNSIGNED: u8 = NONE - 1;

/// Written where rows of earlier versions say through which channel a claim came.
const CHANNEL: u8 = 0;

impl From<TryGetError> for Unreadable {
    fn from(_: TryGetError) -> Self {
        Self
    }
}

// === peers ===

pub(super) fn encode_peer(peer: &PeerRecord, row: &mut Vec<u8>) {
    let mut claims: Vec<&Claim> = Vec::new();
    let sources = peer.addresses.iter().filter_map(AddressRecord::claim);
    for claim in peer.claim.iter().chain(sources) {
        if !claims.contains(&&**claim) {
            claims.push(claim);
        }
    }
    row.put_slice(peer.public_key.as_bytes());
    row.put_u32(peer.features.bits());
    put_group(row, peer.source);
    row.put_u64(peer.added_at.0);
    put_time(row, peer.last_seen);
    put_time(row, peer.deleted_at);
    put_text(row, peer.user_agent());
    put_count(row, peer.protocols().len());
    for name in peer.protocols() {
        put_bytes(row, name);
    }
    put_count(row, claims.len());
    for claim in &claims {
        put_claim(row, claim);
    }
    let position = |claim: &Claim| position(&claims, |held| *held == claim);
    row.put_u8(peer.claim.as_ref().map_or(NONE, |claim| position(claim)));
    put_count(row, peer.addresses.len());
    for held in &peer.addresses {
        match held.claim() {
            None if held.is_named() => row.put_u8(NONE),
            None => row.put_u8(UNSIGNED),
            Some(claim) => {
                row.put_u8(position(claim));
                row.put_u8(CHANNEL);
            }
        }
        put_address(row, held);
    }
}

/// Reads a peer, which is proven or not, as the table says that it is in.
pub(super) fn decode_peer(
    id: &[u8; NodeId::LENGTH],
    mut row: &[u8],
    is_proven: bool,
) -> Result<PeerRecord> {
    let row = &mut row;
    let public_key = CompressedKey::from_bytes(take(row)?);
    let mut peer = PeerRecord::stored(public_key, features(row)?, UnixSeconds(0));
    if peer.node_id.as_bytes() != id {
        return Err(Unreadable);
    }
    peer.proven = is_proven;
    peer.source = group(row)?;
    peer.added_at = UnixSeconds(row.try_get_u64()?);
    peer.last_seen = time(row)?;
    peer.deleted_at = time(row)?;
    let user_agent = text(row, MAX_USER_AGENT_BYTES)?;
    let protocols = count(row, MAX_PROTOCOLS)?;
    let protocols: Vec<_> = (0..protocols).map(|_| slice(row)).collect::<Result<_>>()?;
    peer.agent = Agent::new(user_agent, protocols).map(Arc::new);
    let claims = count(row, MAX_ADDRESSES + 1)?;
    let claims: Vec<_> = (0..claims)
        .map(|_| claim(row).map(Arc::new))
        .collect::<Result<_>>()?;
    let newest = row.try_get_u8()?;
    peer.claim = claims.get(usize::from(newest)).cloned();
    let addresses = count(row, MAX_ADDRESSES)?;
    let mut held = Vec::with_capacity(addresses);
    for _ in 0..addresses {
        let at = row.try_get_u8()?;
        let claim = match at {
            NONE | UNSIGNED => None,
            at => {
                skip_channel(row)?;
                Some(claims.get(usize::from(at)).ok_or(Unreadable)?)
            }
        };
        let address = address(row, claim)?;
        let mut record = match claim {
            Some(claim) => AddressRecord::claimed(address, Arc::clone(claim)),
            None if at == NONE => AddressRecord::named(address),
            None => AddressRecord::unsigned(address),
        };
        history(row, &mut record)?;
        held.push(record);
    }
    peer.addresses = held.into();
    Ok(peer)
}

fn put_claim(row: &mut Vec<u8>, claim: &Claim) {
    let signature = &claim.signature;
    row.put_u8(signature.version());
    row.put_slice(signature.scalar());
    row.put_slice(signature.nonce());
    row.put_i64(signature.updated_at());
    row.put_u32(claim.features.bits());
    put_count(row, claim.addresses.len());
    for address in &claim.addresses {
        put_bytes(row, address.as_bytes());
    }
}

fn claim(row: &mut &[u8]) -> Result<Claim> {
    let version = row.try_get_u8()?;
    let (scalar, nonce) = (take::<32>(row)?, take(row)?);
    let signature = IdentitySignature::from_stored(version, &scalar, nonce, row.try_get_i64()?);
    let features = features(row)?;
    let addresses = count(row, MAX_STATED_ADDRESSES)?;
    let addresses =
        (0..addresses).map(|_| Address::from_bytes(slice(row)?).map_err(|_| Unreadable));
    Ok(Claim {
        addresses: addresses.collect::<Result<_>>()?,
        features,
        signature: signature.map_err(|_| Unreadable)?,
    })
}

fn put_address(row: &mut Vec<u8>, held: &AddressRecord) {
    let claimed = held.claim().map_or(&[][..], |claim| &claim.addresses);
    match position(claimed, |address| *address == held.address) {
        NONE => {
            row.put_u8(NONE);
            put_bytes(row, held.address.as_bytes());
        }
        at => row.put_u8(at),
    }
    put_time(row, held.last_seen);
    put_time(row, held.last_attempt);
    row.put_u32(held.attempts());
    row.put_u8(u8::from(held.has_failed()));
    if let Some(failure) = held.last_failure() {
        put_text(row, failure);
    }
    for average in [held.dial_time, held.latency] {
        let (mean, samples) = average.parts();
        row.put_u32(samples.into());
        row.put_u64(mean.into());
    }
}

fn address(row: &mut &[u8], claim: Option<&Arc<Claim>>) -> Result<Address> {
    match (row.try_get_u8()?, claim) {
        (NONE, _) => Address::from_bytes(slice(row)?).map_err(|_| Unreadable),
        (at, Some(claim)) => {
            let address = claim.addresses.get(usize::from(at));
            address.cloned().ok_or(Unreadable)
        }
        (_, None) => Err(Unreadable),
    }
}

fn history(row: &mut &[u8], held: &mut AddressRecord) -> Result<()> {
    held.last_seen = time(row)?;
    held.last_attempt = time(row)?;
    let attempts = row.try_get_u32()?;
    if row.try_get_u8()? != 0 {
        held.set_failures(attempts, text(row, MAX_FAILURE_BYTES)?);
    }
    for average in [&mut held.dial_time, &mut held.latency] {
        let samples = u8::try_from(row.try_get_u32()?).map_err(|_| Unreadable)?;
        *average = Average::from_parts(row.try_get_u64()?, samples);
    }
    Ok(())
}

fn skip_channel(row: &mut &[u8]) -> Result<()> {
    // 3: the peer that told of it.
    if row.try_get_u8()? == 3 {
        take::<{ NodeId::LENGTH }>(row)?;
    }
    Ok(())
}

fn put_group(row: &mut Vec<u8>, group: NetGroup) {
    let (kind, value) = match group {
        NetGroup::Unknown => (0, [0; 4]),
        NetGroup::V4([a, b]) => (1, [a, b, 0, 0]),
        NetGroup::V6(value) => (2, value),
        NetGroup::Name => (3, [0; 4]),
        NetGroup::Onion(part) => (4, [part, 0, 0, 0]),
        NetGroup::Memory => (5, [0; 4]),
        NetGroup::OnionService => (6, [0; 4]),
    };
    row.put_u8(kind);
    row.put_slice(&value);
}

fn group(row: &mut &[u8]) -> Result<NetGroup> {
    let kind = row.try_get_u8()?;
    let value @ [a, b, ..] = take::<4>(row)?;
    Ok(match kind {
        0 => NetGroup::Unknown,
        1 => NetGroup::V4([a, b]),
        2 => NetGroup::V6(value),
        3 => NetGroup::Name,
        4 => NetGroup::Onion(a),
        5 => NetGroup::Memory,
        6 => NetGroup::OnionService,
        _ => return Err(Unreadable),
    })
}

// === bans ===

pub(super) fn encode_ban(ban: &Ban, row: &mut Vec<u8>) {
    row.put_u64(ban.until.0);
    row.put_u8(match ban.severity {
        Severity::Low => 0,
        Severity::Medium => 1,
        Severity::High => 2,
    });
    put_text(row, ban.offence.map_or("", |offence| offence.rule().name));
    put_text(row, &ban.reason);
    if let Some(key) = &ban.public_key {
        row.put_slice(key.as_bytes());
    }
}

pub(super) fn decode_ban(id: &[u8; NodeId::LENGTH], mut row: &[u8]) -> Result<Ban> {
    let row = &mut row;
    let until = UnixSeconds(row.try_get_u64()?);
    let severity = match row.try_get_u8()? {
        0 => Severity::Low,
        1 => Severity::Medium,
        _ => Severity::High,
    };
    let name = text(row, MAX_REASON_BYTES)?;
    // An offence of another version is shown by its reason.
    let rule = rules().iter().find(|rule| rule.name == name);
    let reason = text(row, MAX_REASON_BYTES)?;
    let public_key = match row.is_empty() {
        true => None,
        false => Some(CompressedKey::from_bytes(take(row)?)),
    };
    Ok(Ban {
        node_id: node_id(id)?,
        public_key,
        until,
        severity,
        offence: rule.map(|rule| rule.offence),
        is_listed: false,
        reason: reason.into(),
    })
}

// === parts ===

pub(super) fn node_id(bytes: &[u8; NodeId::LENGTH]) -> Result<NodeId> {
    NodeId::from_bytes(bytes).map_err(|_| Unreadable)
}

fn features(row: &mut &[u8]) -> Result<Features> {
    Features::from_bits(row.try_get_u32()?).ok_or(Unreadable)
}

/// The second 0 is that of an event that has not been.
fn put_time(row: &mut Vec<u8>, time: Moment) {
    row.put_u64(time.time().map_or(0, |time| time.0));
}

fn time(row: &mut &[u8]) -> Result<Moment> {
    let time = row.try_get_u64()?;
    Ok(match time {
        0 => Moment::NEVER,
        time => UnixSeconds(time).into(),
    })
}

/// All bounds on items are far below 255.
fn put_count(row: &mut Vec<u8>, count: usize) {
    row.put_u8(u8::try_from(count).unwrap_or(NONE));
}

fn count(row: &mut &[u8], most: usize) -> Result<usize> {
    let count = usize::from(row.try_get_u8()?);
    if count > most {
        Err(Unreadable)
    } else {
        Ok(count)
    }
}

fn position<T>(items: &[T], is_it: impl FnMut(&T) -> bool) -> u8 {
    let at = items.iter().position(is_it);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(NONE)
}

fn put_text(row: &mut Vec<u8>, text: &str) {
    put_bytes(row, text.as_bytes());
}

fn text<'a>(row: &mut &'a [u8], most: usize) -> Result<&'a str> {
    let text = std::str::from_utf8(slice(row)?).map_err(|_| Unreadable)?;
    Ok(truncate(text, most))
}

/// The bytes of a record have a bound far below 64 KiB.
fn put_bytes(row: &mut Vec<u8>, bytes: &[u8]) {
    row.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    row.put_slice(bytes);
}

fn slice<'a>(row: &mut &'a [u8]) -> Result<&'a [u8]> {
    let len = usize::from(row.try_get_u16()?);
    let (bytes, rest) = row.split_at_checked(len).ok_or(Unreadable)?;
    *row = rest;
    Ok(bytes)
}

fn take<const N: usize>(row: &mut &[u8]) -> Result<[u8; N]> {
    let (bytes, rest) = row.split_first_chunk().ok_or(Unreadable)?;
    *row = rest;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        address::DialTimes,
        test_util::{claim, public_key},
    };

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    /// A peer with two claims, an address of the operator, and dials that went well and badly.
    fn peer(seed: u64, source: NetGroup) -> PeerRecord {
        let signed = |addresses: &[&str], at| {
            let claim = claim(seed, addresses, Features::NODE, UnixSeconds(at));
            PeerRecord::from_claim(public_key(seed), Arc::new(claim), NOW)
        };
        let (old, new) = ("/ip4/1.2.3.4/tcp/5", "/dns4/a.example/tcp/80");
        let mut peer = signed(&[old], 7);
        let times = DialTimes {
            latency: Some(Duration::from_millis(12)),
            dial_time: Some(Duration::from_micros(1_234)),
        };
        peer.seen_at(&old.parse().unwrap(), NOW, times);
        peer.merge(&signed(&["/ip4/9.9.9.9/tcp/1", new], 8), NOW);
        peer.failed_at(&new.parse().unwrap(), NOW, "connection refused");
        let named = ["/memory/7".parse().unwrap()];
        let named = PeerRecord::seed(public_key(seed), Features::NODE, named, NOW);
        peer.merge(&named, NOW);
        peer.is_seed = false;
        peer.source = source;
        peer.deleted_at = NOW.into();
        peer.with_agent("dht/1", [Bytes::from_static(b"t/dht/1")])
    }

    fn encoded(peer: &PeerRecord) -> Vec<u8> {
        let mut row = Vec::new();
        encode_peer(peer, &mut row);
        row
    }

    #[test]
    fn peers_read_back_whole() {
        let groups = [
            NetGroup::Unknown,
            NetGroup::V4([1, 2]),
            NetGroup::V6([1, 2, 3, 4]),
            NetGroup::Name,
            NetGroup::Onion(7),
            NetGroup::Memory,
            NetGroup::OnionService,
        ];
        for (seed, source) in (1..).zip(groups) {
            let peer = peer(seed, source);
            assert_eq!(peer.addresses.len(), 4);
            let id = peer.node_id().as_bytes();
            assert_eq!(decode_peer(id, &encoded(&peer), true), Ok(peer.clone()));
            // A row under the id of another peer.
            assert_eq!(
                decode_peer(&[7; 13], &encoded(&peer), true),
                Err(Unreadable)
            );
        }
    }

    /// Rows of earlier versions name the channel of a claim, and who told of it.
    #[test]
    fn row_naming_a_channel_is_read() {
        let claim = Arc::new(claim(5, &["/ip4/1.2.3.4/tcp/5"], Features::NODE, NOW));
        let peer = PeerRecord::from_claim(public_key(5), claim, NOW);
        let mut row = encoded(&peer);
        // Before the address with its history.
        let channel = row.len() - 47;
        assert_eq!(row[channel], CHANNEL);
        row.splice(channel..=channel, [3; 1 + NodeId::LENGTH]);
        let id = peer.node_id().as_bytes();
        assert_eq!(decode_peer(id, &row, false), Ok(peer.clone()));
    }

    #[test]
    fn bans_read_back_whole() {
        for (public_key, rule) in [(Some(public_key(5)), rules().last()), (None, None)] {
            let ban = Ban {
                node_id: crate::test_util::public_key(5).node_id(),
                public_key: public_key.map(CompressedKey::from),
                until: NOW,
                severity: Severity::Medium,
                offence: rule.map(|rule| rule.offence),
                is_listed: false,
                reason: "talks nonsense".into(),
            };
            let mut row = Vec::new();
            encode_ban(&ban, &mut row);
            assert_eq!(decode_ban(ban.node_id.as_bytes(), &row), Ok(ban));
        }
    }

    proptest! {
        /// Cut short, or with a byte changed, a row is a peer or none.
        #[test]
        fn damaged_rows_never_panic(cut in 0_usize..700, at in 0_usize..700, byte: u8) {
            let peer = peer(1, NetGroup::V4([1, 2]));
            let mut row = encoded(&peer);
            if let Some(old) = row.get_mut(at) {
                *old = byte;
            }
            row.truncate(cut);
            if let Ok(read) = decode_peer(peer.node_id().as_bytes(), &row, true) {
                prop_assert!(read.addresses.len() <= MAX_ADDRESSES);
                prop_assert_eq!(read.public_key(), peer.public_key());
            }
            let _ = decode_ban(peer.node_id().as_bytes(), &row);
        }
    }
}
