//! Takes a response: 05 section 8.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Clock as _, DedupHash, Disposition, DropReason, InTransit, RemotePeer, UnixSeconds,
};
use dht_dedup::DedupMeta;
use dht_peers::policy::{Offence, Parties};
use dht_proto::{DecodeError, store_forward::StoredMessagesResponse};
use dht_stack::BoxError;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tower_service::Service;

use super::{
    check::{CheckContext, ValidMessage, check},
    fetcher::Fetcher,
    outcome::{PageSummary, ResponseOutcome, decide},
    tracker::{PageCounts, Unrequested},
};
use crate::{blocking::blocking, metrics, receipt::Receipt};

/// Messages checked before other tasks run: each takes two public-key operations.
const CHECKED_AT_ONCE: usize = 4;

impl Fetcher {
    /// Takes a response apart, and passes its valid and new messages to `inner`.
    pub(crate) async fn receive<M, S>(self: Arc<Self>, mut response: M, inner: S) -> Disposition
    where
        M: InTransit,
        S: Service<M, Response = Disposition, Error: Into<BoxError>>,
    {
        let responder = Arc::clone(response.source());
        let page = match self.decode(&responder, response.opened().parts()) {
            Ok(page) => page,
            Err(disposition) => return disposition,
        };
        let summary = PageSummary::of(&page.messages);
        self.tracker.lock().delivering(&responder.node_id);
        let newest = self.newest(&page);
        let outcome = self.check(page).await;
        if let Some(offence) = outcome.offence {
            let deliverer = Parties::deliverer(responder.public_key);
            self.parts.bans.report(offence, deliverer);
        }
        if outcome.aborted {
            metrics::answer("aborted");
            self.give_up(&responder.node_id);
            return Disposition::Dropped(DropReason::BadProtocolMessage);
        }
        metrics::answer("taken");
        let counts = PageCounts {
            new: u64::try_from(outcome.accepted.len()).unwrap_or(u64::MAX),
            known: outcome.known,
            refused: outcome.refused,
        };
        metrics::received("new", counts.new);
        metrics::received("known", counts.known);
        deliver(&mut response, outcome.accepted, inner).await;
        {
            let mut tracker = self.tracker.lock();
            tracker.delivered(&responder.node_id, self.parts.clock.now());
            tracker.count(counts);
        }
        // If more pages may follow, refused messages count as read, too: otherwise a page of invalid messages, which
        // any peer can put into the mailbox, would be the last that this responder sends.
        let full = summary.may_continue(self.max_messages);
        let reached = if full { newest } else { outcome.reached };
        self.proceed(&responder, summary, counts, reached).await;
        self.answered();
        Disposition::Answered
    }

    /// The application has a message that arrived live. One that other nodes may store is recorded as received.
    pub(crate) fn delivered_live(&self, hash: DedupHash, is_relayed: bool) {
        if is_relayed {
            let until = self.parts.clock.now().saturating_add(self.max_age_seconds);
            self.parts.ledger.note(hash, until);
        }
        self.parts.decisions.record(hash, Receipt::Received);
    }

    /// Nobody took a message that arrived live; another copy is welcome.
    pub(crate) fn not_delivered(&self, hash: &DedupHash) {
        self.parts.decisions.refused(hash);
    }

    /// Checks that the response was requested, and decodes it.
    fn decode(
        &self,
        responder: &RemotePeer,
        parts: Option<&[Bytes]>,
    ) -> Result<StoredMessagesResponse, Disposition> {
        let (peer, now) = (&responder.node_id, self.parts.clock.now());
        if !self.tracker.lock().is_pending(peer) {
            return Err(unrequested(responder, Unrequested::NotPending));
        }
        let part = parts.and_then(|parts| parts.first()).cloned();
        let decoded = part.map(dht_proto::decode::<StoredMessagesResponse>);
        let id = match &decoded {
            Some(Ok(response)) => Some(response.request_id),
            _ => None,
        };
        let taken = self.tracker.lock().take(peer, id, now);
        taken.map_err(|reason| unrequested(responder, reason))?;
        match decoded {
            Some(Ok(response)) if response.messages.len() <= self.max_messages => Ok(response),
            Some(Ok(_) | Err(DecodeError::TooManyItems { .. })) => {
                metrics::answer("too_many");
                let deliverer = Parties::deliverer(responder.public_key);
                let bans = &self.parts.bans;
                bans.report(Offence::SafTooManyMessages, deliverer);
                self.give_up(peer);
                Err(Disposition::Dropped(DropReason::BadProtocolMessage))
            }
            Some(Err(_)) | None => {
                metrics::answer("malformed");
                self.give_up(peer);
                Err(Disposition::Dropped(DropReason::BadProtocolMessage))
            }
        }
    }

