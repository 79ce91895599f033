//! Handle of the application on a message it sent.

use std::{fmt, sync::Arc};

use dht_spool::{Entry, EntryId, SendState, StateKind};
use tokio::sync::watch;

use super::sending::Sending;

/// A message that was given to [`Node::send`](crate::Node::send). It is delivered whether or not this is kept.
///
/// A message may skip states, and a slow reader does not see each: every state that is seen is further than the one
/// before.
///
/// ```no_run
/// # async fn f(node: &dht_node::Node, to: &dht_core::PublicKey, message: dht_node::Message) -> Result<(), Box<dyn std::error::Error>> {
/// use dht_node::{SendOptions, StateKind};
///
/// let mut delivery = node.send(to, message, SendOptions::default()).await?;
/// delivery.wait(StateKind::Sent).await?;
/// while let Some(state) = delivery.next().await {
///     println!("{}: {state:?}", delivery.id());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Delivery {
    id: EntryId,
    status: watch::Receiver<DeliveryStatus>,
    /// State that the caller was told last by waiting; at first, that of the beginning.
    told: SendState,
    entry: Option<Box<Entry>>,
}

/// Progress of a message as the application is told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DeliveryStatus {
    pub(super) state: SendState,
    /// Nothing more is planned: only a late receipt may change the state.
    pub(super) is_complete: bool,
    /// Error text of the last attempt, also of an earlier life of the node.
    pub(super) last_error: Option<Arc<str>>,
    /// Whether an attempt of this life has failed.
    pub(super) has_failed: bool,
}

/// A message did not get as far as was waited for, and nothing more is planned for it in this life of the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message {}{}", name(state), reason(state, last_error.as_deref()))]
pub struct Undelivered {
    /// How far it got.
    pub state: SendState,
    /// Error text of the last attempt.
    pub last_error: Option<Arc<str>>,
}

impl DeliveryStatus {
    /// How far a message got before this life of the node.
    pub(super) fn before(entry: &Entry) -> Self {
        Self {
            state: entry.state.clone(),
            is_complete: false,
            last_error: entry.last_error.as_deref().map(Arc::from),
            has_failed: false,
        }
    }

    /// How far a message got, whether or not that is written down.
    pub(super) fn of(sending: &Sending) -> Self {
        Self {
            state: sending.state().clone(),
            is_complete: sending.is_complete(),
            last_error: sending.last_error().map(Arc::from),
            has_failed: sending.last_error().is_some(),
        }
    }

    /// A message that ended in this state.
    pub(super) const fn ended(state: SendState) -> Self {
        Self {
            state,
            is_complete: true,
            last_error: None,
            has_failed: false,
        }
    }

    /// Takes over what is written down; answers whether anything changed. A state never goes back, in whichever order the
    /// writes are reported.
    pub(super) fn advance(&mut self, written: Self) -> bool {
        let before = self.clone();
        if rank(&written.state) >= rank(&self.state) {
            self.state = written.state;
        }
        self.is_complete |= written.is_complete;
        self.has_failed |= written.has_failed;
        self.last_error = written.last_error.or_else(|| self.last_error.take());
        *self != before
    }

    /// Takes over what need not be written down first: that a copy was sent, and the last error. Answers whether anything
    /// changed.
    pub(super) fn advance_unwritten(&mut self, sending: &Sending) -> bool {
        let state = sending.state();
        let has_sent = *state == SendState::Sent && self.state == SendState::Queued;
        if has_sent {
            self.state = state.clone();
        }
        let error = sending.last_error();
        let is_known = self.has_failed && error == self.last_error.as_deref();
        let has_failed = error.is_some() && !is_known;
        if has_failed {
            self.last_error = error.map(Arc::from);
            self.has_failed = true;
        }
        has_sent || has_failed
    }
}

/// States that are further have a higher rank.
fn rank(state: &SendState) -> (StateKind, u32) {
    let holders = match state {
        SendState::Stored { holders } => *holders,
        _ => 0,
    };
    (state.kind(), holders)
}

impl Delivery {
    pub(super) fn new(id: EntryId, status: watch::Receiver<DeliveryStatus>) -> Self {
        let told = status.borrow().state.clone();
        Self {
            id,
            status,
            told,
            entry: None,
        }
    }

    /// The entry that was put for this delivery.
    pub(super) fn with_entry(self, entry: Entry) -> Self {
        Self {
            entry: Some(Box::new(entry)),
            ..self
        }
    }

    /// A message that has ended, also as sent or stored.
    pub(super) fn ended(id: EntryId, state: SendState, last_error: Option<String>) -> Self {
        let status = DeliveryStatus {
            last_error: last_error.map(Arc::from),
            ..DeliveryStatus::ended(state)
        };
        Self::new(id, watch::channel(status).1)
    }

    /// Id of the entry in the [outbox](crate::Node::outbox).
    #[must_use]
    pub const fn id(&self) -> EntryId {
        self.id
    }

    /// The entry as it was put in the [outbox](crate::Node::outbox); `None` if the message was there before, with the same
    /// idempotency key, or was looked up.
    #[must_use]
    pub fn entry(&self) -> Option<&Entry> {
        self.entry.as_deref()
    }

    /// State as it is known now.
    #[must_use]
    pub fn state(&self) -> SendState {
        self.status.borrow().state.clone()
    }

    /// Error text of the last attempt; `None` if none failed so far.
    #[must_use]
    pub fn last_error(&self) -> Option<Arc<str>> {
        self.status.borrow().last_error.clone()
    }

