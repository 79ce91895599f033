//! The states of an outgoing message. Performs no I/O and reads no clock.
//!
//! Knowledge of a message only grows: `Queued < Sent < Stored < Failed < Expired < Received`. An attempt that
//! brings less than is known, as a copy sent after holders confirmed theirs, counts as an attempt and changes no
//! state. An entry ends with the transition that plans no further attempt: a message that was sent or stored for good keeps
//! that state. An entry that has ended accepts nothing but the recipient's receipt, which may come late.

use dht_core::UnixSeconds;

use super::entry::{SendState, StateKind};
use crate::error::SpoolError;

/// Event that changes the state of an outgoing message.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Transition {
    /// An attempt brought nothing.
    Retry {
        /// Time of the next attempt.
        at: UnixSeconds,
        /// Error text, cut to [`MAX_TEXT_BYTES`](crate::config::MAX_TEXT_BYTES); `None` keeps the one before.
        error: Option<String>,
    },
    /// An attempt handed a copy to a connection.
    Sent {
        /// Time of the next attempt unless a receipt comes first; `None` plans no further attempt and ends the entry.
        retry_at: Option<UnixSeconds>,
    },
    /// Mailbox holders confirmed a copy.
    Stored {
        /// Number of holders that confirmed a copy so far.
        holders: u32,
        /// Time of the next attempt to find more holders; `None` plans no further attempt and ends the entry.
        retry_at: Option<UnixSeconds>,
    },
    /// Mailbox holders confirmed a copy in an attempt that goes on.
    Confirmed {
        /// Number of holders that confirmed a copy so far.
        holders: u32,
    },
    /// The recipient's node confirmed it.
    Received,
    /// It cannot be sent, or was withdrawn.
    Failed {
        /// Reason shown to the client; cut to [`MAX_TEXT_BYTES`](crate::config::MAX_TEXT_BYTES).
        reason: String,
    },
}

impl Transition {
    /// Whether it ends the entry: no attempt follows.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        match self {
            Self::Retry { .. } | Self::Confirmed { .. } => false,
            Self::Sent { retry_at } | Self::Stored { retry_at, .. } => retry_at.is_none(),
            Self::Received | Self::Failed { .. } => true,
        }
    }
}

/// Progress of an outgoing message, without texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryProgress {
    pub(crate) kind: StateKind,
    /// Holders that confirmed a copy.
    pub(crate) holders: u32,
    pub(crate) attempts: u32,
    pub(crate) next_attempt: Option<UnixSeconds>,
    pub(crate) ended_at: Option<UnixSeconds>,
}

impl EntryProgress {
    /// A new entry, to be tried at once.
    pub(crate) const fn queued(now: UnixSeconds) -> Self {
        Self {
            kind: StateKind::Queued,
            holders: 0,
            attempts: 0,
            next_attempt: Some(now),
            ended_at: None,
        }
    }

    /// The state with what it carries; `text` is the last error or reason.
    pub(crate) fn state(&self, text: Option<&str>) -> SendState {
        match self.kind {
            StateKind::Queued => SendState::Queued,
            StateKind::Sent => SendState::Sent,
            StateKind::Stored => SendState::Stored {
                holders: self.holders,
            },
            StateKind::Failed => SendState::Failed {
                reason: text.unwrap_or_default().to_owned(),
            },
            StateKind::Expired => SendState::Expired,
            StateKind::Received => SendState::Received,
        }
    }

    /// The progress after a transition.
    pub(crate) fn after(
        self,
        transition: &Transition,
        now: UnixSeconds,
    ) -> Result<Self, SpoolError> {
        let ended = self.ended_at.is_some();
        if self.kind == StateKind::Received
            || (ended && !matches!(transition, Transition::Received))
        {
            return match transition {
                Transition::Received => Ok(self),
                _ => Err(SpoolError::Ended),
            };
        }
        let mut after = self;
        match transition {
            Transition::Retry { at, .. } => {
                after.attempts = self.attempts.saturating_add(1);
                after.next_attempt = Some(*at);
            }
            Transition::Sent { retry_at } => {
                after.attempts = self.attempts.saturating_add(1);
                after.kind = self.kind.max(StateKind::Sent);
                after.next_attempt = *retry_at;
            }
            Transition::Stored { holders, retry_at } => {
                after.attempts = self.attempts.saturating_add(1);
                after.kind = self.kind.max(StateKind::Stored);
                after.holders = self.holders.max(*holders);
                after.next_attempt = *retry_at;
            }
            Transition::Confirmed { holders } => {
                after.kind = self.kind.max(StateKind::Stored);
                after.holders = self.holders.max(*holders);
            }
            Transition::Received => {
                after.kind = StateKind::Received;
                after.next_attempt = None;
            }
            Transition::Failed { .. } => {
                after.kind = StateKind::Failed;
                after.next_attempt = None;
            }
        }
        if transition.is_end() {
            after.ended_at = self.ended_at.or(Some(now));
        }
        Ok(after)
    }