    /// The newest `stored_at` of a page that is not in the future.
    fn newest(&self, page: &StoredMessagesResponse) -> Option<UnixSeconds> {
        let now = self.parts.clock.now();
        let times = page.messages.iter();
        let times = times.map(|message| UnixSeconds(message.stored_at));
        times.filter(|at| *at <= now).max()
    }

    /// Checks every message, then records the valid and new ones as received.
    async fn check(&self, page: StoredMessagesResponse) -> ResponseOutcome {
        let now = self.parts.clock.now();
        let context = CheckContext {
            identity: &self.parts.identity,
            now,
            max_age_seconds: self.max_age_seconds,
        };
        let profile = self.parts.bans.profile();
        let mut checked = Vec::with_capacity(page.messages.len());
        for (at, message) in page.messages.into_iter().enumerate() {
            if at % CHECKED_AT_ONCE == CHECKED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let result = check(message, context);
            let fault = result.as_ref().err().copied();
            checked.push(result);
            if let Some(fault) = fault {
                metrics::received(fault.name(), 1);
                tracing::debug!(fault = fault.name(), "stored message refused");
                if fault.aborts(profile) {
                    break;
                }
            }
        }
        let outcome = decide(checked, profile, |message| self.is_new(message, now));
        if !outcome.accepted.is_empty() {
            let hashes: Vec<_> = outcome.accepted.iter().map(|it| it.hash).collect();
            let until = now.saturating_add(self.max_age_seconds);
            let ledger = Arc::clone(&self.parts.ledger);
            // Before the application has them: it gets no message twice, whenever this process ends.
            blocking("ledger", move || ledger.receive(&hashes, until)).await;
        }
        outcome
    }

    fn is_new(&self, message: &ValidMessage, now: UnixSeconds) -> bool {
        // The dedup table alone decides between two responses that arrive together.
        let meta = DedupMeta {
            signed: message.signed,
            expires: message.opened.header.expires,
        };
        let occurrences = self.parts.dedup.record(&message.hash, meta, now);
        occurrences <= 1 && !self.parts.ledger.contains(&message.hash)
    }

    /// Records how far the responder has been read, and requests the next page if there may be one.
    async fn proceed(
        self: &Arc<Self>,
        responder: &RemotePeer,
        summary: PageSummary,
        counts: PageCounts,
        reached: Option<UnixSeconds>,
    ) {
        if let Some(reached) = reached {
            let (ledger, key) = (Arc::clone(&self.parts.ledger), responder.public_key);
            blocking("ledger", move || ledger.read_up_to(&key, reached)).await;
        }
        if let Some(reached) = reached
            && let Some(page) = summary.hash
            && summary.may_continue(self.max_messages)
            && self.continues(responder, page, counts)
        {
            // A refusal ends the fetch.
            let _ = self.request_since(responder, reached.0);
            return;
        }
        let summary = self.tracker.lock().finished(&responder.node_id);
        self.report(summary);
    }

    fn continues(&self, responder: &RemotePeer, page: DedupHash, counts: PageCounts) -> bool {
        let now = self.parts.clock.now();
        let mut tracker = self.tracker.lock();
        tracker.continues(&responder.node_id, page, counts, now)
    }
}

/// Delivers messages to the inner service concurrently, beginning with the oldest.
async fn deliver<M, S>(response: &mut M, accepted: Vec<ValidMessage>, mut inner: S)
where
    M: InTransit,
    S: Service<M, Response = Disposition, Error: Into<BoxError>>,
{
    let mut deliveries = FuturesUnordered::new();
    let failed = |error: S::Error| {
        let error = error.into();
        tracing::warn!(error = %error, "stored message was not delivered");
    };
    for ValidMessage {
        opened,
        hash,
        bytes,
        ..
    } in accepted
    {
        let message = response.unpack(opened, hash, bytes);
        match std::future::poll_fn(|cx| inner.poll_ready(cx)).await {
            Ok(()) => deliveries.push(inner.call(message)),
            Err(error) => return failed(error),
        }
    }
    while let Some(result) = deliveries.next().await {
        match result {
            Ok(disposition) => {
                tracing::debug!(disposition = disposition.name(), "stored message");
            }
            Err(error) => failed(error),
        }
    }
}

fn unrequested(responder: &RemotePeer, reason: Unrequested) -> Disposition {
    let reason = match reason {
        Unrequested::NotPending => "unrequested",
        Unrequested::WrongId => "wrong_id",
        Unrequested::TooLate => "too_late",
    };
    metrics::answer(reason);
    tracing::debug!(peer = %responder.node_id, reason, "response without a request");
    Disposition::Dropped(DropReason::Unrequested)
}
