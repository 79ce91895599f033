//! What a request is answered with, and what it proves (sections 6 and 14, defects D1-D4). No I/O, no clock.
//!
//! A requester of the 1.x line asks for everything after the newest second it has seen, and takes at most 50
//! messages. Served newest first, the older ones are lost to it. Served oldest first *from that second on,
//! included*, its next request continues where the answer ended. One case needs memory: more rows in one second
//! than fit in an answer. Then the second alone does not say how far it got, and a cursor does.
//!
//! The cursor is sure of an answer only while the connection stands on which it went out. After that the answer is
//! given once more, from where it began, and only then passed: a requester of the 1.x line asks once a connection,
//! and would otherwise be given the same rows of that second for ever. In the same way an answer is passed that was
//! given on several connections and moved the requester's watermark nowhere, as when it holds nothing that the
//! requester accepts: what somebody left in a mailbox must not hide what lies behind it.
//!
//! Deletion needs proof: rows of an answer that was handed over are deleted once the requester asks from a later
//! second than it did then, at least the last of that answer. Rows of that very second stay, as it may still ask
//! for them.

use std::collections::{HashMap, VecDeque};

use dht_core::UnixSeconds;
use dht_mailbox::{
    DEFAULT_MAX_RETURNED, DEFAULT_RESPONSE_BYTES, Order, Page, Position, Query, Recipient, RowId,
};

/// Requesters whose progress is remembered; the one unheard of for longest is forgotten first, which costs it a
/// repetition of one second.
pub const MAX_REQUESTERS: usize = 4096;
/// Connections on which an answer within one second is given before it is passed.
const SAME_SECOND_TIMES: u32 = 2;
/// Connections on which an answer is given that leaves the requester's watermark where it was, before it is passed.
const SAME_ANSWER_TIMES: u32 = 4;
/// Rows handed over and not proven that are remembered for one requester; older ones stay until their time is over.
const MAX_UNPROVEN: usize = 512;

/// The settings of a [`Pager`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagerConfig {
    /// Which rows the limits leave out. Defaults to [`Order::OldestFirst`].
    pub order: Order,
    /// Messages in one answer. Defaults to [`DEFAULT_MAX_RETURNED`].
    pub max_returned: usize,
    /// Bytes of messages in one answer. Defaults to [`DEFAULT_RESPONSE_BYTES`].
    pub max_bytes: usize,
}

/// A decoded request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The authenticated peer at the other end.
    pub requester: Recipient,
    /// From when on; `None` for the wire's 0.
    pub since: Option<UnixSeconds>,
    /// At most so many messages; 0 for as many as the answerer allows.
    pub limit: u32,
}

/// What to do about a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Rows the requester has, to be deleted.
    pub proven: Vec<RowId>,
    request: Request,
    after: Option<Position>,
    /// Begins behind an answer that the requester has not been seen to take.
    past: bool,
    limit: usize,
}

/// Progress of requesters.
///
/// For each request: [`Pager::plan`], delete what is proven, fetch [`Pager::query`], send what
/// [`Pager::arrange`] makes of the page, and report with [`Pager::handed_over`] once the transport has taken it.
#[derive(Debug)]
pub struct Pager {
    config: PagerConfig,
    requesters: HashMap<Recipient, Progress>,
    /// Counts requests, to tell who was heard of last.
    requests: u64,
}

#[derive(Debug, Default)]
struct Progress {
    last: Option<Handed>,
    unproven: VecDeque<Served>,
    heard: u64,
}

/// The last answer with rows that was handed over.
#[derive(Clone, Copy, Debug)]
struct Handed {
    /// What its request had asked from.
    since: UnixSeconds,
    /// Behind which row it began.
    after: Option<Position>,
    /// Its last row.
    end: Position,
    /// On how many connections it went out, with nothing in it that had not gone out the first time.
    times: u32,
    /// The connection it went out on has ended, or it did not go out.
    doubtful: bool,
}

/// Where the next answer begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Behind this row.
    Behind(Option<Position>),
    /// Behind the last answer, which the requester has not been seen to take.
    Past(Position),
}

/// A row that was handed over.
#[derive(Clone, Copy, Debug)]
struct Served {
    row: Position,
    /// The newest second of its answer.
    newest: UnixSeconds,
    /// What the request had asked from.
    since: UnixSeconds,
}

impl Default for PagerConfig {
    fn default() -> Self {
        Self {
            order: Order::default(),
            max_returned: DEFAULT_MAX_RETURNED,
            max_bytes: DEFAULT_RESPONSE_BYTES,
        }
    }
}

impl Pager {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(config: PagerConfig) -> Self {
        Self {
            config,
            requesters: HashMap::new(),
            requests: 0,
        }
    }

