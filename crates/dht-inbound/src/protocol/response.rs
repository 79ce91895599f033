//! A peer this node looked for has answered.

use std::sync::Arc;

use dht_core::{Disposition, DropReason, PublicKey};
use dht_peers::policy::{AttributionProfile, Offence};
use dht_proto::dht::DiscoveryResponseMessage;

use super::{dht::Protocol, hook::DiscoveryAnswer};
use crate::{message::OpenedMessage, sent::count_sent};

impl Protocol {
    pub(super) fn inspect_response(
        &self,
        message: &OpenedMessage,
        origin: &PublicKey,
    ) -> Result<Disposition, DropReason> {
        const BAD: Disposition = Disposition::Dropped(DropReason::BadProtocolMessage);
        let delivered_itself = *origin == message.source.public_key;
        // Strict: before decoding, so that a replayed response cannot get its signer banned for anything (03 F-11).
        if !delivered_itself && self.bans.profile() == AttributionProfile::Strict {
            self.blame(Offence::ResponseOfOther, message);
            return Ok(BAD);
        }
        let Some(response) = self.decode::<DiscoveryResponseMessage>(message) else {
            return Ok(BAD);
        };
        if !delivered_itself {
            self.blame(Offence::ResponseOfOther, message);
            return Ok(BAD);
        }
        if response.public_key != origin.as_bytes()[..] {
            self.blame(Offence::ResponseForOther, message);
            return Ok(BAD);
        }
        let answer = DiscoveryAnswer {
            responder: *origin,
            source: Arc::clone(&message.source),
            message: response,
        };
        Ok(
            match count_sent("discovery_answer", self.discovery.on_response(answer))? {
                true => Disposition::Answered,
                false => Disposition::Dropped(DropReason::Overload),
            },
        )
    }
}
