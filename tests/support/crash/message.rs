//! Messages derived from their number, so that a check of the store knows the content of each.

use bytes::Bytes;
use dht_core::{DedupHash, Deliverer, UnixSeconds};
use dht_mailbox::{NewRecord, Recipient, Retention};

/// Mailboxes the messages are spread over.
pub(super) const MAILBOXES: u64 = 16;
/// Numbers from here on are of the base: rows that are there from the start and stay.
pub(super) const BASE: u64 = 1 << 63;
/// Messages of one second of the simulated clock.
pub(super) const PER_SECOND: u64 = 100;

const START: UnixSeconds = UnixSeconds(1_700_000_000);

/// A message as its number determines it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Recipient in whose mailbox it is stored.
    pub recipient: Recipient,
    /// When it is inserted.
    pub now: UnixSeconds,
    /// The sender's own time limit.
    pub expires: Option<UnixSeconds>,
    /// Retention class of the message.
    pub retention: Retention,
    /// Bytes of the body.
    pub size: usize,
}

/// The message that `number` determines.
#[must_use]
pub fn plan(number: u64) -> Plan {
    let index = number % BASE;
    let mut key = [1; 32];
    put(&mut key, index % MAILBOXES);
    let scattered = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let (now, most, short) = if number >= BASE {
        (START, 1_200, false)
    } else {
        let now = START.saturating_add(3_600 + index / PER_SECOND);
        (now, 5_000, index.is_multiple_of(4))
    };
    Plan {
        recipient: Recipient::from_bytes(key),
        now,
        expires: short.then(|| now.saturating_add(5 + scattered % 20)),
        retention: if index.is_multiple_of(3) {
            Retention::Low
        } else {
            Retention::High
        },
        size: 1 + usize::try_from(scattered % most).unwrap_or(0),
    }
}

/// The message with this number.
#[must_use]
pub fn message(number: u64) -> NewRecord {
    let plan = plan(number);
    let mut hash = [2; 32];
    put(&mut hash, number);
    let mut deliverer = [3; 32];
    put(&mut deliverer, number % 5);
    NewRecord {
        recipient: plan.recipient,
        deliverer: Deliverer::from_bytes(deliverer),
        hash: DedupHash(hash),
        retention: plan.retention,
        expires: plan.expires,
        header: Bytes::copy_from_slice(&number.to_be_bytes()),
        body: number
            .to_be_bytes()
            .iter()
            .copied()
            .cycle()
            .take(plan.size)
            .collect(),
    }
}

/// The mailboxes that [`message`] knows.
pub(super) fn mailboxes() -> impl Iterator<Item = Recipient> {
    (0..MAILBOXES).map(|n| plan(n).recipient)
}

fn put(target: &mut [u8; 32], number: u64) {
    for (to, from) in target.iter_mut().zip(number.to_be_bytes()) {
        *to = from;
    }
}
