//! Tracks requests for stored messages, and the peers that have not sent everything they store: 05 sections 7 to 9.
//! No I/O, no clock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use dht_core::{DedupHash, NodeId, UnixSeconds};

/// Peers that are asked at one time, far above the number of connections. Beyond it the oldest request is forgotten.
const MAX_PEERS: usize = 1024;
/// Ids of requests to one peer that are remembered; beyond it the oldest is forgotten.
const MAX_IDS: usize = 16;
/// Pages requested from one peer in a row. A full mailbox of default size takes some 300.
const MAX_PAGES: u32 = 1024;
/// Seconds without a response after which a peer counts as silent that was silent before: stock nodes from version 2 on
/// announce that they store messages, and never answer. A late response is taken nevertheless.
const SILENT_PEER_WAIT_SECONDS: u64 = 1;
/// Multiple of the patience for which a peer may send full pages without a new message, as that delays the summary.
const IDLE_PATIENCES: u64 = 10;

/// When responses must arrive, and whether they must name their request.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackerConfig {
    /// Whether a response that carries an id must carry the id of a pending request (05 defect D7).
    pub(super) match_ids: bool,
    /// Seconds after a request in which its response is accepted.
    pub(super) answer_seconds: u64,
    /// Seconds without a response after which a peer counts as silent.
    pub(super) patience_seconds: u64,
}

/// A request for stored messages, as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) id: u32,
    /// Second from which messages were asked for; 0 for all.
    pub(super) since: u64,
    /// Most messages asked for, 1 to 1024.
    pub(super) limit: usize,
    /// Oldest `stored_at` of the messages that were not taken off the pages before this one, which it continues.
    pub(super) left: Option<UnixSeconds>,
}

/// Why a response is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Unrequested {
    /// No request to this peer is pending.
    NotPending,
    /// Requests to this peer are pending, but none has the id of the response.
    WrongId,
    /// The response came too late.
    TooLate,
}

/// How fetching went, from the first request until no peer has more to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FetchSummary {
    /// Peers that were asked.
    pub asked: u64,
    /// Peers that sent everything they store for this node.
    pub answered: u64,
    /// Peers that did not: no response in time, a broken one, or the connection was lost.
    pub silent: u64,
    /// Messages that were new to this node.
    pub new: u64,
    /// Messages that this node had received before, usually from another of the peers asked.
    pub known: u64,
    /// Messages that failed a check, or that no application can read.
    pub refused: u64,
    /// Messages that this node had no place for: no application listens, or the inbox is full. They are asked for
    /// again.
    pub left: u64,
}

/// Messages of one page, by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct PageCounts {
    pub(super) new: u64,
    pub(super) known: u64,
    pub(super) refused: u64,
    /// Not taken, and to be asked for again.
    pub(super) left: u64,
}

/// Whether a fetch has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finished {
    /// It was begun again while it ran: the peer is to be asked once more.
    Again,
    /// It has; with the summary if it was the last one.
    Ended(Option<FetchSummary>),
}

/// Pending requests by peer, and the fetches that are running.
#[derive(Debug)]
pub(super) struct FetchTracker {
    config: TrackerConfig,
    pending: HashMap<NodeId, PendingRequest>,
    fetches: BTreeMap<NodeId, PeerFetch>,
    /// Peers that let a deadline pass and have sent no response since. Over [`MAX_PEERS`] it begins anew: keys are free, and
    /// a silent peer then costs one long wait more.
    silent: HashSet<NodeId>,
    /// Counts since no fetch was running.
    summary: Option<FetchSummary>,
}

/// Requests to one peer that are not answered.
#[derive(Debug)]
struct PendingRequest {
    count: u32,
    /// Time of the last request.
    registered: UnixSeconds,
    /// Those whose ids are remembered, oldest first.
    requests: VecDeque<Request>,
}

/// Fetching from one peer, page after page.
#[derive(Debug)]
struct PeerFetch {
    /// It was begun again since its last request from the beginning.
    again: bool,
    /// Pages that are being delivered to the application. While there are any the deadline does not count: the
    /// application is slow, not the peer.
    delivering: u32,
    deadline: UnixSeconds,
    /// Time of the start, or of the last page with a new message.
    last_new: UnixSeconds,
    pages: u32,
    /// Hash of the last page, to notice a repetition.
    last_page: Option<DedupHash>,
}