    /// The progress once the time to live is over. A message that is stored keeps its state; any other that was still being
    /// tried has expired.
    pub(crate) fn expired(self, now: UnixSeconds) -> Self {
        if self.ended_at.is_some() {
            return self;
        }
        // In files of earlier versions a message that was sent for good has no next attempt, and has not ended.
        let kind = match (self.kind, self.next_attempt) {
            (StateKind::Queued, _) | (StateKind::Sent, Some(_)) => StateKind::Expired,
            (kind, _) => kind,
        };
        Self {
            kind,
            next_attempt: None,
            ended_at: Some(now),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A transition, or the end of the time to live.
    fn transition() -> impl Strategy<Value = Option<Transition>> {
        let at = || (0..100_u64).prop_map(UnixSeconds);
        let transition = prop_oneof![
            at().prop_map(|at| Transition::Retry { at, error: None }),
            proptest::option::of(at()).prop_map(|retry_at| Transition::Sent { retry_at }),
            (0..5_u32, proptest::option::of(at()))
                .prop_map(|(holders, retry_at)| Transition::Stored { holders, retry_at }),
            (0..5_u32).prop_map(|holders| Transition::Confirmed { holders }),
            Just(Transition::Received),
            Just(Transition::Failed {
                reason: String::new()
            }),
        ];
        proptest::option::weighted(0.8, transition)
    }

    proptest! {
        #[test]
        fn knowledge_only_grows(steps in proptest::collection::vec(transition(), 1..20)) {
            let mut progress = EntryProgress::queued(UnixSeconds(0));
            for (now, step) in steps.into_iter().enumerate() {
                let now = UnixSeconds(now as u64);
                let before = progress;
                progress = match &step {
                    None => before.expired(now),
                    Some(step) => match before.after(step, now) {
                        Ok(after) => after,
                        Err(error) => {
                            prop_assert_eq!(error, SpoolError::Ended);
                            prop_assert!(before.ended_at.is_some());
                            prop_assert_ne!(step, &Transition::Received);
                            before
                        }
                    },
                };
                prop_assert!(progress.kind >= before.kind);
                prop_assert!(progress.holders >= before.holders);
                prop_assert!(progress.attempts >= before.attempts);
                if before.ended_at.is_some() {
                    prop_assert_eq!(progress.ended_at, before.ended_at, "nothing ends twice");
                }
                if before.kind == StateKind::Received {
                    prop_assert_eq!(progress, before, "no way back from received");
                }
                prop_assert_eq!(
                    progress.ended_at.is_some(),
                    progress.next_attempt.is_none(),
                    "an entry that has not ended is tried again"
                );
                if progress.kind >= StateKind::Failed {
                    prop_assert!(progress.ended_at.is_some());
                }
            }
        }
    }

    #[test]
    fn expiry_keeps_what_was_achieved() {
        let now = UnixSeconds(9);
        let queued = EntryProgress::queued(UnixSeconds(0));
        assert_eq!(queued.expired(now).kind, StateKind::Expired);
        let sent = |retry_at| queued.after(&Transition::Sent { retry_at }, now).unwrap();
        assert_eq!(sent(Some(now)).expired(now).kind, StateKind::Expired);
        assert_eq!(sent(None).expired(now).kind, StateKind::Sent);
        let stored = Transition::Stored {
            holders: 1,
            retry_at: Some(now),
        };
        let stored = queued.after(&stored, now).unwrap().expired(now);
        assert_eq!(stored.kind, StateKind::Stored);
        let late = stored
            .after(&Transition::Received, UnixSeconds(10))
            .unwrap();
        assert_eq!(late.kind, StateKind::Received);
        assert_eq!(late.ended_at, Some(now));
    }
}
