//! Which page answers a request, and which rows a request proves received: 05 sections 6 and 14, defects D1-D4.
//! No I/O, no clock.
//!
//! A 1.x requester asks for everything after the newest second it has seen, and takes at most 50 messages. If the
//! newest rows were served first, the older ones would be lost to it. So rows are served oldest first, from the
//! second asked for *on, included*, and the next request continues where the response ended. If one second holds more
//! rows than a response, that second alone does not say how far the requester got, so the pager keeps a cursor.
//!
//! The cursor is certain only while the connection stands on which the response went out. After that the response is
//! repeated once from where it began, and then passed: a 1.x requester asks once a connection, and would otherwise be
//! served the same rows of that second for ever. A response is also passed if it was sent on several connections and
//! did not move the requester's watermark, as when the requester accepts none of its messages: such messages must not
//! hide the rows behind them. It may have been lost on each of them as well. So the rows behind it are said to be of its
//! first second, which leaves the watermark there, and after the last of them the requester gets the response that was
//! passed.
//!
//! A row may lie in the future, after the clock was set back. It is served as one of the present second, as a requester
//! bans for messages stored in the future, and takes no watermark from them.
//!
//! A requester that had no room for messages of a response asks with the same `since` for what comes behind it, or from a
//! later second on for what it has not seen yet. Neither proves anything.
//!
//! Rows are deleted only with proof of receipt: the requester asks from a later second than it did before, at least
//! the second of the last row of that response. Rows of that very second stay, as it may still ask for them.

use std::collections::{HashMap, VecDeque};

use dht_core::UnixSeconds;
use dht_mailbox::{
    DEFAULT_MAX_RETURNED, DEFAULT_RESPONSE_BYTES, Order, Page, Position, Query, Recipient, RowId,
    StoredRecord,
};

/// Requesters whose progress is remembered. The one that has not asked for longest is forgotten first, and is then
/// served one second again.
const MAX_REQUESTERS: usize = 4096;
/// Connections on which a response within one second is sent before it is passed.
const SAME_SECOND_TIMES: u32 = 2;
/// Connections on which a response is sent that leaves the requester's watermark where it was, before it is passed.
const SAME_ANSWER_TIMES: u32 = 4;
/// Rows sent and not proven received that are remembered for one requester; older ones stay stored until they expire.
const MAX_UNPROVEN: usize = 512;

/// Limits of one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PagerConfig {
    /// Which rows are left out when a limit is reached. Defaults to [`Order::OldestFirst`].
    pub(super) order: Order,
    /// Most messages in one response. Defaults to [`DEFAULT_MAX_RETURNED`].
    pub(super) max_returned: usize,
    /// Most bytes of messages in one response. Defaults to [`DEFAULT_RESPONSE_BYTES`].
    pub(super) max_bytes: usize,
}

/// A decoded request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PageRequest {
    /// Authenticated peer that asks, for its own mailbox.
    pub(super) requester: Recipient,
    /// Second from which messages are asked for; `None` for the wire's 0.
    pub(super) since: Option<UnixSeconds>,
    /// Most messages the requester takes; 0 leaves the number to this node.
    pub(super) limit: u32,
    /// The response goes on behind the last one to the same `since`.
    pub(super) continued: bool,
}

/// How a request is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PagePlan {
    /// Rows that the request proves received, to be deleted.
    pub(super) proven: Vec<RowId>,
    request: PageRequest,
    /// The page begins behind this row.
    after: Option<Position>,
    /// The page begins behind a response that the requester has not proven.
    past: bool,
    /// The page ends with rows of a response that was passed.
    wrapped: bool,
    limit: usize,
    /// The latest second that a row on the page is said to be of.
    latest: UnixSeconds,
}

/// The progress of each requester through its mailbox.
///
/// For each request: [`Pager::plan`], delete the proven rows, fetch [`Pager::query`], send the page as
/// [`Pager::arrange`] orders it, and report with [`Pager::handed_over`] that the transport has it.
#[derive(Debug)]
pub(super) struct Pager {
    config: PagerConfig,
    requesters: HashMap<Recipient, RequesterProgress>,
    /// Requests so far, which serves as the time of the last request of each requester.
    requests: u64,
}

#[derive(Debug, Default)]
struct RequesterProgress {
    last: Option<LastPage>,
    passed: Option<Passed>,
    unproven: VecDeque<SentRow>,
    /// Number of its last request.
    heard: u64,
}

