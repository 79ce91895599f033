//! Taking an answer: section 8.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Clock as _, DedupHash, Disposition, DropReason, InTransit, RemotePeer, Severity, UnixSeconds,
};
use dht_proto::{DecodeError, store_forward::StoredMessagesResponse};
use dht_stack::BoxError;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tower_service::Service;

use crate::{
    accept::{Checks, Outline, Settled, Sound, check, settle},
    ask::{Brought, Unasked},
    metrics,
    saf::{Saf, blocking},
};

/// Messages checked before other tasks get their turn: two public-key operations each.
const CHECKED_AT_ONCE: usize = 4;

/// Why an answer with too many messages is a ban.
const TOO_MANY: &str = crate::fault::TOO_MANY_MESSAGES;

impl Saf {
    /// Takes an answer apart and hands what is good to `inner`.
    pub(crate) async fn receive<M, S>(&self, mut answer: M, inner: S) -> Disposition
    where
        M: InTransit,
        S: Service<M, Response = Disposition, Error: Into<BoxError>>,
    {
        let source = Arc::clone(answer.source());
        let response = match self.open(&source, answer.opened().parts()) {
            Ok(response) => response,
            Err(disposition) => return disposition,
        };
        let outline = Outline::of(&response.messages);
        self.0.asking.lock().handling(&source.node_id);
        let shown = self.shown(&response);
        let settled = self.settle(response).await;
        if let Some((severity, fault)) = settled.ban {
            self.0.bans.ban(&source, severity, fault.rule().text);
        }
        if settled.aborted {
            metrics::answer("aborted");
            self.give_up(&source);
            return Disposition::Dropped(DropReason::BadProtocolMessage);
        }
        metrics::answer("taken");
        let brought = Brought {
            new: u64::try_from(settled.accepted.len()).unwrap_or(u64::MAX),
            known: settled.known,
            refused: settled.refused,
        };
        metrics::received("new", brought.new);
        metrics::received("known", brought.known);
        self.deliver(&mut answer, settled.accepted, inner).await;
        {
            let mut asking = self.0.asking.lock();
            asking.handled(&source.node_id, self.0.clock.now());
            asking.count(brought);
        }
        // Of a page after which more may come, what was refused counts as read, too: else a page of rubbish that
        // somebody left in the mailbox would be all that this answerer ever gives.
        let full = outline.may_continue(self.0.config.max_accepted);
        let reached = if full { shown } else { settled.reached };
        self.go_on(&source, outline, brought, reached).await;
        self.answered();
        Disposition::Answered
    }

    /// The newest second of an answer that is not in the future.
    fn shown(&self, response: &StoredMessagesResponse) -> Option<UnixSeconds> {
        let now = self.0.clock.now();
        let times = response.messages.iter();
        let times = times.map(|message| UnixSeconds(message.stored_at));
        times.filter(|at| *at <= now).max()
    }

    /// Remembers a message that came on the usual way, as others may have stored it too; not one that its sender
    /// delivered itself.
    pub(crate) fn note(&self, message: &impl InTransit) {
        let header = &message.opened().header;
        let relayed = message.opened().origin() != Some(&message.source().public_key);
        if relayed && header.is_encrypted() && header.message_type.is_domain() {
            let until = self.0.clock.now();
            let until = until.saturating_add(self.0.config.max_age_seconds);
            self.0.ledger.note(message.hash(), until);
        }
    }

    /// Sees whether the answer was asked for, and decodes it.
    fn open(
        &self,
        source: &RemotePeer,
        parts: Option<&[Bytes]>,
    ) -> Result<StoredMessagesResponse, Disposition> {
        let now = self.0.clock.now();
        if !self.0.asking.lock().owes(&source.node_id) {
            return Err(unasked(source, Unasked::Unrequested));
        }
        let part = parts.and_then(|parts| parts.first()).cloned();
        let decoded = part.map(dht_proto::decode::<StoredMessagesResponse>);
        let id = match &decoded {
            Some(Ok(response)) => Some(response.request_id),
            _ => None,
        };
        let taken = self.0.asking.lock().take(&source.node_id, id, now);
        taken.map_err(|reason| unasked(source, reason))?;
        let most = self.0.config.max_accepted;
        match decoded {
            Some(Ok(response)) if response.messages.len() <= most => Ok(response),
            Some(Ok(_) | Err(DecodeError::TooManyItems { .. })) => {
                metrics::answer("too_many");
                self.0.bans.ban(source, Severity::High, TOO_MANY);
                self.give_up(source);
                Err(Disposition::Dropped(DropReason::BadProtocolMessage))
            }
            Some(Err(_)) | None => {
                metrics::answer("malformed");
                self.give_up(source);
                Err(Disposition::Dropped(DropReason::BadProtocolMessage))
            }
        }
    }