    /// Waits for a further state; `None` once nothing more is planned for the message, or the node has stopped.
    ///
    /// # Cancel safety
    /// Dropping the future loses no state.
    pub async fn next(&mut self) -> Option<SendState> {
        let Self { status, told, .. } = self;
        let further = status.wait_for(|now| now.state != *told || now.is_complete);
        let state = further.await.ok()?.state.clone();
        (state != std::mem::replace(told, state.clone())).then_some(state)
    }

    /// Waits until the message has got at least this far: [`Sent`](StateKind::Sent), [`Stored`](StateKind::Stored) or
    /// [`Received`](StateKind::Received). Waits as long as attempts are planned; set a time limit.
    ///
    /// # Errors
    /// [`Undelivered`] if nothing more is planned, also because the message failed or expired, or the node has
    /// stopped.
    ///
    /// # Cancel safety
    /// Dropping the future loses no state.
    pub async fn wait(&mut self, kind: StateKind) -> Result<SendState, Undelivered> {
        self.wait_or(kind, |_| false).await
    }

    /// As [`wait`](Self::wait) for [`Sent`](StateKind::Sent), but only until an attempt of this life of the node has
    /// failed. The message is tried again nevertheless, unless it is [withdrawn](crate::Node::withdraw).
    ///
    /// # Errors
    /// [`Undelivered`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no state.
    pub async fn first_attempt(&mut self) -> Result<SendState, Undelivered> {
        self.wait_or(StateKind::Sent, |now| now.has_failed).await
    }

    async fn wait_or(
        &mut self,
        kind: StateKind,
        enough: impl Fn(&DeliveryStatus) -> bool,
    ) -> Result<SendState, Undelivered> {
        let reached = |state: &SendState| match state.kind() {
            StateKind::Failed | StateKind::Expired => kind == state.kind(),
            reached => reached >= kind,
        };
        let over = |now: &DeliveryStatus| reached(&now.state) || now.is_complete || enough(now);
        // If the node has stopped, the last state counts.
        let _stopped = self.status.wait_for(over).await.is_err();
        let DeliveryStatus {
            state, last_error, ..
        } = self.status.borrow().clone();
        self.told = state.clone();
        if reached(&state) {
            return Ok(state);
        }
        Err(Undelivered { state, last_error })
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

const fn name(state: &SendState) -> &'static str {
    match state {
        SendState::Queued => "is queued",
        SendState::Sent => "is sent and not confirmed",
        SendState::Stored { .. } => "is stored for the recipient",
        SendState::Received => "is received",
        SendState::Expired => "has expired",
        _ => "has failed",
    }
}

/// The reason of a failure says more than the error of the last attempt.
fn reason(state: &SendState, last_error: Option<&str>) -> String {
    let reason = match state {
        SendState::Failed { reason } => Some(&**reason),
        _ => last_error,
    };
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

#[cfg(test)]
mod tests {
    use dht_core::{
        NodeId,
        test_util::{NOW, public_key},
    };
    use dht_spool::EntryOptions;
    use futures::FutureExt as _;

    use super::*;
    use crate::outbox::event::{Answer, CopyOutcome, Now, SendingEvent};

    /// A caller is told no state that a crash could take back.
    #[test]
    fn receipt_is_told_once_written() {
        let recipient = public_key(1);
        let entry = Entry {
            id: 1,
            key: None,
            recipient,
            message_type: 7,
            payload_bytes: 0,
            options: EntryOptions::default(),
            created_at: NOW,
            expires_at: NOW.saturating_add(60),
            state: SendState::Queued,
            attempts: 0,
            next_attempt: Some(NOW),
            last_error: None,
            ended_at: None,
        };
        let now = Now {
            at: std::time::Duration::ZERO,
            unix: NOW,
        };
        let mut sending = Sending::new(&entry, &NodeId::default(), 3, now);
        let mut told = DeliveryStatus::of(&sending);
        sending.handle(SendingEvent::Start { connected: true }, now);
        sending.handle(SendingEvent::Direct(CopyOutcome::Written), now);
        assert!(told.advance_unwritten(&sending));
        assert_eq!(told.state, SendState::Sent);
        let receipt = SendingEvent::Receipt(recipient.node_id(), Answer::Received);
        sending.handle(receipt, now);
        assert!(!told.advance_unwritten(&sending));
        assert!(told.advance(DeliveryStatus::of(&sending)));
        assert_eq!(told, DeliveryStatus::ended(SendState::Received));
        // The write before it is reported after it.
        let before = SendState::Stored { holders: 2 };
        assert!(!told.advance(DeliveryStatus {
            is_complete: false,
            ..DeliveryStatus::ended(before)
        }));
    }

    #[test]
    fn earlier_errors_end_no_first_attempt() {
        let (sender, status) = watch::channel(DeliveryStatus {
            last_error: Some("of an earlier life".into()),
            has_failed: false,
            is_complete: false,
            ..DeliveryStatus::ended(SendState::Queued)
        });
        let mut delivery = Delivery::new(1, status);
        assert!(delivery.first_attempt().now_or_never().is_none());
        sender.send_modify(|now| now.has_failed = true);
        let failed = delivery.first_attempt().now_or_never().unwrap();
        let error = failed.unwrap_err().last_error;
        assert_eq!(error.as_deref(), Some("of an earlier life"));
    }

    #[test]
    fn failures_name_their_reason() {
        let undelivered = |state| Undelivered {
            state,
            last_error: Some("refused".into()),
        };
        let reason = "withdrawn".to_owned();
        let failed = undelivered(SendState::Failed { reason });
        assert_eq!(failed.to_string(), "the message has failed: withdrawn");
        let expired = undelivered(SendState::Expired);
        assert_eq!(expired.to_string(), "the message has expired: refused");
    }
}
