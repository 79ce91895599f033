//! Whom to ask for stored mail, what was asked, and whether everybody has answered: sections 7 to 9. No I/O.

use std::collections::{HashMap, VecDeque};

use dht_core::{AttributionProfile, DedupHash, Distance, Features, NodeId, UnixSeconds};

/// Peers that can be asked at one time; far above the number of connections.
pub const MAX_ASKED: usize = 1024;
/// Ids of requests to one peer that are remembered.
const MAX_IDS: usize = 16;
/// Answers that are asked of one peer in a row. A full mailbox of default size takes some 300.
const MAX_PAGES: u32 = 1024;
/// Times the patience that a peer may go on with full answers in which nothing is new: it holds up the round.
const FRUITLESS: u64 = 10;

/// Which connected peers are asked without being told to (section 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskRule {
    /// Whether any is. Defaults to true.
    pub auto_request: bool,
    /// Only peers no farther than the n-th closest of those connected, if a number is given. Defaults to `None`.
    pub closest: Option<usize>,
}

/// What the requests of this node are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskConfig {
    /// Whether answers must carry the id of a request (defect D7). Defaults to [`AttributionProfile::Strict`].
    pub profile: AttributionProfile,
    /// Seconds after which an answer is too late (`saf.max_inflight_request_age`). Defaults to 120.
    pub max_age_seconds: u64,
    /// Seconds without an answer after which a round counts a peer as silent. Defaults to 30.
    pub patience_seconds: u64,
}

/// Why an answer is let go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unasked {
    /// This peer owes no answer.
    Unrequested,
    /// It owes one, but not this one.
    WrongId,
    /// It took too long.
    TooLate,
}

/// How one round of asking went: from the first question until nobody owes an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Round {
    /// Peers that were asked.
    pub asked: u64,
    /// Those that said all they had.
    pub answered: u64,
    /// Those that did not: no answer in time, or the connection was lost.
    pub silent: u64,
    /// Messages that were new to this node.
    pub new: u64,
    /// Messages it had before, most of them from another of those asked.
    pub known: u64,
    /// Messages that were let go.
    pub refused: u64,
}

/// What one answer brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Brought {
    /// Messages that were new.
    pub new: u64,
    /// Messages known before.
    pub known: u64,
    /// Messages let go.
    pub refused: u64,
}

/// Who owes an answer.
#[derive(Debug)]
pub struct Asking {
    config: AskConfig,
    inquiries: HashMap<NodeId, Inquiry>,
    /// Peers of the present round that have not said all they have.
    open: HashMap<NodeId, Conversation>,
    round: Option<Round>,
}

#[derive(Debug)]
struct Inquiry {
    count: u32,
    registered: UnixSeconds,
    ids: VecDeque<u32>,
}

#[derive(Debug)]
struct Conversation {
    /// Questions without a last answer.
    questions: u32,
    /// Answers that are being handed to the application, which may take its time: it is not the peer that is silent.
    handling: u32,
    deadline: UnixSeconds,
    /// When it began, or last brought something new.
    fruitful: UnixSeconds,
    pages: u32,
    /// Names the last page, to notice one that comes again and again.
    last: Option<DedupHash>,
}

/// Counts answers from the start of a run until the event of section 9, which comes once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FirstReceived {
    needed: Option<usize>,
    counted: usize,
    done: bool,
}

impl Default for AskRule {
    fn default() -> Self {
        Self {
            auto_request: true,
            closest: None,
        }
    }
}

impl Default for AskConfig {
    fn default() -> Self {
        Self {
            profile: AttributionProfile::default(),
            max_age_seconds: 120,
            patience_seconds: 30,
        }
    }
}

// === impl AskRule ===

