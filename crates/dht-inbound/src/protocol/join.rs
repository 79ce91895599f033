//! A peer announces itself.

use std::ops::ControlFlow;

use dht_core::{
    Clock as _, Destination, Disposition, DropReason, PublicKey, SendRequest, Strategy,
};
use dht_peers::ValidClaims;
use dht_peers::policy::{AttributionProfile, Offence};
use dht_proto::dht::JoinMessage;
use tracing::debug;

use super::{
    claim::convert_claim,
    dht::{BAD, Inspected, Kind, Protocol, Subject},
};
use crate::{message::OpenedMessage, sent::count_sent};

impl Protocol {
    pub(super) fn inspect_join(&self, message: &OpenedMessage, origin: &PublicKey) -> Inspected {
        // Honest joins are addressed to their signer. In the strict profile nothing else is even looked at; the
        // legacy one acts on such a join, bans included (03 F-9).
        let to_itself = message.opened.header.destination == Destination::PublicKey(*origin);
        if !to_itself && self.bans.profile() == AttributionProfile::Strict {
            return BAD;
        }
        let Some(join) = self.decode::<JoinMessage>(message) else {
            return BAD;
        };
        if join.public_key != origin.as_bytes()[..] {
            self.blame(Offence::JoinForOther, message);
            return BAD;
        }
        match convert_claim(&join) {
            Ok(claim) => ControlFlow::Continue((
                Subject {
                    key: *origin,
                    kind: Kind::Join,
                },
                claim,
            )),
            Err(cause) => {
                debug!(%cause, "join does not convert");
                BAD
            }
        }
    }
}

impl Protocol {
    /// Keeps the peer and passes the join on, towards the joiner's neighbourhood.
    pub(super) fn joined(
        &self,
        message: &OpenedMessage,
        claims: &ValidClaims,
    ) -> Result<Disposition, DropReason> {
        let now = self.clock.now();
        let record = claims.to_record(now);
        let joiner = *record.node_id();
        debug!(peer = %joiner, "join");
        // Also of a banned peer: the ban stays, the addresses are fresh when it ends.
        self.directory.hear(record, &message.source.node_id, now);
        if self.directory.is_banned(&joiner, now) {
            return Ok(Disposition::Dropped(DropReason::Banned));
        }
        let header = &message.opened.header;
        let for_us = header.destination.public_key() == Some(self.identity.public_key());
        if message.is_saf || for_us {
            return Ok(Disposition::Answered);
        }
        let strategy = Strategy::Propagate {
            destination: Destination::PublicKey(*claims.public_key()),
            exclude: vec![joiner, message.source.node_id],
        };
        // The bytes as received: re-encoded ones would no longer carry the signature (03 F-9).
        let frame = message.opened.frame.clone();
        let request = SendRequest::forward(frame, strategy, header.tag, (&*message.source).into());
        count_sent("join", self.send_queue.try_send(request))?;
        Ok(Disposition::Answered)
    }
}
