//! Hands the application its messages: specification 03, section 3.13.

use dht_core::{Content, DropReason};
use dht_stack::Check;

use crate::message::{Delivered, OpenedMessage};

/// Turns readable application messages into [`Delivered`] for the application's service. No other message that gets
/// this far has a use on this node; it is dropped.
///
/// Back-pressure of the application is felt in the whole stack: a full channel holds a slot of the pipeline.
///
/// Specification 03, section 3.13.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deliver;

impl Check<OpenedMessage> for Deliver {
    type Out = Delivered;
    type Reject = DropReason;

    fn check(&self, message: OpenedMessage) -> Result<Delivered, DropReason> {
        let kind = message.opened.header.message_type;
        match message.opened.content {
            Content::Readable { parts, origin } if kind.is_domain() => Ok(Delivered {
                parts,
                origin,
                source: message.source,
                hash: message.hash,
                header: message.opened.header,
                frame: message.opened.frame,
                occurrences: message.occurrences,
                is_saf: message.is_saf,
                permit: message.permit,
            }),
            Content::Readable { .. } if kind.is_saf() => Err(DropReason::RoleFilter),
            Content::Readable { .. } => Err(DropReason::Rebroadcast),
            Content::Unreadable => Err(DropReason::NotForUs),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht_core::{
        Destination, Disposition, Encryption, MessageType, Signing, encode_parts,
        test_util::{clear, encrypted, identity, public_key},
    };

    use super::*;
    use crate::test_support as support;

    async fn ended(frame: Bytes) -> Disposition {
        support::run_check(Deliver, support::message(frame)).await
    }

    #[tokio::test]
    async fn only_readable_application_messages_are_delivered() {
        let from = identity(3);
        let readable = clear(&from, Signing::Anonymous, b"x", 1);
        assert_eq!(ended(readable).await, Disposition::Delivered);
        let theirs = encrypted(&from, &public_key(4), b"x", 1);
        assert_eq!(
            ended(theirs).await,
            Disposition::Dropped(DropReason::NotForUs)
        );

        let (to, encryption) = (Destination::Unknown, Encryption::Clear);
        for (kind, reason) in [
            (MessageType::SafRequestMessages, DropReason::RoleFilter),
            (MessageType::SafStoredMessages, DropReason::RoleFilter),
            (MessageType::Join, DropReason::Rebroadcast),
            (MessageType::Discovery, DropReason::Rebroadcast),
            (MessageType::DiscoveryResponse, DropReason::Rebroadcast),
        ] {
            let body = encode_parts(&[Bytes::from_static(b"x")]);
            let frame = support::frame(&from, kind, to, encryption, Signing::Origin, body);
            assert_eq!(ended(frame).await, Disposition::Dropped(reason));
        }
    }
}
