//! Takes a response: 05 section 8.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{
    Clock as _, DedupHash, Deliverer, Disposition, DropReason, InTransit, RemotePeer, UnixSeconds,
};
use dht_dedup::{DedupMeta, Reservation};
use dht_peers::policy::{Offence, Parties};
use dht_proto::{DecodeError, store_forward::StoredMessagesResponse};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::timeout;
use tower::BoxError;
use tower_service::Service;

use super::{
    check::{CheckContext, ValidMessage, check},
    fetcher::Fetcher,
    outcome::{PageSummary, ReceptionState, ResponseOutcome, decide},
    tracker::{Finished, PageCounts, Request, Unrequested},
};
use crate::{blocking::blocking, metrics, receipt::Receipt};

/// Messages checked before other tasks run: each takes two public-key operations.
const CHECKED_AT_ONCE: usize = 4;

/// Most messages that a response may hold.
const MOST_MESSAGES: usize = dht_proto::limits::MAX_STORED_MESSAGES;

/// How often a message that is under way elsewhere is looked at, if nothing is reported.
const UNDER_WAY_CHECK: Duration = Duration::from_secs(1);

/// Hash and `stored_at` of a message, the reservation on it, and the answer of the inner service.
type Delivery = (
    DedupHash,
    UnixSeconds,
    Reservation,
    Result<Disposition, BoxError>,
);

/// Outcomes of the messages of a page so far.
struct Tally {
    deliverer: Deliverer,
    counts: PageCounts,
    /// Oldest `stored_at` of the messages that the application did not take.
    left: Option<UnixSeconds>,
    /// The application takes none at all now.
    closed: bool,
}

impl Tally {
    fn leave(&mut self, stored_at: UnixSeconds) {
        self.counts.left = self.counts.left.saturating_add(1);
        self.left = Some(self.left.map_or(stored_at, |left| left.min(stored_at)));
    }
}

impl Fetcher {
    /// Takes a response apart, and passes its valid and new messages to `inner`.
    pub(crate) async fn receive<M, S>(self: Arc<Self>, mut response: M, inner: S) -> Disposition
    where
        M: InTransit,
        S: Service<M, Response = Disposition, Error: Into<BoxError>>,
    {
        let responder = Arc::clone(response.source());
        let (asked, page) = match self.decode(&responder, response.opened().parts()) {
            Ok(answer) => answer,
            Err(disposition) => return disposition,
        };
        let summary = PageSummary::of(&page.messages);
        self.tracker.lock().delivering(&responder.node_id);
        self.watch_clock(&responder, &page);
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
        // If more pages may follow, refused messages count as read, too: otherwise a page of invalid messages, which
        // any peer can put into the mailbox, would be the last that this responder sends.
        let full = summary.may_continue(asked.limit);
        let reached = if full { newest } else { outcome.reached };
        let tally = self.deliver(&mut response, outcome, inner).await;
        let counts = tally.counts;
        metrics::received("new", counts.new);
        metrics::received("known", counts.known);
        metrics::received("left", counts.left);
        {
            let mut tracker = self.tracker.lock();
            tracker.delivered(&responder.node_id, self.parts.clock.now());
            tracker.count(counts);
        }
        // Rows that a page before this one has left behind come again, too.
        let tally = Tally {
            left: asked.left.into_iter().chain(tally.left).min(),
            ..tally
        };
        self.proceed(&responder, asked, summary, tally, reached)
            .await;
        self.answered();
        Disposition::Answered
    }

    /// Delivers messages to the inner service concurrently, beginning with the oldest. Records each one as received once
    /// the application has it. Returns what became of them.
    async fn deliver<M, S>(&self, response: &mut M, outcome: ResponseOutcome, mut inner: S) -> Tally
    where
        M: InTransit,
        S: Service<M, Response = Disposition, Error: Into<BoxError>>,
    {
        let mut tally = Tally {
            deliverer: Deliverer::from(&**response.source()),
            counts: PageCounts {
                known: outcome.known,
                refused: outcome.refused,
                ..PageCounts::default()
            },
            left: None,
            closed: false,
        };
        let mut deliveries = FuturesUnordered::new();
        let mut broken = false;
        for (message, reservation) in outcome.accepted {
            let (hash, stored_at) = (message.hash, message.stored_at);
            let message = response.unpack(message.opened, hash, message.bytes);
            while !broken {
                // The inner service may become ready only once it has finished with a message.
                tokio::select! {
                    biased;
                    ready = std::future::poll_fn(|cx| inner.poll_ready(cx)) => {
                        let Err(error) = ready else { break };
                        failed(error.into());
                        broken = true;
                    }
                    Some(delivery) = deliveries.next() => self.ended(&mut tally, delivery),
                }
            }
            if broken {
                tally.leave(stored_at);
                continue;
            }
            let delivery = inner.call(message);
            deliveries.push(async move {
                let result = delivery.await.map_err(Into::into);
                (hash, stored_at, reservation, result)
            });
        }
        while let Some(delivery) = deliveries.next().await {
            self.ended(&mut tally, delivery);
        }
        for (hash, stored_at) in outcome.under_way {
            if self.is_delivered(&hash).await {
                tally.counts.known = tally.counts.known.saturating_add(1);
            } else {
                tally.leave(stored_at);
            }
        }
        tally
    }

