//! How much of an inbox each deliverer and each origin takes.
//!
//! A deliverer may hold as much as would still be free, an origin as much as its deliverer may still add. So one deliverer
//! gets half of an inbox, one origin a third, and ten deliverers leave an eleventh for those that have nothing in it. Keys
//! are free: a deliverer on a public address is counted by its source group, and the unproven origins of one deliverer
//! together count as one origin.
//!
//! Cost for a stranger to fill a share of others: nothing but messages, for the third that is left to strangers of one
//! honest holder; then a connection of its own to this node for each key, and each key gets a third of what the holder may
//! still add; a connection from another source group, for the share of another deliverer.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use dht_core::{Deliverer, PublicKey};

use super::row::NewRow;
use crate::{config::InboxConfig, error::SpoolError};

/// Rows, and the bytes of their payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// The parties whose rows are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Parties {
    pub(crate) deliverer: Deliverer,
    /// `None` stands for all anonymous senders.
    pub(crate) origin: Option<[u8; PublicKey::LENGTH]>,
    /// Whether the row is counted with those of other unproven origins of its deliverer, too.
    pub(crate) is_unproven: bool,
}

/// Usage of an inbox in all, by deliverer and by origin. Only parties that have a row are in the maps.
#[derive(Debug, Default)]
pub(super) struct Shares {
    total: Usage,
    deliverers: HashMap<Deliverer, Usage>,
    origins: HashMap<Option<[u8; PublicKey::LENGTH]>, Usage>,
    /// Rows of unproven origins, by deliverer.
    unproven: HashMap<Deliverer, Usage>,
}

// === impl Parties ===

impl Parties {
    pub(super) fn of(row: &NewRow) -> Self {
        Self {
            deliverer: row.deliverer,
            origin: row.origin.map(|key| *key.as_bytes()),
            is_unproven: !row.origin_is_proven,
        }
    }
}

// === impl Usage ===

impl Usage {
    pub(crate) const fn of_row(bytes: u64) -> Self {
        Self { rows: 1, bytes }
    }

    const fn add(&mut self, row: Self) {
        self.rows += row.rows;
        self.bytes += row.bytes;
    }

    /// Rest of this once `taken` is taken; `None` if that is more.
    fn less(self, taken: Self) -> Option<Self> {
        Some(Self {
            rows: self.rows.checked_sub(taken.rows)?,
            bytes: self.bytes.checked_sub(taken.bytes)?,
        })
    }
}

// === impl Shares ===

impl Shares {
    pub(super) const fn total(&self) -> Usage {
        self.total
    }

    /// Free room beside one more row; `None` if there is no room for it.
    pub(super) fn free(&self, config: &InboxConfig, row: Usage) -> Option<Usage> {
        let all = Usage {
            rows: config.max_rows,
            bytes: config.max_bytes,
        };
        all.less(self.total)?.less(row)
    }

    /// Whether a row of these parties may be inserted.
    pub(super) fn admit(
        &self,
        config: &InboxConfig,
        parties: &Parties,
        row: Usage,
    ) -> Result<(), SpoolError> {
        let free = self.free(config, row).ok_or(SpoolError::Full)?;
        let of_deliverer = held(&self.deliverers, &parties.deliverer);
        let of_origin = held(&self.origins, &parties.origin);
        let of_strangers = match parties.is_unproven {
            true => held(&self.unproven, &parties.deliverer),
            false => Usage::default(),
        };
        let may_add = free.less(of_deliverer).ok_or(SpoolError::ShareFull)?;
        let is_within = |held| may_add.less(held).is_some();
        if is_within(of_origin) && is_within(of_strangers) {
            Ok(())
        } else {
            Err(SpoolError::ShareFull)
        }
    }

    pub(super) fn add(&mut self, parties: &Parties, row: Usage) {
        let deliverer = self.deliverers.entry(parties.deliverer).or_default();
        let origin = self.origins.entry(parties.origin).or_default();
        for usage in [&mut self.total, deliverer, origin] {
            usage.add(row);
        }
        if parties.is_unproven {
            self.unproven.entry(parties.deliverer).or_default().add(row);
        }
    }

    pub(super) fn remove(&mut self, parties: &Parties, row: Usage) {
        self.total = self.total.less(row).unwrap_or_default();
        release(&mut self.deliverers, parties.deliverer, row);
        release(&mut self.origins, parties.origin, row);
        if parties.is_unproven {
            release(&mut self.unproven, parties.deliverer, row);
        }
    }
}

fn held<K: Hash + Eq>(parties: &HashMap<K, Usage>, key: &K) -> Usage {
    parties.get(key).copied().unwrap_or_default()
}