/// The last response with rows that was handed to the transport.
#[derive(Clone, Copy, Debug)]
struct LastPage {
    /// The `since` of its request.
    since: UnixSeconds,
    /// Row behind which it began.
    after: Option<Position>,
    /// Second of the first row on the page.
    first: UnixSeconds,
    /// Position of the last row on the page.
    end: Position,
    /// The second that the requester was told of it.
    newest: UnixSeconds,
    /// Connections on which it was sent without a row that the first time had not.
    times: u32,
    /// Its connection has ended, or it was not sent.
    doubtful: bool,
    /// It went on behind a response to the same `since`.
    continued: bool,
}

/// Rows that were sent in vain, and passed.
#[derive(Clone, Copy, Debug)]
struct Passed {
    /// Second of the first of them.
    first: UnixSeconds,
    /// Position of the last of them.
    end: Position,
}

/// Where the next response begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Behind this row.
    Behind(Option<Position>),
    /// Behind the last response, although the requester has not proven it.
    Past(Position),
}

/// A row that was handed to the transport and not proven received.
#[derive(Clone, Copy, Debug)]
struct SentRow {
    row: Position,
    /// Newest second that the requester was told in its response.
    newest: UnixSeconds,
    /// The `since` of its request.
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
    pub(super) fn new(config: PagerConfig) -> Self {
        Self {
            config,
            requesters: HashMap::new(),
            requests: 0,
        }
    }

    /// Which rows the request proves received, and where its response begins.
    ///
    /// A `since` in the future proves nothing (05 defects D2 and D11). It is answered with the rows of that second and
    /// later: this node stored them before its clock was set back.
    pub(super) fn plan(&mut self, request: PageRequest, now: UnixSeconds) -> PagePlan {
        let wanted = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let limit = if wanted == 0 {
            self.config.max_returned
        } else {
            wanted.min(self.config.max_returned)
        };
        let since = request.since.unwrap_or_default();
        let mut plan = PagePlan {
            proven: Vec::new(),
            request,
            after: None,
            past: false,
            wrapped: false,
            limit,
            // The requester's own clock is not behind its watermark.
            latest: now.max(since),
        };
        self.requests = self.requests.saturating_add(1);
        let Some(progress) = self.requesters.get_mut(&request.requester) else {
            return plan;
        };
        progress.heard = self.requests;
        progress.unproven.retain(|sent| {
            let proven = !request.continued
                && since <= now
                && since > sent.since
                && since >= sent.newest
                && sent.row.stored_at < since;
            if proven {
                plan.proven.push(sent.row.id);
            }
            !proven
        });
        if self.config.order == Order::OldestFirst {
            let next = |last: LastPage| match request.continued {
                true => last.behind(since),
                false => last.next(since),
            };
            plan.after = match progress.last.map(next) {
                Some(Next::Behind(after)) => {
                    if let (Some(last), Some(passed)) = (progress.last, progress.passed)
                        && after == Some(last.end)
                        && last.after < Some(passed.end)
                        && last.end >= passed.end
                    {
                        progress.passed = None;
                    }
                    after
                }
                Some(Next::Past(end)) => {
                    if let Some(last) = progress.last {
                        let first = progress
                            .passed
                            .map_or(last.first, |it| it.first.min(last.first));
                        progress.passed = Some(Passed { first, end });
                    }
                    // A later `since` proves nothing about these rows.
                    progress.unproven.retain(|sent| sent.since != since);
                    plan.past = true;
                    Some(end)
                }
                None => None,
            };
            if let Some(passed) = progress.passed {
                plan.latest = plan.latest.min(passed.first.max(since));
            }
        }
        plan
    }

    /// The query that reads what was passed, for the rest of a page behind it that reached the end of the mailbox. Not
    /// for a requester that accepts none of the rows behind it either.
    pub(super) fn query_passed(
        &self,
        plan: &PagePlan,
        page: &Page,
        now: UnixSeconds,
    ) -> Option<Query> {
        let progress = self.requesters.get(&plan.request.requester)?;
        let passed = progress.passed?;
        let limit = plan.limit.saturating_sub(page.records.len());
        let due = !page.more
            && !plan.request.continued
            && plan.request.since == Some(passed.first)
            && plan.after >= Some(passed.end)
            && page.bytes <= self.config.max_bytes / 2;
        (due && limit > 0).then(|| Query {
            after: None,
            limit,
            max_bytes: self.config.max_bytes / 2,
            ..self.query(plan, now)
        })
    }

    /// Puts the rows that were passed behind the others.
    pub(super) fn append_passed(&mut self, plan: &mut PagePlan, page: &mut Page, passed: Page) {
        let records = passed.records.into_iter();
        let records = records.take_while(|record| Some(record.position()) <= plan.after);
        let before = page.records.len();
        page.records.extend(records);
        page.bytes = page.bytes.saturating_add(passed.bytes);
        plan.wrapped = page.records.len() > before;
        if !plan.wrapped
            && let Some(progress) = self.requesters.get_mut(&plan.request.requester)
        {
            // They have expired.
            progress.passed = None;
        }
    }

