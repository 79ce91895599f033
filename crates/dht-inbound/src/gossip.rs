//! The application's say about undirected messages, before they go any further.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    mem,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use dht_core::{Destination, Disposition, DropReason, Outbox, OutboxError, SendRequest, Strategy};
use dht_peers::policy::{BanPolicy, Offence, Parties};
use dht_stack::BoxError;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Message, Next, Step, metrics, outbox::settle};

/// How long a [`Judge`] may think, unless configured otherwise. The message keeps its memory, and a place among those
/// under way, meanwhile.
pub const DEFAULT_VERDICT_DEADLINE: Duration = Duration::from_secs(2);

/// What the application thinks of an undirected message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Verdict {
    /// Deliver it, and pass it on if this node does that.
    #[default]
    Accept,
    /// Neither; nobody is to blame.
    Ignore,
    /// Neither; whoever signed it should have known better.
    Reject,
}

/// Judges undirected clear application messages, the ones that spread from node to node.
pub trait Judge: Clone + Send + Sync + 'static {
    /// The verdict, by the deadline; a late one counts as [`Verdict::Ignore`].
    type Future: Future<Output = Verdict> + Send;

    /// Begins to think. Takes along what it needs of the message.
    fn judge(&self, message: &Message) -> Self::Future;
}

/// Accepts everything: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptAll;

/// Asks a [`Judge`] about each undirected clear application message; passes everything else on.
///
/// With [`relay`](Self::relay), accepted messages are also passed on to other nodes, byte for byte as received. The
/// network's first implementation leaves that to the application, and so does this layer unless told otherwise.
#[derive(Debug)]
pub struct GossipLayer<J, O> {
    judge: J,
    shared: Arc<Shared<O>>,
}

/// Service produced by [`GossipLayer`].
#[derive(Debug)]
pub struct Gossip<J, O, S> {
    judge: J,
    shared: Arc<Shared<O>>,
    inner: S,
}

#[derive(Debug)]
struct Shared<O> {
    deadline: Duration,
    relay: Option<O>,
    bans: BanPolicy,
}

/// What [`Gossip`] does with a verdict.
#[derive(Debug)]
pub struct AfterVerdict<O, S> {
    message: Message,
    shared: Arc<Shared<O>>,
    inner: S,
}

pin_project! {
    /// A verdict or the deadline, whichever comes first.
    #[derive(Debug)]
    pub struct VerdictFuture<F> {
        #[pin]
        verdict: F,
        deadline: Duration,
        // Made only once the judge has to think: timers are not free.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl Judge for AcceptAll {
    type Future = Ready<Verdict>;

    fn judge(&self, _: &Message) -> Self::Future {
        ready(Verdict::Accept)
    }
}

// === impl GossipLayer ===

impl<J, O> GossipLayer<J, O> {
    /// Asks `judge` and waits for its verdict until `deadline`.
    pub fn new(judge: J, deadline: Duration, bans: BanPolicy) -> Self {
        Self {
            judge,
            shared: Arc::new(Shared {
                deadline,
                relay: None,
                bans,
            }),
        }
    }

    /// Also passes accepted messages on, through `outbox` if there is one.
    #[must_use]
    pub fn relay(self, outbox: Option<O>) -> Self {
        let shared = Shared {
            deadline: self.shared.deadline,
            relay: outbox,
            bans: self.shared.bans.clone(),
        };
        Self {
            judge: self.judge,
            shared: Arc::new(shared),
        }
    }
}

impl<J: Clone, O> Clone for GossipLayer<J, O> {
    fn clone(&self) -> Self {
        Self {
            judge: self.judge.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<J: Clone, O, S> Layer<S> for GossipLayer<J, O> {
    type Service = Gossip<J, O, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gossip {
            judge: self.judge.clone(),
            shared: Arc::clone(&self.shared),
            inner,
        }
    }
}

// === impl Gossip ===

impl<J: Clone, O, S: Clone> Clone for Gossip<J, O, S> {
    fn clone(&self) -> Self {
        Self {
            judge: self.judge.clone(),
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<J, O, S> Service<Message> for Gossip<J, O, S>
where
    J: Judge,
    O: Outbox,
    S: Service<Message, Response = Disposition> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Disposition;
    type Error = BoxError;
    type Future = Step<VerdictFuture<J::Future>, AfterVerdict<O, S>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, message: Message) -> Self::Future {
        // Undirected messages are clear: an encrypted one names its recipient or is refused before it gets here.
        if !message.is_undirected() || !message.is_readable() {
            return Step::passed(self.inner.call(message));
        }
        // `poll_ready` readied *this* inner: take it along, and leave an unready clone behind.
        let unready = self.inner.clone();
        let inner = mem::replace(&mut self.inner, unready);
        let verdict = self.judge.judge(&message);
        let deadline = self.shared.deadline;
        let verdict = VerdictFuture {
            verdict,
            deadline,
            timer: None,
        };
        let shared = Arc::clone(&self.shared);
        Step::new(
            verdict,
            AfterVerdict {
                message,
                shared,
                inner,
            },
        )
    }
}

impl<O, S> Next<Verdict> for AfterVerdict<O, S>
where
    O: Outbox,
    S: Service<Message, Response = Disposition>,
{
    type Future = S::Future;

    fn next(mut self, verdict: Verdict) -> Result<ControlFlow<Disposition, S::Future>, BoxError> {
        match verdict {
            Verdict::Accept => {
                self.shared.pass_on(&self.message)?;
                return Ok(ControlFlow::Continue(self.inner.call(self.message)));
            }
            Verdict::Ignore => {}
            Verdict::Reject => {
                let parties = Parties {
                    origin: self.message.opened.origin().map(|key| (*key).into()),
                    ..Parties::default()
                };
                self.shared.bans.report(Offence::RejectedGossip, parties);
            }
        }
        Ok(ControlFlow::Break(Disposition::Dropped(
            DropReason::Refused,
        )))
    }
}

impl<O: Outbox> Shared<O> {
    fn pass_on(&self, message: &Message) -> Result<(), OutboxError> {
        let Some(outbox) = &self.relay else {
            return Ok(());
        };
        if message.is_repeat() || message.is_saf {
            return Ok(());
        }
        let strategy = Strategy::Propagate {
            destination: Destination::Unknown,
            exclude: vec![message.source.node_id],
        };
        let (frame, tag) = (message.opened.frame.clone(), message.opened.header.tag);
        let request = SendRequest::forward(frame, strategy, tag);
        settle("gossip", outbox.try_send(request)).map(drop)
    }
}

impl<F: Future<Output = Verdict>> Future for VerdictFuture<F> {
    type Output = Result<Verdict, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(verdict) = this.verdict.poll(cx) {
            match verdict {
                // The usual case, which the counter of deliveries tells.
                Verdict::Accept => {}
                Verdict::Ignore => metrics::verdict("ignore"),
                Verdict::Reject => metrics::verdict("reject"),
            }
            return Poll::Ready(Ok(verdict));
        }
        if this.timer.is_none() {
            this.timer.set(Some(sleep(*this.deadline)));
        }
        match this.timer.as_pin_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => {
                metrics::verdict("late");
                Poll::Ready(Ok(Verdict::Ignore))
            }
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
