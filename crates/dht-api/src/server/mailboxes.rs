//! A store of messages for offline peers as the API shows it.

use dht_core::{PublicKey, UnixSeconds};
use dht_mailbox::{Recipient, Retention, Store, StoreError};

use crate::types::{
    Mailbox, MailboxList, Purge, Purged, StoreUsage, StoredMessage, StoredMessages, Version,
};

/// Mailboxes to delete between two looks at what is left.
const PURGED_AT_ONCE: usize = 256;

/// Shows and purges the messages that a node stores for offline peers, with the JSON types of the API: also those of a
/// node that does not run.
#[derive(Clone, Copy, Debug)]
pub struct Mailboxes<'a>(&'a Store);

impl<'a> Mailboxes<'a> {
    /// The mailboxes of a store.
    #[must_use]
    pub const fn new(store: &'a Store) -> Self {
        Self(store)
    }

    /// Sizes of the store.
    #[must_use]
    pub fn usage(self) -> StoreUsage {
        let stats = self.0.stats();
        StoreUsage {
            messages: stats.rows,
            bytes: stats.bytes,
            low_priority: stats.low_rows,
            mailboxes: stats.mailboxes,
            disk_bytes: stats.disk_bytes,
            damaged: stats.damaged,
        }
    }

    /// The first `limit` mailboxes.
    ///
    /// # Errors
    /// [`StoreError`] if the store is closed or its writer has ended.
    pub fn list(self, limit: usize) -> Result<MailboxList, StoreError> {
        let mut mailboxes = Vec::new();
        for (recipient, account) in self.0.mailboxes(None, limit)? {
            let rows = usize::try_from(account.rows).unwrap_or(usize::MAX);
            let rows = self.0.list(recipient, rows)?;
            mailboxes.push(Mailbox {
                recipient: (recipient != Recipient::ANONYMOUS).then(|| recipient.to_string()),
                messages: account.rows,
                bytes: account.bytes,
                low_priority: account.low_rows,
                oldest_at: rows.first().map(|row| row.position.stored_at.0),
                newest_at: rows.last().map(|row| row.position.stored_at.0),
            });
        }
        Ok(MailboxList {
            version: Version,
            mailboxes,
        })
    }

    /// The `limit` oldest messages of one mailbox.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn messages(
        self,
        recipient: &PublicKey,
        limit: usize,
    ) -> Result<StoredMessages, StoreError> {
        let rows = self.0.list(recipient.into(), limit)?.into_iter();
        Ok(StoredMessages {
            version: Version,
            messages: rows
                .map(|row| StoredMessage {
                    id: row.position.id.0,
                    stored_at: row.position.stored_at.0,
                    keep_until: row.keep_until.0,
                    low_priority: matches!(row.retention, Retention::Low),
                    bytes: row.bytes,
                })
                .collect(),
        })
    }

    /// Deletes messages; they are deleted for good once this returns.
    ///
    /// # Errors
    /// [`StoreError`] of the device; some messages may have been deleted.
    pub async fn purge(self, what: &Purge, now: UnixSeconds) -> Result<Purged, StoreError> {
        let mut purged = 0_u64;
        if what.expired {
            purged += self.0.expire(now).await?;
        }
        if let Some(recipient) = &what.recipient {
            purged += self.0.purge(recipient.into()).await?;
        }
        if what.all {
            purged += self.purge_all().await?;
        }
        self.0.checkpoint().await?;
        Ok(Purged {
            version: Version,
            purged,
        })
    }

    async fn purge_all(self) -> Result<u64, StoreError> {
        let mut purged = 0_u64;
        loop {
            let mailboxes = self.0.mailboxes(None, PURGED_AT_ONCE)?;
            if mailboxes.is_empty() {
                return Ok(purged);
            }
            for (recipient, _) in mailboxes {
                purged += self.0.purge(recipient).await?;
            }
        }
    }
}