impl Finished {
    pub(super) const fn summary(self) -> Option<FetchSummary> {
        match self {
            Self::Again => None,
            Self::Ended(summary) => summary,
        }
    }
}

impl FetchTracker {
    pub(super) fn new(config: TrackerConfig) -> Self {
        Self {
            config,
            pending: HashMap::new(),
            fetches: BTreeMap::new(),
            silent: HashSet::new(),
            summary: None,
        }
    }

    /// Registers a request, before it is sent.
    pub(super) fn register(&mut self, peer: NodeId, request: Request, now: UnixSeconds) {
        if !self.pending.contains_key(&peer) && self.pending.len() >= MAX_PEERS {
            let oldest = self
                .pending
                .iter()
                .min_by_key(|(id, pending)| (pending.registered, **id));
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.pending.remove(&oldest);
            }
        }
        let pending = self.pending.entry(peer).or_insert_with(|| PendingRequest {
            count: 0,
            registered: now,
            requests: VecDeque::new(),
        });
        pending.count = pending.count.saturating_add(1);
        pending.registered = now;
        pending.requests.push_back(request);
        if pending.requests.len() > MAX_IDS {
            pending.requests.pop_front();
        }
    }

    /// Begins to fetch from a peer, and says whether to ask it now. If a fetch is running, the peer is asked once more
    /// when that has ended, however often it was begun: requests that overlap would only get the same pages.
    pub(super) fn begin(&mut self, peer: NodeId, now: UnixSeconds) -> bool {
        let patience = match self.silent.contains(&peer) {
            true => self.config.patience_seconds.min(SILENT_PEER_WAIT_SECONDS),
            false => self.config.patience_seconds,
        };
        let deadline = now.saturating_add(patience);
        if let Some(fetch) = self.fetches.get_mut(&peer) {
            fetch.again = true;
            return false;
        }
        if self.fetches.len() >= MAX_PEERS {
            return true;
        }
        let fetch = PeerFetch {
            again: false,
            delivering: 0,
            deadline,
            last_new: now,
            pages: 1,
            last_page: None,
        };
        self.fetches.insert(peer, fetch);
        let summary = self.summary.get_or_insert_default();
        summary.asked = summary.asked.saturating_add(1);
        true
    }

    /// Whether a request to this peer is pending; to be called before a response is decoded.
    pub(super) fn is_pending(&self, peer: &NodeId) -> bool {
        self.pending.contains_key(peer)
    }

    /// Takes a response, which uses up one request, and returns that request if it is remembered. `id` is `None` for a response that did not decode.
    ///
    /// With `match_ids`, a response that carries an id must carry that of a pending request, and uses up that one.
    pub(super) fn take(
        &mut self,
        peer: &NodeId,
        id: Option<u32>,
        now: UnixSeconds,
    ) -> Result<Option<Request>, Unrequested> {
        let pending = self.pending.get_mut(peer).ok_or(Unrequested::NotPending)?;
        let at = match id {
            Some(id) => pending.requests.iter().position(|it| it.id == id),
            None => None,
        };
        if at.is_none() && self.config.match_ids && id.is_some_and(|id| id != 0) {
            return Err(Unrequested::WrongId);
        }
        let request = pending.requests.remove(at.unwrap_or(0));
        pending.count = pending.count.saturating_sub(1);
        let age = now.saturating_since(pending.registered);
        if pending.count == 0 {
            self.pending.remove(peer);
        }
        if age > self.config.answer_seconds {
            return Err(Unrequested::TooLate);
        }
        self.silent.remove(peer);
        Ok(request)
    }

    /// Adds a page to the summary.
    pub(super) fn count(&mut self, counts: PageCounts) {
        if let Some(summary) = &mut self.summary {
            summary.new = summary.new.saturating_add(counts.new);
            summary.known = summary.known.saturating_add(counts.known);
            summary.refused = summary.refused.saturating_add(counts.refused);
            summary.left = summary.left.saturating_add(counts.left);
        }
    }

    /// A page of this peer is being delivered: its deadline does not count until [`FetchTracker::delivered`].
    pub(super) fn delivering(&mut self, peer: &NodeId) {
        if let Some(fetch) = self.fetches.get_mut(peer) {
            fetch.delivering = fetch.delivering.saturating_add(1);
        }
    }

    /// The application has the page; the deadline of the peer starts again.
    pub(super) fn delivered(&mut self, peer: &NodeId, now: UnixSeconds) {
        let deadline = now.saturating_add(self.config.patience_seconds);
        if let Some(fetch) = self.fetches.get_mut(peer) {
            fetch.delivering = fetch.delivering.saturating_sub(1);
            fetch.deadline = deadline;
        }
    }

    /// Whether one more page may be requested from this peer; if so, its deadline starts again.
    ///
    /// Not if the page repeats the one before, nor if no page has had a new message for long.
    pub(super) fn continues(
        &mut self,
        peer: &NodeId,
        page: DedupHash,
        counts: PageCounts,
        now: UnixSeconds,
    ) -> bool {
        let deadline = now.saturating_add(self.config.patience_seconds);
        let most_idle = self.config.patience_seconds.saturating_mul(IDLE_PATIENCES);
        if !self.fetches.contains_key(peer) {
            // It was given up before it responded: what it still has is fetched all the same.
            if self.fetches.len() >= MAX_PEERS || !self.begin(*peer, now) {
                return false;
            }
            if let Some(fetch) = self.fetches.get_mut(peer) {
                fetch.last_page = Some(page);
            }
            return true;
        }
        let Some(fetch) = self.fetches.get_mut(peer) else {
            return false;
        };
        if counts.new > 0 {
            fetch.last_new = now;
        }
        if fetch.pages >= MAX_PAGES
            || fetch.last_page == Some(page)
            || now.saturating_since(fetch.last_new) > most_idle
        {
            return false;
        }
        fetch.pages = fetch.pages.saturating_add(1);
        fetch.deadline = deadline;
        fetch.last_page = Some(page);
        true
    }

    /// The peer has sent its last page.
    pub(super) fn finished(&mut self, peer: &NodeId) -> Finished {
        match self.fetches.get_mut(peer) {
            Some(fetch) if fetch.again => {
                (fetch.again, fetch.last_page) = (false, None);
                Finished::Again
            }
            _ => Finished::Ended(self.close(peer, true)),
        }
    }

    /// The peer will not respond: it disconnected, or could not be asked. Returns the summary if no fetch is left.
    pub(super) fn given_up(&mut self, peer: &NodeId) -> Option<FetchSummary> {
        self.close(peer, false)
    }

    /// Gives up peers past their deadline, and forgets old requests (05 section 4, step 1). Returns the summary if no
    /// fetch is left.
    pub(super) fn tick(&mut self, now: UnixSeconds) -> Option<FetchSummary> {
        let forget = self.config.answer_seconds.saturating_mul(2);
        self.pending
            .retain(|_, pending| now.saturating_since(pending.registered) <= forget);
        let late: Vec<NodeId> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.delivering == 0 && fetch.deadline < now)
            .map(|(peer, _)| *peer)
            .collect();
        if self.silent.len().saturating_add(late.len()) > MAX_PEERS {
            self.silent.clear();
        }
        self.silent.extend(late.iter().take(MAX_PEERS));
        late.iter().filter_map(|peer| self.given_up(peer)).last()
    }

    /// Whether no fetch is running.
    pub(super) fn is_idle(&self) -> bool {
        self.fetches.is_empty()
    }

    fn close(&mut self, peer: &NodeId, answered: bool) -> Option<FetchSummary> {
        self.fetches.remove(peer)?;
        let summary = self.summary.as_mut()?;
        if answered {
            summary.answered = summary.answered.saturating_add(1);
        } else {
            summary.silent = summary.silent.saturating_add(1);
        }
        if self.fetches.is_empty() {
            self.summary.take()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