    /// Checks every message, then records those that are good and new.
    async fn settle(&self, response: StoredMessagesResponse) -> Settled {
        let now = self.0.clock.now();
        let checks = Checks {
            identity: &self.0.identity,
            now,
            max_age_seconds: self.0.config.max_age_seconds,
        };
        let profile = self.0.config.profile;
        let mut checked = Vec::with_capacity(response.messages.len());
        for (at, message) in response.messages.into_iter().enumerate() {
            if at % CHECKED_AT_ONCE == CHECKED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let outcome = check(message, checks);
            let fault = outcome.as_ref().err().copied();
            checked.push(outcome);
            if let Some(fault) = fault {
                metrics::received(fault.rule().name, 1);
                tracing::debug!(fault = fault.rule().name, "stored message refused");
                if fault.rule().ruling(profile).abort {
                    break;
                }
            }
        }
        let settled = settle(checked, profile, |sound| self.is_new(sound, now));
        if !settled.accepted.is_empty() {
            let hashes: Vec<_> = settled.accepted.iter().map(|sound| sound.hash).collect();
            let until = now.saturating_add(self.0.config.max_age_seconds);
            let ledger = Arc::clone(&self.0.ledger);
            // Before the application has them: it gets nothing twice, whenever this process ends.
            blocking("ledger", move || ledger.receive(&hashes, until)).await;
        }
        settled
    }

    fn is_new(&self, sound: &Sound, now: UnixSeconds) -> bool {
        // The table alone decides between two answers that arrive together.
        let expires = sound.opened.header.expires;
        let hits = self
            .0
            .duplicates
            .record(&sound.hash, sound.signed, expires, now);
        hits <= 1 && !self.0.ledger.contains(&sound.hash)
    }

    /// Hands messages on, all at once, begun in the order of their age.
    async fn deliver<M, S>(&self, answer: &mut M, accepted: Vec<Sound>, mut inner: S)
    where
        M: InTransit,
        S: Service<M, Response = Disposition, Error: Into<BoxError>>,
    {
        let mut deliveries = FuturesUnordered::new();
        let failed = |error: S::Error| {
            let error = error.into();
            tracing::warn!(error = %error, "stored message was not delivered");
        };
        for sound in accepted {
            let message = answer.unpack(sound.opened, sound.hash, sound.bytes);
            match std::future::poll_fn(|cx| inner.poll_ready(cx)).await {
                Ok(()) => deliveries.push(inner.call(message)),
                Err(error) => return failed(error),
            }
        }
        while let Some(outcome) = deliveries.next().await {
            match outcome {
                Ok(disposition) => {
                    tracing::debug!(disposition = disposition.name(), "stored message");
                }
                Err(error) => failed(error),
            }
        }
    }

    /// Notes how far the answerer was read, and asks for the next page if there may be one.
    async fn go_on(
        &self,
        source: &RemotePeer,
        outline: Outline,
        brought: Brought,
        reached: Option<UnixSeconds>,
    ) {
        if let Some(reached) = reached {
            let (ledger, key) = (Arc::clone(&self.0.ledger), source.public_key);
            blocking("ledger", move || ledger.read_up_to(&key, reached)).await;
        }
        if let Some(reached) = reached
            && let Some(page) = outline.name
            && outline.may_continue(self.0.config.max_accepted)
            && self.goes_on(source, page, brought)
        {
            // A refusal closes the round.
            let _ = self.ask(source, reached.0);
            return;
        }
        let round = self.0.asking.lock().finished(&source.node_id);
        self.report(round);
    }

    fn goes_on(&self, source: &RemotePeer, page: DedupHash, brought: Brought) -> bool {
        let now = self.0.clock.now();
        let mut asking = self.0.asking.lock();
        asking.goes_on(&source.node_id, page, brought, now)
    }

    fn give_up(&self, source: &RemotePeer) {
        let round = self.0.asking.lock().given_up(&source.node_id);
        self.report(round);
    }
}

fn unasked(source: &RemotePeer, reason: Unasked) -> Disposition {
    let name = match reason {
        Unasked::Unrequested => "unrequested",
        Unasked::WrongId => "wrong_id",
        Unasked::TooLate => "too_late",
    };
    metrics::answer(name);
    tracing::debug!(peer = %source.node_id, reason = name, "answer nobody asked for");
    Disposition::Dropped(DropReason::Unrequested)
}