fn release<K: Hash + Eq>(parties: &mut HashMap<K, Usage>, key: K, row: Usage) {
    if let Entry::Occupied(mut held) = parties.entry(key) {
        match held.get().less(row) {
            Some(left) if left.rows > 0 => *held.get_mut() = left,
            _ => {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Usage = Usage::of_row(1000);

    fn config(rows: u64) -> InboxConfig {
        InboxConfig {
            max_rows: rows,
            ..InboxConfig::default()
        }
    }

    fn parties(deliverer: u8, origin: u64) -> Parties {
        let mut key = [0; PublicKey::LENGTH];
        key[..8].copy_from_slice(&origin.to_be_bytes());
        Parties {
            deliverer: Deliverer::from_bytes([deliverer; 32]),
            origin: Some(key),
            is_unproven: false,
        }
    }

    fn unproven(deliverer: u8, origin: u64) -> Parties {
        Parties {
            is_unproven: true,
            ..parties(deliverer, origin)
        }
    }

    /// Adds rows until one is refused; how many.
    fn fill(shares: &mut Shares, config: &InboxConfig, parties: impl Fn(u64) -> Parties) -> u64 {
        (0..)
            .take_while(|n| {
                let parties = parties(*n);
                let may = shares.admit(config, &parties, ROW).is_ok();
                if may {
                    shares.add(&parties, ROW);
                }
                may
            })
            .count() as u64
    }

    #[test]
    fn each_deliverer_leaves_as_much() {
        let (mut shares, config) = (Shares::default(), config(999));
        // However many keys send through it.
        assert_eq!(fill(&mut shares, &config, |n| parties(1, n)), 500);
        assert_eq!(fill(&mut shares, &config, |n| parties(2, 1000 + n)), 250);
        let refused = shares.admit(&config, &parties(1, 5000), ROW);
        assert_eq!(refused, Err(SpoolError::ShareFull));
        assert_eq!(fill(&mut shares, &config, |n| parties(3, 2000 + n)), 125);
    }

    #[test]
    fn one_origin_leaves_room_for_others() {
        let (mut shares, config) = (Shares::default(), config(300));
        assert_eq!(fill(&mut shares, &config, |_| parties(1, 1)), 100);
        assert_eq!(fill(&mut shares, &config, |n| parties(1, 2 + n)), 50);
    }

    /// Keys are free: however many strangers write through an honest holder, its share has room for the origins that this
    /// node has met, and other holders have room for strangers.
    #[test]
    fn strangers_leave_room_for_proven() {
        let (mut shares, config) = (Shares::default(), config(300));
        assert_eq!(fill(&mut shares, &config, |n| unproven(1, n)), 100);
        let refused = shares.admit(&config, &unproven(1, 5000), ROW);
        assert_eq!(refused, Err(SpoolError::ShareFull));
        assert_eq!(fill(&mut shares, &config, |_| parties(1, 1000)), 34);
        assert_eq!(fill(&mut shares, &config, |n| parties(1, 2000 + n)), 16);
        assert_eq!(fill(&mut shares, &config, |n| unproven(2, 3000 + n)), 50);
        assert_eq!(fill(&mut shares, &config, |n| parties(2, 4000 + n)), 25);
        for n in 0..100 {
            shares.remove(&unproven(1, n), ROW);
        }
        assert!(shares.admit(&config, &unproven(1, 0), ROW).is_ok());
        assert_eq!(shares.unproven.len(), 1, "of one deliverer");
    }

    #[test]
    fn the_last_row_is_full() {
        let (mut shares, config) = (Shares::default(), config(3));
        for n in 0..3 {
            let each = parties(n, n.into());
            assert_eq!(shares.admit(&config, &each, ROW), Ok(()));
            shares.add(&each, ROW);
        }
        let refused = shares.admit(&config, &parties(4, 4), ROW);
        assert_eq!(refused, Err(SpoolError::Full));
    }

    #[test]
    fn bytes_are_shared_as_rows_are() {
        let (mut shares, mut config) = (Shares::default(), config(u64::MAX));
        config.max_bytes = 300 * 1000;
        assert_eq!(fill(&mut shares, &config, |_| parties(1, 1)), 100);
    }

    #[test]
    fn parties_without_rows_are_forgotten() {
        let (mut shares, config) = (Shares::default(), config(300));
        for _ in 0..2 {
            assert_eq!(fill(&mut shares, &config, |n| parties(1, n)), 150);
            for n in 0..150 {
                shares.remove(&parties(1, n), ROW);
            }
        }
        assert_eq!(shares.total(), Usage::default());
        assert!(shares.deliverers.is_empty() && shares.origins.is_empty());
    }
}
