//! Content of the spool for a message that is to be sent.

use dht_spool::{EntryContent, EntryId, Outbox, SpoolError};

use super::{delivery::DeliveryStatus, sealed::SealedFrame};

/// Parts of a message that are read before it is sent.
#[derive(Debug)]
pub(super) enum Stored {
    Frame(SealedFrame),
    /// No frame that can be sent.
    Nothing,
    /// The message has ended: a listing from before that has brought it back.
    Ended(DeliveryStatus),
}

impl Stored {
    /// Blocks.
    pub(super) fn read(spool: &Outbox, id: EntryId) -> Result<Self, SpoolError> {
        if let Some(EntryContent::Frame(frame)) = spool.content(id)?
            && let Some(sealed) = SealedFrame::read(frame)
        {
            return Ok(Self::Frame(sealed));
        }
        let entry = spool.get(id)?.ok_or(SpoolError::UnknownId)?;
        Ok(match entry.ended_at {
            Some(_) => Self::Ended(DeliveryStatus::ended(entry.state)),
            None => Self::Nothing,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_core::{Entropy as _, SecretKey, SeededEntropy, test_util::NOW};
    use dht_spool::{EntryOptions, NewEntry, OutboxConfig, SendState, Transition};

    use super::*;

    #[tokio::test]
    async fn ended_message_is_not_damaged() {
        let spool = Outbox::in_memory(OutboxConfig::default());
        let recipient = SecretKey::random(&mut SeededEntropy::new(1).rng()).public_key();
        let put = spool.put(NewEntry {
            key: None,
            recipient,
            message_type: 7,
            payload: Bytes::new(),
            options: EntryOptions::default(),
            created_at: NOW,
            frame: None,
        });
        let id = put.await.unwrap().id();
        assert!(matches!(Stored::read(&spool, id), Ok(Stored::Nothing)));
        spool.update(id, Transition::Received, NOW).await.unwrap();
        let stored = Stored::read(&spool, id);
        let received = DeliveryStatus::ended(SendState::Received);
        assert!(matches!(stored, Ok(Stored::Ended(state)) if state == received));
        let unknown = Stored::read(&spool, id + 1);
        assert!(matches!(unknown, Err(SpoolError::UnknownId)));
    }
}
