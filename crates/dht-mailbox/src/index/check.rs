//! Comparing every order of the index with every other; for tests and for a doctor.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Index, SegmentUse, prefix};
use crate::{log::Place, record::RowId, stats::Account};

/// Rows of an index, and disagreements between its orders.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// The rows that readers see.
    pub(crate) visible: Vec<(RowId, Place)>,
    pub(crate) faults: Vec<String>,
}

impl Index {
    /// Compares everything with everything.
    pub(crate) fn check(&self) -> Check {
        let mut check = Check::default();
        let mut hashes = BTreeSet::new();
        let mut recipients = BTreeMap::<_, Account>::new();
        let mut deliverers = BTreeMap::<_, Account>::new();
        let mut segments = BTreeMap::<u32, SegmentUse>::new();
        let mut owned = Vec::new();
        let (mut kept, mut total) = (0_usize, Account::default());
        for (id, row) in &self.rows {
            if id.0 < self.visible {
                check.visible.push((*id, row.place));
            }
            segments
                .entry(row.place.segment)
                .or_default()
                .enter(row.place);
            let gone = self.order.get(&row.key(*id));
            if gone.is_some_and(|gone| *gone) {
                // Staged to go: out of all other orders.
                continue;
            }
            kept = kept.saturating_add(1);
            let in_expiry = self.expiry.contains(&(row.keep_until, *id));
            let by_hash = self.hashes.contains(&(prefix(&row.hash), *id));
            let of_class = self.parts.get(row.retention as usize);
            let in_part = of_class.is_some_and(|rows| rows.contains(&row.in_part(*id)));
            if gone.is_none() || !in_part || !in_expiry || !by_hash || !hashes.insert(row.hash.0) {
                check.faults.push(format!(
                    "row {}: in a mailbox {}, in its part {in_part}, in the expiry {in_expiry}, by hash {by_hash}, \
                     or stored twice",
                    id.0,
                    gone.is_some()
                ));
            }
            let Some(meta) = self.meta(row) else {
                check
                    .faults
                    .push(format!("row {}: its owners are not known", id.0));
                continue;
            };
            let change = Change::new(row.retention, row.place.length);
            owned.push((row.owners, change));
            for account in [
                recipients.entry(meta.recipient).or_default(),
                deliverers.entry(meta.deliverer).or_default(),
                &mut total,
            ] {
                account.add(change);
            }
        }
        for (name, count, expected) in [
            ("mailboxes", self.order.len(), self.rows.len()),
            (
                "the parts",
                self.parts.iter().map(BTreeSet::len).sum(),
                kept,
            ),
            ("the expiry", self.expiry.len(), kept),
            ("the hashes", self.hashes.len(), kept),
        ] {
            if count != expected {
                check
                    .faults
                    .push(format!("{count} entries in {name}, {expected} rows"));
            }
        }
        let agree = recipients
            .iter()
            .all(|(key, account)| self.usage.mailbox(*key) == *account)
            && deliverers
                .iter()
                .all(|(key, account)| self.usage.deliverer(*key) == *account)
            && self.usage.mailboxes() == recipients.len()
            && self.usage.total() == total
            && self.usage.is_ranked(owned.into_iter());
        if !agree {
            check.faults.push("the accounts do not add up".into());
        }
        let used = self
            .segments
            .iter()
            .filter(|(_, used)| **used != SegmentUse::default());
        if !used.eq(segments.iter()) {
            check
                .faults
                .push("the use of segments does not add up".into());
        }
        check
    }
}
