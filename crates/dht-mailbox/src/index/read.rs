//! Reading the index: the rows as of the last commit.

use super::{Change, Index, Row, whole};
use crate::{
    log::{Meta, Place},
    query::{Order, Query},
    record::{Position, Recipient, RowId},
    stats::{Account, RowInfo},
};

/// Rows that answer a query.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) rows: Vec<(Position, Place)>,
    /// Whether a limit left rows out.
    pub(crate) more: bool,
}

impl Index {
    /// Rows of a mailbox from `first` to `last` that are served at `query.now`, within the limits of the query; with
    /// `at_least_one` the first row however large it is.
    pub(crate) fn select(
        &self,
        query: &Query,
        first: Position,
        last: Position,
        at_least_one: bool,
    ) -> Selection {
        let mut selection = Selection::default();
        let Some(mailbox) = self
            .usage
            .mailbox_number(query.recipient)
            .filter(|_| first <= last)
        else {
            return selection;
        };
        let mut range = self.order.range((mailbox, first)..=(mailbox, last));
        let mut bytes = 0_usize;
        loop {
            let next = match query.order {
                Order::OldestFirst => range.next(),
                Order::NewestFirst => range.next_back(),
            };
            let Some(((_, position), _)) = next else {
                return selection;
            };
            let Some(row) = self.visible_row(position.id) else {
                continue;
            };
            if row.keep_until < query.now {
                continue;
            }
            bytes = bytes.saturating_add(row.place.length as usize);
            let fits = bytes <= query.max_bytes || (at_least_one && selection.rows.is_empty());
            if selection.rows.len() >= query.limit || !fits {
                selection.more = true;
                return selection;
            }
            selection.rows.push((*position, row.place));
        }
    }

    /// The oldest rows of a mailbox.
    pub(crate) fn list(&self, recipient: Recipient, limit: usize) -> Vec<RowInfo> {
        let Some(mailbox) = self.usage.mailbox_number(recipient) else {
            return Vec::new();
        };
        let rows = self
            .order
            .range(whole(mailbox))
            .filter_map(|((_, position), _)| {
                let row = self.visible_row(position.id)?;
                Some(RowInfo {
                    position: *position,
                    keep_until: row.keep_until,
                    retention: row.retention,
                    bytes: row.place.length.into(),
                })
            });
        rows.take(limit).collect()
    }

    /// Mailboxes behind `after` that have rows, in the order of their keys.
    pub(crate) fn mailboxes(
        &self,
        after: Option<Recipient>,
        limit: usize,
    ) -> Vec<(Recipient, Account)> {
        let accounts = self
            .usage
            .mailboxes_after(after)
            .map(|(recipient, mailbox)| {
                let mut account = Account::default();
                for ((_, position), _) in self.order.range(whole(mailbox)) {
                    if let Some(row) = self.visible_row(position.id) {
                        account.add(Change::new(row.retention, row.place.length));
                    }
                }
                (recipient, account)
            });
        accounts
            .filter(|(_, account)| account.rows > 0)
            .take(limit)
            .collect()
    }

    /// Notes that a row's bytes do not check; whether that is new.
    pub(crate) fn note_damage(&mut self, id: RowId) -> bool {
        self.rows
            .get_mut(&id)
            .is_some_and(|row| !std::mem::replace(&mut row.damaged, true))
    }

    /// Up to `limit` visible rows from `from` on, in the order of their numbers, and the number of the next one.
    pub(crate) fn rows_from(
        &self,
        from: RowId,
        limit: usize,
    ) -> (Vec<(RowId, Meta, Place)>, Option<RowId>) {
        self.scan(from, limit, |id, row| {
            Some((id, self.meta(row)?, row.place))
        })
    }

    /// As [`Index::rows_from`], without what the rows are.
    pub(crate) fn places_from(
        &self,
        from: RowId,
        limit: usize,
    ) -> (Vec<(RowId, Place)>, Option<RowId>) {
        self.scan(from, limit, |id, row| Some((id, row.place)))
    }

    fn scan<T>(
        &self,
        from: RowId,
        limit: usize,
        pick: impl Fn(RowId, &Row) -> Option<T>,
    ) -> (Vec<T>, Option<RowId>) {
        let mut range = self.rows.range(from..RowId(self.visible.max(from.0)));
        let rows = range.by_ref().take(limit);
        let rows = rows.filter_map(|(id, row)| pick(*id, row)).collect();
        (rows, range.next().map(|(id, _)| *id))
    }

    fn visible_row(&self, id: RowId) -> Option<&Row> {
        self.rows.get(&id).filter(|_| id.0 < self.visible)
    }
}
