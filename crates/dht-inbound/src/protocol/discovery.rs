//! A peer is looked for, and it is this node.

use std::ops::ControlFlow;

use dht_core::{Clock as _, Disposition, DropReason, PublicKey, SendRequest};
use dht_peers::ValidClaims;
use dht_peers::policy::{AttributionProfile, Offence};
use dht_proto::dht::DiscoveryMessage;
use tracing::debug;

use super::{
    claim::convert_claim,
    dht::{BAD, Inspected, Kind, Protocol, Subject},
};
use crate::{filter::Bucket, message::OpenedMessage, metrics, sent::count_sent};

impl Protocol {
    pub(super) fn inspect_discovery(
        &self,
        message: &OpenedMessage,
        origin: &PublicKey,
    ) -> Inspected {
        // Honest ones are encrypted for whom they seek. A clear one would have everybody it reaches contact its signer;
        // no reason to blame anybody, as the legacy profile answers it (specification 06, section 14, N9).
        let is_clear = !message.opened.header.is_encrypted();
        if is_clear && self.bans.profile() == AttributionProfile::Strict {
            return BAD;
        }
        let Some(discovery) = self.decode::<DiscoveryMessage>(message) else {
            return BAD;
        };
        let Ok(key) = PublicKey::from_bytes(&discovery.public_key) else {
            self.blame(Offence::DiscoveryUnconvertible, message);
            return BAD;
        };
        // Otherwise anybody could have us contact anybody else (03 F-10). Never answered, in either profile.
        if key != *origin {
            self.blame(Offence::DiscoveryForOther, message);
            return BAD;
        }
        match convert_claim(&discovery) {
            Ok(claim) => {
                let kind = Kind::Discovery {
                    nonce: discovery.nonce,
                };
                ControlFlow::Continue((Subject { key, kind }, claim))
            }
            Err(cause) => {
                debug!(%cause, "discovery does not convert");
                self.blame(Offence::DiscoveryUnconvertible, message);
                BAD
            }
        }
    }
}

impl Protocol {
    /// Keeps the peer and answers it, if it is connected or its deliverer may have this node dial it.
    pub(super) fn discovered(
        &self,
        message: &OpenedMessage,
        claims: &ValidClaims,
        nonce: u64,
    ) -> Result<Disposition, DropReason> {
        let now = self.clock.now();
        let record = claims.to_record(now);
        let asker = *record.node_id();
        self.directory.hear(record, &message.source.node_id, now);
        if self.directory.is_banned(&asker, now) {
            return Ok(Disposition::Dropped(DropReason::Banned));
        }
        let is_connected = self.directory.connections().contains(&asker);
        if !is_connected
            && !self
                .limiter
                .try_take(&message.source, Bucket::DiscoveryDial, now)
        {
            metrics::rate_limited(Bucket::DiscoveryDial.name());
            return Ok(Disposition::Dropped(DropReason::Overload));
        }
        let to = *claims.public_key();
        let reply =
            SendRequest::discovery_response(&self.identity, to, nonce, (&*message.source).into());
        Ok(
            match count_sent("discovery_response", self.send_queue.try_send(reply))? {
                true => Disposition::Answered,
                false => Disposition::Dropped(DropReason::Overload),
            },
        )
    }
}
