//! Content of the spool for a message that is to be sent.

use dht_core::Message;
use dht_spool::{Entry, EntryContent, EntryId, Outbox, SpoolError};

use super::{delivery::DeliveryStatus, sealed::SealedFrame};

/// Parts of a message that are read before it is sent.
#[derive(Debug)]
pub(super) enum Stored {
    Frame(SealedFrame),
    /// Neither a frame that can be sent nor a payload.
    Nothing,
    /// The message has ended: a listing from before that has brought it back.
    Ended(DeliveryStatus),
}

impl Stored {
    /// Reads the frame. A message of which only the payload can be read, as an older version keeps both, is sealed again, and
    /// kept so before it is sent. Blocks.
    pub(super) fn read(
        spool: &Outbox,
        id: EntryId,
        seal: impl FnOnce(&Entry, Message) -> Option<SealedFrame>,
    ) -> Result<Self, SpoolError> {
        if let Some(EntryContent::Frame(frame)) = spool.content(id)?
            && let Some(sealed) = SealedFrame::read(frame)
        {
            return Ok(Self::Frame(sealed));
        }
        let entry = spool.get(id)?.ok_or(SpoolError::UnknownId)?;
        if entry.ended_at.is_some() {
            return Ok(Self::Ended(DeliveryStatus::ended(entry.state)));
        }
        let Some(payload) = spool.payload(id)? else {
            return Ok(Self::Nothing);
        };
        let message = Message {
            message_type: entry.message_type,
            payload,
        };
        // One that cannot be sealed was refused when it was put.
        let Some(sealed) = seal(&entry, message) else {
            return Ok(Self::Nothing);
        };
        spool.set_frame(id, sealed.frame.clone()).wait()?;
        tracing::warn!(id, "a message whose frame cannot be read was sealed again");
        Ok(Self::Frame(sealed))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_core::test_util::{NOW, public_key};
    use dht_spool::{EntryOptions, NewEntry, OutboxConfig, SendState, Transition};

    use super::*;

    #[tokio::test]
    async fn ended_message_is_not_damaged() {
        let spool = Outbox::in_memory(OutboxConfig::default());
        let recipient = public_key(1);
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
        let read = |id| Stored::read(&spool, id, |_, _| None);
        assert!(matches!(read(id), Ok(Stored::Nothing)));
        spool.update(id, Transition::Received, NOW).await.unwrap();
        let stored = read(id);
        let received = DeliveryStatus::ended(SendState::Received);
        assert!(matches!(stored, Ok(Stored::Ended(state)) if state == received));
        let unknown = read(id + 1);
        assert!(matches!(unknown, Err(SpoolError::UnknownId)));
    }
}
