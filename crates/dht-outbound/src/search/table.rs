//! Which searches are under way.

use dht_core::PublicKey;
use dht_stack::Watch;
use tokio::time::Instant;

use super::{Answered, SearchCause, SearchError, SearchLimits, SearchProgress};

/// At most [`SearchLimits::searches`] entries, so few that a scan is the fastest look-up.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Search>);

#[derive(Debug)]
struct Search {
    nonce: u64,
    /// On whose behalf it was begun.
    cause: SearchCause,
    /// When the last discovery was sent.
    asked: Instant,
    answered: Answered,
}

/// Action for a caller that searches.
pub(super) enum Joined {
    /// A discovery has been sent: wait for its outcome.
    Waiting(Watch<SearchProgress>),
    /// Send a discovery with this nonce, then wait.
    Leading {
        nonce: u64,
        /// Whether no other caller searches for the key.
        is_new: bool,
        outcome: Watch<SearchProgress>,
    },
}

impl Table {
    /// Joins the search for `key`, or begins it with `nonce`.
    pub(super) fn join(
        &mut self,
        key: &PublicKey,
        nonce: u64,
        cause: SearchCause,
        limits: &SearchLimits,
    ) -> Result<Joined, SearchError> {
        let now = Instant::now();
        self.forget(now, limits);
        if let Some(search) = self.0.iter_mut().find(|held| held.answered.sought == *key) {
            let outcome = search.answered.outcome.clone();
            if now.duration_since(search.asked) < limits.interval {
                return Ok(Joined::Waiting(outcome));
            }
            search.asked = now;
            return Ok(Joined::Leading {
                nonce: search.nonce,
                is_new: false,
                outcome,
            });
        }
        let held = self.0.iter().filter(|search| search.cause == cause);
        if held.count() >= cause.share(limits.searches) {
            self.make_room(now, cause, limits)?;
        }
        let outcome = Watch::new(SearchProgress::Waiting);
        self.0.push(Search {
            nonce,
            cause,
            asked: now,
            answered: Answered {
                sought: *key,
                outcome: outcome.clone(),
            },
        });
        Ok(Joined::Leading {
            nonce,
            is_new: true,
            outcome,
        })
    }

    /// Takes the search with this nonce out.
    pub(super) fn take(&mut self, nonce: u64) -> Option<Answered> {
        let at = self.0.iter().position(|search| search.nonce == nonce)?;
        Some(self.0.swap_remove(at).answered)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets searches without waiting callers once an answer would be late.
    fn forget(&mut self, now: Instant, limits: &SearchLimits) {
        self.0.retain(|search| {
            search.is_waited_for() || now.duration_since(search.asked) < limits.timeout
        });
    }

    /// Gives up the oldest search of a cause without waiting callers, but not so early that keys could be searched for faster
    /// than the limits say.
    fn make_room(
        &mut self,
        now: Instant,
        cause: SearchCause,
        limits: &SearchLimits,
    ) -> Result<(), SearchError> {
        let given_up = |search: &Search| {
            search.cause == cause
                && !search.is_waited_for()
                && now.duration_since(search.asked) >= limits.interval
        };
        let searches = self.0.iter().enumerate();
        let oldest = searches
            .filter(|(_, search)| given_up(search))
            .min_by_key(|(_, search)| search.asked);
        let (at, _) = oldest.ok_or(SearchError::TooManySearches)?;
        self.0.swap_remove(at);
        Ok(())
    }
}

impl Search {
    fn is_waited_for(&self) -> bool {
        self.answered.outcome.is_shared()
    }
}
