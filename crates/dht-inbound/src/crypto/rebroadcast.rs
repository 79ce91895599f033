//! Keeps repeats from going round: specification 03, section 3.7.

use dht_core::DropReason;
use dht_stack::Check;

use crate::message::OpenedMessage;

/// Drops repeats, except undirected application messages, which the application may want to pass on again.
///
/// Repeats get here only where more than one occurrence is allowed.
///
/// Specification 03, section 3.7.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rebroadcast;

impl Check<OpenedMessage> for Rebroadcast {
    type Out = OpenedMessage;
    type Reject = DropReason;

    fn check(&self, message: OpenedMessage) -> Result<OpenedMessage, DropReason> {
        if message.is_repeat() && !message.is_undirected() {
            return Err(DropReason::Rebroadcast);
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{
        Destination, Disposition, Encryption, Signing,
        test_util::{clear, encrypted, frame, identity, public_key},
    };

    use super::*;
    use crate::test_support as support;

    #[tokio::test]
    async fn only_undirected_repeats_pass() {
        let sender = identity(1);
        let directed = Destination::PublicKey(public_key(2));
        let cases = [
            (clear(&sender, Signing::Origin, b"x", 1), true),
            (clear(&sender, Signing::Anonymous, b"x", 1), true),
            (
                frame(
                    &sender,
                    directed,
                    Encryption::Clear,
                    Signing::Origin,
                    b"x",
                    1,
                ),
                false,
            ),
            (encrypted(&sender, &public_key(2), b"x", 1), false),
        ];
        for (frame, may_repeat) in cases {
            for (occurrences, passes) in [(0, true), (1, true), (2, may_repeat), (3, may_repeat)] {
                let message = OpenedMessage {
                    occurrences,
                    ..support::message(frame.clone())
                };
                let expected = match passes {
                    true => Disposition::Delivered,
                    false => Disposition::Dropped(DropReason::Rebroadcast),
                };
                assert_eq!(support::run_check(Rebroadcast, message).await, expected);
            }
        }
    }
}