    /// The query that reads the page from the store.
    pub(super) fn query(&self, plan: &PagePlan, now: UnixSeconds) -> Query {
        let from = match self.config.order {
            Order::OldestFirst => plan.request.since,
            // Strict, as in the reference.
            Order::NewestFirst => plan.request.since.map(|since| since.saturating_add(1)),
        };
        Query {
            recipient: plan.request.requester,
            from,
            after: plan.after,
            limit: plan.limit,
            max_bytes: self.config.max_bytes,
            order: self.config.order,
            now,
        }
    }

    /// Puts the page in the order of the response: newest first, as in the reference, if nothing is left out.
    pub(super) fn arrange(&self, plan: &PagePlan, page: &mut Page) {
        if self.config.order == Order::OldestFirst && plan.request.since.is_none() && !page.more {
            page.records.reverse();
        }
    }

    /// Records that the transport has taken the response.
    pub(super) fn handed_over(&mut self, plan: &PagePlan, page: &Page) {
        let places = page.records.iter().map(StoredRecord::position);
        let last = match plan.wrapped {
            true => places.clone().next_back(),
            false => places.clone().max(),
        };
        let Some(last) = last else {
            if plan.past
                && let Some(progress) = self.requesters.get_mut(&plan.request.requester)
            {
                // Every row was sent without progress: begin again.
                progress.last = None;
            }
            return;
        };
        self.make_room(plan.request.requester);
        let progress = self.requesters.entry(plan.request.requester).or_default();
        progress.heard = self.requests;
        let since = plan.request.since.unwrap_or_default();
        let after = plan.after.filter(|_| !plan.wrapped);
        let times = match progress.last {
            Some(before) if before.after == after && last <= before.end => {
                before.times.saturating_add(before.doubtful.into())
            }
            _ => 1,
        };
        progress.last = Some(LastPage {
            since,
            after,
            first: places.clone().min().map_or(since, |first| first.stored_at),
            end: last,
            newest: last.stored_at.min(plan.latest),
            times,
            doubtful: false,
            continued: plan.request.continued,
        });
        for row in places {
            // A row sent twice is proven by what follows the second time.
            progress.unproven.retain(|sent| sent.row != row);
            progress.unproven.push_back(SentRow {
                row,
                newest: last.stored_at.min(plan.latest),
                since,
            });
        }
        while progress.unproven.len() > MAX_UNPROVEN {
            progress.unproven.pop_front();
        }
    }

    /// Takes [`Pager::handed_over`] back: the transport could not send the response after all.
    pub(super) fn not_sent(&mut self, plan: &PagePlan, page: &Page) {
        if let Some(progress) = self.requesters.get_mut(&plan.request.requester) {
            if let Some(last) = &mut progress.last {
                (last.doubtful, last.times) = (true, last.times.saturating_sub(1));
            }
            progress.unproven.retain(|sent| {
                page.records
                    .iter()
                    .all(|record| record.position() != sent.row)
            });
        }
    }

    /// Records that the connection to a requester has ended: the last response may not have arrived.
    ///
    /// A later request alone cannot prove a response within one second, so such rows are no longer remembered.
    pub(super) fn disconnected(&mut self, requester: Recipient) {
        if let Some(progress) = self.requesters.get_mut(&requester) {
            if let Some(last) = &mut progress.last {
                last.doubtful = true;
            }
            progress.unproven.retain(|sent| sent.newest > sent.since);
        }
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

impl PagePlan {
    /// The second that the requester is told for a row.
    pub(super) fn stored_at(&self, row: &StoredRecord) -> UnixSeconds {
        row.stored_at.min(self.latest)
    }
}

impl LastPage {
    /// Where to go on for a requester that asks for what comes behind the last response. One that may not have arrived is
    /// sent again.
    fn behind(&self, since: UnixSeconds) -> Next {
        if self.since == since && !self.doubtful {
            Next::Behind(Some(self.end))
        } else {
            self.next(since)
        }
    }

    /// Where to begin for a requester that asks from `since`.
    fn next(&self, since: UnixSeconds) -> Next {
        if self.continued && self.newest != since {
            return Next::Behind(None);
        }
        if self.newest == since {
            return if self.doubtful && self.times < SAME_SECOND_TIMES {
                Next::Behind(self.after)
            } else {
                Next::Behind(Some(self.end))
            };
        }
        if self.since != since {
            // A position in an earlier second changes nothing; one in a later second belongs to another request.
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
