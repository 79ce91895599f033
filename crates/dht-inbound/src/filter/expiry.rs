//! Drops expired messages: specification 03, section 3.4.

use std::fmt;

use dht_core::{Clock as _, DropReason, RawEnvelope, SharedClock};
use dht_stack::Check;

use crate::message::InboundEnvelope;

/// Drops messages whose expiry lies strictly in the past, in whole seconds; without a ban, because clocks differ.
///
/// Before the signature that covers the expiry is checked: all this can do with a forged one is drop.
///
/// Specification 03, section 3.4.
#[derive(Clone)]
pub struct Expiry {
    /// Clock of this node.
    pub clock: SharedClock,
}

impl Check<InboundEnvelope<RawEnvelope>> for Expiry {
    type Out = InboundEnvelope<RawEnvelope>;
    type Reject = DropReason;

    fn check(&self, message: Self::Out) -> Result<Self::Out, DropReason> {
        match message.envelope.header().map_or(0, |header| header.expires) {
            0 => Ok(message),
            expires if expires < self.clock.now().0 => Err(DropReason::Expired),
            _ => Ok(message),
        }
    }
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expiry")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dht_core::{Disposition, ManualClock, UnixSeconds};

    use super::*;
    use crate::test_support::{self as support, NOW};

    async fn pass(expires: Option<UnixSeconds>) -> Disposition {
        let clock = Arc::new(ManualClock::new(NOW));
        support::run_check(Expiry { clock }, support::raw_expiring(expires)).await
    }

    #[tokio::test]
    async fn b056_message_one_second_late_is_dropped() {
        let late = pass(Some(UnixSeconds(NOW.0 - 1))).await;
        assert_eq!(late, Disposition::Dropped(DropReason::Expired));
        assert_eq!(pass(None).await, Disposition::Delivered);
        assert_eq!(pass(Some(NOW)).await, Disposition::Delivered);
        assert_eq!(
            pass(Some(UnixSeconds(u64::MAX))).await,
            Disposition::Delivered
        );
    }
}