impl AskRule {
    /// Whether to ask `peer`, known to offer `features`, now that it is connected. `active` are all connected peers.
    #[must_use]
    pub fn asks(
        &self,
        me: &NodeId,
        peer: &NodeId,
        features: Option<Features>,
        active: impl IntoIterator<Item = NodeId>,
    ) -> bool {
        let stores = features.is_some_and(|it| it.contains(Features::DHT_STORE_FORWARD));
        if !self.auto_request || !stores {
            return false;
        }
        let Some(closest) = self.closest else {
            return true;
        };
        let mut distances: Vec<Distance> = active
            .into_iter()
            .map(|other| me.distance(&other))
            .collect();
        distances.sort_unstable();
        let nth = distances.get(closest.saturating_sub(1));
        let reference = nth
            .or_else(|| distances.last())
            .copied()
            .unwrap_or(Distance::MAX);
        me.distance(peer) <= reference
    }
}

// === impl Asking ===

impl Asking {
    /// Nobody has been asked.
    #[must_use]
    pub fn new(config: AskConfig) -> Self {
        Self {
            config,
            inquiries: HashMap::new(),
            open: HashMap::new(),
            round: None,
        }
    }

    /// Notes a request, before it is sent.
    pub fn register(&mut self, peer: NodeId, id: u32, now: UnixSeconds) {
        if !self.inquiries.contains_key(&peer) && self.inquiries.len() >= MAX_ASKED {
            let oldest = self
                .inquiries
                .iter()
                .min_by_key(|(id, inquiry)| (inquiry.registered, **id));
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.inquiries.remove(&oldest);
            }
        }
        let inquiry = self.inquiries.entry(peer).or_insert_with(|| Inquiry {
            count: 0,
            registered: now,
            ids: VecDeque::new(),
        });
        inquiry.count = inquiry.count.saturating_add(1);
        inquiry.registered = now;
        inquiry.ids.push_back(id);
        if inquiry.ids.len() > MAX_IDS {
            inquiry.ids.pop_front();
        }
    }

    /// Counts the peer among those asked in this round. False if it has not answered an earlier question yet: it is
    /// then waited for until it has answered both.
    pub fn begin(&mut self, peer: NodeId, now: UnixSeconds) -> bool {
        let deadline = now.saturating_add(self.config.patience_seconds);
        if let Some(conversation) = self.open.get_mut(&peer) {
            conversation.questions = conversation.questions.saturating_add(1);
            conversation.deadline = deadline;
            return false;
        }
        if self.open.len() >= MAX_ASKED {
            return false;
        }
        let conversation = Conversation {
            questions: 1,
            handling: 0,
            deadline,
            fruitful: now,
            pages: 1,
            last: None,
        };
        self.open.insert(peer, conversation);
        let round = self.round.get_or_insert_default();
        round.asked = round.asked.saturating_add(1);
        true
    }

    /// Whether this peer owes an answer; to be asked before anything is decoded.
    #[must_use]
    pub fn owes(&self, peer: &NodeId) -> bool {
        self.inquiries.contains_key(peer)
    }

    /// Takes an answer: it uses up one request. `id` is `None` for an answer that did not decode.
    ///
    /// In the strict profile an answer that carries an id must carry one that is owed, and uses up that request.
    ///
    /// # Errors
    /// [`Unasked`].
    pub fn take(
        &mut self,
        peer: &NodeId,
        id: Option<u32>,
        now: UnixSeconds,
    ) -> Result<(), Unasked> {
        let inquiry = self.inquiries.get_mut(peer).ok_or(Unasked::Unrequested)?;
        let at = match id {
            Some(id) if id != 0 && self.config.profile == AttributionProfile::Strict => {
                let at = inquiry.ids.iter().position(|owed| *owed == id);
                Some(at.ok_or(Unasked::WrongId)?)
            }
            Some(id) => inquiry.ids.iter().position(|owed| *owed == id),
            None => None,
        };
        inquiry.ids.remove(at.unwrap_or(0));
        inquiry.count = inquiry.count.saturating_sub(1);
        let age = now.saturating_since(inquiry.registered);
        if inquiry.count == 0 {
            self.inquiries.remove(peer);
        }
        if age > self.config.max_age_seconds {
            return Err(Unasked::TooLate);
        }
        Ok(())
    }

    /// Adds what an answer brought to the round.
    pub fn count(&mut self, brought: Brought) {
        if let Some(round) = &mut self.round {
            round.new = round.new.saturating_add(brought.new);
            round.known = round.known.saturating_add(brought.known);
            round.refused = round.refused.saturating_add(brought.refused);
        }
    }

    /// An answer of this peer has come; its time does not run until [`Asking::handled`].
    pub fn handling(&mut self, peer: &NodeId) {
        if let Some(conversation) = self.open.get_mut(peer) {
            conversation.handling = conversation.handling.saturating_add(1);
        }
    }

    /// What came is with the application; from now on the peer's time runs anew.
    pub fn handled(&mut self, peer: &NodeId, now: UnixSeconds) {
        let deadline = now.saturating_add(self.config.patience_seconds);
        if let Some(conversation) = self.open.get_mut(peer) {
            conversation.handling = conversation.handling.saturating_sub(1);
            conversation.deadline = deadline;
        }
    }

    /// Whether one more page may be asked of this peer after this one; if so, it gets its time anew.
    ///
    /// A page that equals the one before means that asking leads nowhere, and so do pages that bring nothing new for
    /// long.
    pub fn goes_on(
        &mut self,
        peer: &NodeId,
        page: DedupHash,
        brought: Brought,
        now: UnixSeconds,
    ) -> bool {
        let deadline = now.saturating_add(self.config.patience_seconds);
        let fruitless = self.config.patience_seconds.saturating_mul(FRUITLESS);
        let Some(conversation) = self.open.get_mut(peer) else {
            return false;
        };
        if brought.new > 0 {
            conversation.fruitful = now;
        }
        if conversation.pages >= MAX_PAGES
            || conversation.last == Some(page)
            || now.saturating_since(conversation.fruitful) > fruitless
        {
            return false;
        }
        conversation.pages = conversation.pages.saturating_add(1);
        conversation.deadline = deadline;
        conversation.last = Some(page);
        true
    }

    /// The peer has said all it has, in answer to one question. Answers the round, if nobody is waited for.
    pub fn finished(&mut self, peer: &NodeId) -> Option<Round> {
        let conversation = self.open.get_mut(peer)?;
        conversation.questions = conversation.questions.saturating_sub(1);
        if conversation.questions > 0 {
            return None;
        }
        self.close(peer, true)
    }

    /// The peer will not answer: it has gone, or could not be asked.
    pub fn given_up(&mut self, peer: &NodeId) -> Option<Round> {
        self.close(peer, false)
    }

    /// Gives up whoever was silent for too long, and forgets old requests (section 4, step 1).
    pub fn tick(&mut self, now: UnixSeconds) -> Option<Round> {
        let forget = self.config.max_age_seconds.saturating_mul(2);
        self.inquiries
            .retain(|_, inquiry| now.saturating_since(inquiry.registered) <= forget);
        let late: Vec<NodeId> = self
            .open
            .iter()
            .filter(|(_, conversation)| conversation.handling == 0 && conversation.deadline < now)
            .map(|(peer, _)| *peer)
            .collect();
        late.iter().filter_map(|peer| self.given_up(peer)).last()
    }

    /// Whether anybody is waited for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    fn close(&mut self, peer: &NodeId, answered: bool) -> Option<Round> {
        self.open.remove(peer)?;
        let round = self.round.as_mut()?;
        if answered {
            round.answered = round.answered.saturating_add(1);
        } else {
            round.silent = round.silent.saturating_add(1);
        }
        if self.open.is_empty() {
            self.round.take()
        } else {
            None
        }
    }
}

// === impl FirstReceived ===

impl FirstReceived {
    /// Going online with `n` peers; only the first time counts. True if the event is due.
    pub fn online(&mut self, n: usize) -> bool {
        self.needed.get_or_insert(n);
        self.is_due()
    }

    /// An answer was taken. True if the event is due.
    pub fn answered(&mut self) -> bool {
        if !self.done {
            self.counted = self.counted.saturating_add(1);
        }
        self.is_due()
    }

    fn is_due(&mut self) -> bool {
        let due = !self.done && self.needed.is_some_and(|needed| self.counted >= needed);
        self.done |= due;
        due
    }
}

#[cfg(test)]
mod tests;