    /// Records what became of a message at the inner service. Only one that the application has counts as received; the
    /// dedup table remembers all but those that had no place here.
    fn ended(&self, tally: &mut Tally, (hash, stored_at, reservation, result): Delivery) {
        let counts = &mut tally.counts;
        let is_taken = match result {
            Ok(Disposition::Dropped(reason)) if reason.is_temporary() => {
                tracing::debug!(reason = reason.name(), "stored message not taken");
                self.not_delivered(&hash);
                // For everybody: another deliverer or origin may have room where one has none.
                tally.closed |= matches!(
                    reason,
                    DropReason::NobodyListens | DropReason::InboxFailed | DropReason::InboxFull
                );
                return tally.leave(stored_at);
            }
            Err(error) => {
                failed(error);
                self.not_delivered(&hash);
                return tally.leave(stored_at);
            }
            Ok(Disposition::Dropped(DropReason::Duplicate)) => {
                counts.known = counts.known.saturating_add(1);
                true
            }
            Ok(Disposition::Dropped(_)) => {
                counts.refused = counts.refused.saturating_add(1);
                false
            }
            Ok(disposition) => {
                counts.new = counts.new.saturating_add(1);
                disposition == Disposition::Delivered
            }
        };
        // First, as those that wait for the decision look at the dedup table.
        reservation.commit();
        if is_taken {
            self.delivered(hash, Some(tally.deliverer));
        } else {
            self.not_delivered(&hash);
        }
    }

    /// Waits until a message that is under way has been delivered or refused; true if it need not come again.
    async fn is_delivered(&self, hash: &DedupHash) -> bool {
        let now = self.parts.clock.now();
        let mut decision = self.parts.decisions.find(hash, now);
        while self.parts.dedup.is_reserved(hash) {
            // A message that ends outside of store-and-forward is not reported here.
            if let Ok(decided) = timeout(UNDER_WAY_CHECK, &mut decision).await {
                if decided == Ok(Receipt::Received) {
                    return true;
                }
                break;
            }
        }
        !self.parts.dedup.is_reserved(hash) && self.parts.dedup.count(hash) > 0
    }

    /// The application has a message. One that other nodes may store is recorded as received.
    pub(crate) fn delivered(&self, hash: DedupHash, relayed_by: Option<Deliverer>) {
        if let Some(deliverer) = relayed_by {
            let until = self.parts.clock.now().saturating_add(self.max_age_seconds);
            self.parts.ledger.note(hash, until, deliverer);
        }
        self.parts.decisions.record(hash, Receipt::Received);
    }

    /// No subscriber took a message; another copy is accepted.
    pub(crate) fn not_delivered(&self, hash: &DedupHash) {
        self.parts.decisions.refused(hash);
    }