    /// What the request proves, and where its answer begins.
    ///
    /// A `since` that lies in the future is no watermark: it is answered with nothing and proves nothing
    /// (defects D2 and D11).
    pub fn plan(&mut self, request: Request, now: UnixSeconds) -> Plan {
        let wanted = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let limit = if wanted == 0 {
            self.config.max_returned
        } else {
            wanted.min(self.config.max_returned)
        };
        let mut plan = Plan {
            proven: Vec::new(),
            request,
            after: None,
            past: false,
            limit,
        };
        let since = request.since.unwrap_or_default();
        if since > now {
            plan.limit = 0;
            return plan;
        }
        self.requests = self.requests.saturating_add(1);
        let Some(progress) = self.requesters.get_mut(&request.requester) else {
            return plan;
        };
        progress.heard = self.requests;
        progress.unproven.retain(|served| {
            let proven =
                since > served.since && since >= served.newest && served.row.stored_at < since;
            if proven {
                plan.proven.push(served.row.id);
            }
            !proven
        });
        if self.config.order == Order::OldestFirst {
            plan.after = match progress.last.map(|last| last.next(since)) {
                Some(Next::Behind(after)) => after,
                Some(Next::Past(end)) => {
                    // What it asks from later on proves nothing about these.
                    progress.unproven.retain(|served| served.since != since);
                    plan.past = true;
                    Some(end)
                }
                None => None,
            };
        }
        plan
    }

    /// The question to the store.
    #[must_use]
    pub fn query(&self, plan: &Plan, now: UnixSeconds) -> Query {
        let from = match self.config.order {
            Order::OldestFirst => plan.request.since,
            // Strict, as in the reference.
            Order::NewestFirst => plan.request.since.map(|since| since.saturating_add(1)),
        };
        Query {
            recipient: plan.request.requester,
            from,
            // After the clock was set back, some lie in the future: whoever is given these bans who gave them.
            until: Some(now),
            after: plan.after,
            limit: plan.limit,
            max_bytes: self.config.max_bytes,
            order: self.config.order,
            now,
        }
    }

    /// Puts the page in the order of the answer: newest first, as in the reference, wherever nothing is left out.
    pub fn arrange(&self, plan: &Plan, page: &mut Page) {
        if self.config.order == Order::OldestFirst && plan.request.since.is_none() && !page.more {
            page.records.reverse();
        }
    }

    /// Notes that the transport has taken the answer.
    pub fn handed_over(&mut self, plan: &Plan, page: &Page) {
        let places = page.records.iter().map(dht_mailbox::StoredRecord::position);
        let Some(last) = places.clone().max() else {
            if plan.past
                && let Some(progress) = self.requesters.get_mut(&plan.request.requester)
            {
                // Everything was given, for nothing: from the start again.
                progress.last = None;
            }
            return;
        };
        self.make_room(plan.request.requester);
        let progress = self.requesters.entry(plan.request.requester).or_default();
        progress.heard = self.requests;
        let since = plan.request.since.unwrap_or_default();
        let times = match progress.last {
            Some(before) if before.after == plan.after && last <= before.end => {
                before.times.saturating_add(before.doubtful.into())
            }
            _ => 1,
        };
        progress.last = Some(Handed {
            since,
            after: plan.after,
            end: last,
            times,
            doubtful: false,
        });
        for row in places {
            // A row that was handed over twice is proven by what came of the second time.
            progress.unproven.retain(|served| served.row != row);
            progress.unproven.push_back(Served {
                row,
                newest: last.stored_at,
                since,
            });
        }
        while progress.unproven.len() > MAX_UNPROVEN {
            progress.unproven.pop_front();
        }
    }

    /// Takes [`Pager::handed_over`] back: the transport could not send the answer after all.
    pub fn not_sent(&mut self, plan: &Plan, page: &Page) {
        if let Some(progress) = self.requesters.get_mut(&plan.request.requester) {
            if let Some(last) = &mut progress.last {
                (last.doubtful, last.times) = (true, last.times.saturating_sub(1));
            }
            progress.unproven.retain(|served| {
                page.records
                    .iter()
                    .all(|record| record.position() != served.row)
            });
        }
    }

    /// Notes that the connection to a requester has ended: what went out last may not have arrived.
    ///
    /// An answer within one second cannot be proven by a later request alone, so it is not remembered.
    pub fn disconnected(&mut self, requester: Recipient) {
        if let Some(progress) = self.requesters.get_mut(&requester) {
            if let Some(last) = &mut progress.last {
                last.doubtful = true;
            }
            progress
                .unproven
                .retain(|served| served.newest > served.since);
        }
    }

    /// Requesters remembered.
    #[must_use]
    pub fn requesters(&self) -> usize {
        self.requesters.len()
    }

    fn make_room(&mut self, requester: Recipient) {
        if self.requesters.len() < MAX_REQUESTERS || self.requesters.contains_key(&requester) {
            return;
        }
        let oldest = self
            .requesters
            .iter()
            .min_by_key(|(key, progress)| (progress.heard, **key));
        if let Some(oldest) = oldest.map(|(key, _)| *key) {
            self.requesters.remove(&oldest);
        }
    }
}

impl Handed {
    /// Where to begin for a requester that asks from `since`.
    fn next(&self, since: UnixSeconds) -> Next {
        if self.end.stored_at == since {
            return if self.doubtful && self.times < SAME_SECOND_TIMES {
                Next::Behind(self.after)
            } else {
                Next::Behind(Some(self.end))
            };
        }
        if self.since != since {
            // A place in an earlier second changes nothing, and one in a later is another paging's.
            return Next::Behind(self.after.filter(|after| after.stored_at <= since));
        }
        if self.doubtful && self.times >= SAME_ANSWER_TIMES {
            Next::Past(self.end)
        } else {
            Next::Behind(self.after)
        }
    }
}

#[cfg(test)]
mod tests;