    /// Checks that the response was requested, and decodes it.
    fn decode(
        &self,
        responder: &RemotePeer,
        parts: Option<&[Bytes]>,
    ) -> Result<(Request, StoredMessagesResponse), Disposition> {
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
        let asked = taken.map_err(|reason| unrequested(responder, reason))?;
        let asked = asked.unwrap_or(Request {
            id: 0,
            since: 0,
            limit: self.max_messages,
            left: None,
        });
        self.hang_ups.lock().remove(peer);
        match decoded {
            Some(Ok(response)) if response.messages.len() <= asked.limit => Ok((asked, response)),
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

    /// Warns the operator if the clocks of several responders are ahead of this node's.
    fn watch_clock(&self, responder: &RemotePeer, page: &StoredMessagesResponse) {
        let times = page.messages.iter().map(|message| message.stored_at);
        let newest = UnixSeconds(times.max().unwrap_or_default());
        let now = self.parts.clock.now();
        let behind = self.skew.lock().observe(responder.node_id, newest, now);
        if let Some(seconds) = behind {
            tracing::warn!(seconds, "the clock of this node seems to be slow; check it");
        }
    }

    /// The newest `stored_at` of a page that is not too far in the future.
    fn newest(&self, page: &StoredMessagesResponse) -> Option<UnixSeconds> {
        let now = self
            .parts
            .clock
            .now()
            .saturating_add(self.tolerance_seconds);
        let times = page.messages.iter();
        let times = times.map(|message| UnixSeconds(message.stored_at));
        times.filter(|at| *at <= now).max()
    }

    /// Checks every message, and claims the valid and new ones.
    async fn check(&self, page: StoredMessagesResponse) -> ResponseOutcome {
        let now = self.parts.clock.now();
        let context = CheckContext {
            identity: &self.parts.identity,
            now,
            tolerance_seconds: self.tolerance_seconds,
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
        decide(checked, profile, |message| {
            self.reception_state(message, now)
        })
    }

    fn reception_state(&self, message: &ValidMessage, now: UnixSeconds) -> ReceptionState {
        if self.parts.ledger.contains(&message.hash) {
            return ReceptionState::Known;
        }
        // The dedup table alone decides between two copies that arrive together.
        let meta = DedupMeta {
            signed: message.signed,
            expires: message.opened.header.expires,
        };
        match self.parts.dedup.reserve(&message.hash, meta, now) {
            Ok(reservation) => ReceptionState::New(reservation),
            Err(_) if self.parts.dedup.is_reserved(&message.hash) => ReceptionState::UnderWay,
            Err(_) => ReceptionState::Known,
        }
    }

    /// Records how far the responder has been read, and requests the next page if there may be one. What had no place here
    /// keeps nothing behind it out: `left` holds the watermark, and the next page is asked for all the same, without the pages
    /// that were read before. No page is, if the application takes none at all.
    async fn proceed(
        self: &Arc<Self>,
        responder: &RemotePeer,
        asked: Request,
        summary: PageSummary,
        tally: Tally,
        newest: Option<UnixSeconds>,
    ) {
        let (counts, left) = (tally.counts, tally.left);
        let reached = before(newest, left);
        let (ledger, key) = (Arc::clone(&self.parts.ledger), responder.public_key);
        // A clock that is ahead now may be right tomorrow: what is stored then must not count as read.
        let now = self.parts.clock.now();
        let read = reached.map(|reached| reached.min(now));
        let advancing = move || {
            // In this order: what a request proves received is remembered as received.
            ledger.flush()?;
            read.map_or(Ok(()), |read| ledger.read_up_to(&key, read))
        };
        blocking("ledger", self.parts.ledger.blocks(), advancing).await;
        // A stock node has no next page, as it sends the newest messages first; but it may have a longer one.
        let has_next = match self.deletes_for_all(&responder.node_id) {
            true => left.is_some() && asked.limit < MOST_MESSAGES && summary.is_full(asked.limit),
            false => newest.is_some() && summary.may_continue(asked.limit),
        };
        let continues = has_next
            && !tally.closed
            && summary
                .hash
                .is_some_and(|page| self.continues(responder, page, counts));
        let mut since = asked.since;
        if left.is_some() {
            let mut left_behind = self.left.lock();
            left_behind.add(responder, counts.new > 0, now);
            if let Some(newest) = newest {
                let read = left_behind.read(&responder.node_id, newest.min(now));
                let unread = read.0.saturating_sub(self.margin_seconds);
                // The rows between were read before.
                since = if unread > newest.0 { unread } else { since };
            }
        } else if !continues {
            self.left.lock().remove(&responder.node_id);
        }
        if continues {
            // A refusal ends the fetch.
            let _ = match (left, newest) {
                (Some(_), _) if self.deletes_for_all(&responder.node_id) => {
                    self.request(responder, 0, MOST_MESSAGES, None)
                }
                (None, Some(newest)) => self.request_since(responder, newest.0),
                (left, _) => self.request(responder, since, asked.limit, left),
            };
            return;
        }
        let finished = self.tracker.lock().finished(&responder.node_id);
        match finished {
            // Asked for again meanwhile, perhaps for what has come since.
            Finished::Again if left.is_none() => {
                // A refusal ends the fetch.
                let _ = self.request_since(responder, self.since(responder));
            }
            Finished::Again => {
                let ended = self.tracker.lock().finished(&responder.node_id);
                self.report(ended.summary());
            }
            Finished::Ended(summary) => self.report(summary),
        }
    }

    fn continues(&self, responder: &RemotePeer, page: DedupHash, counts: PageCounts) -> bool {
        let now = self.parts.clock.now();
        let mut tracker = self.tracker.lock();
        tracker.continues(&responder.node_id, page, counts, now)
    }
}

/// How far the responder has been read if messages from second `left` on are to be asked for again.
fn before(reached: Option<UnixSeconds>, left: Option<UnixSeconds>) -> Option<UnixSeconds> {
    let Some(left) = left else { return reached };
    let before = left.0.checked_sub(1).map(UnixSeconds)?;
    reached.map(|reached| reached.min(before))
}

fn failed(error: BoxError) {
    tracing::warn!(%error, "stored message was not delivered");
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
