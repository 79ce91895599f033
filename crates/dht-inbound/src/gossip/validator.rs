//! The application's say about undirected messages, before they go any further.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use dht_core::{Destination, Disposition, DropReason, SendQueue, SendRequest, Strategy};
use dht_peers::policy::{BanPolicy, Offence, Parties};
use dht_stack::{Ask, Decide};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use crate::{message::OpenedMessage, metrics, sent::count_sent};

/// How long a [`GossipValidator`] may take, unless configured otherwise. The message keeps its memory, and a place
/// among those under way, meanwhile.
pub const DEFAULT_VALIDATION_DEADLINE: Duration = Duration::from_secs(2);

/// Decision of the application about an undirected message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Acceptance {
    /// Deliver it, and pass it on if this node does that.
    #[default]
    Accept,
    /// Neither; no peer is penalised.
    Ignore,
    /// Neither, and its signer is banned: for what was never valid. What is late or repeated is [`Acceptance::Ignore`], as anyone
    /// can repeat an old message.
    Reject,
}

/// Validates undirected clear application messages, the ones that spread from node to node.
pub trait GossipValidator: Send + Sync + 'static {
    /// Begins to validate a message, and takes along what it needs of it. An answer after the deadline counts as
    /// [`Acceptance::Ignore`].
    fn validate(&self, message: &OpenedMessage) -> ValidationFuture;
}

/// The answer of a [`GossipValidator`], later.
pub type ValidationFuture = Pin<Box<dyn Future<Output = Acceptance> + Send>>;

/// Asks the [`GossipValidator`] about each undirected clear application message; passes everything else on, and
/// everything if there is no validator.
///
/// Accepted messages can also be passed on to other nodes, byte for byte as received. The network's first
/// implementation leaves that to the application, and so does this one unless told otherwise.
#[derive(Clone)]
pub struct Gossip {
    /// Validator that the application registered.
    pub validator: Option<Arc<dyn GossipValidator>>,
    /// Sends accepted messages on, if this node does that.
    pub relay: Option<Arc<dyn SendQueue>>,
    /// Bans peers for the offences found here.
    pub bans: BanPolicy,
}

/// The service that [`Gossip`] asks: waits for a validator until a deadline.
#[derive(Clone, Copy, Debug)]
pub struct Validate(pub Duration);

pin_project! {
    /// Response future of [`Validate`].
    pub struct ValidateFuture {
        validation: ValidationFuture,
        deadline: Duration,
        // Made only once the validator has to wait: timers are not free.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl Decide<OpenedMessage> for Gossip {
    type Question = ValidationFuture;
    type Answer = Acceptance;
    type Rest = OpenedMessage;
    type Out = OpenedMessage;
    type Reject = Disposition;

    fn ask(&self, message: OpenedMessage) -> (Ask<ValidationFuture, Acceptance>, OpenedMessage) {
        let ask = match &self.validator {
            Some(validator) if message.is_gossip() => Ask::Service(validator.validate(&message)),
            _ => Ask::Known(Acceptance::Accept),
        };
        (ask, message)
    }

    fn decide(
        &self,
        message: OpenedMessage,
        acceptance: Acceptance,
    ) -> Result<OpenedMessage, Disposition> {
        match acceptance {
            Acceptance::Accept => {
                self.pass_on(&message)?;
                return Ok(message);
            }
            Acceptance::Ignore => {}
            Acceptance::Reject => {
                let parties = Parties {
                    origin: message.opened.origin().map(|key| (*key).into()),
                    ..Parties::default()
                };
                self.bans.report(Offence::RejectedGossip, parties);
            }
        }
        Err(DropReason::Refused.into())
    }
}

impl Gossip {
    fn pass_on(&self, message: &OpenedMessage) -> Result<(), DropReason> {
        let Some(send_queue) = &self.relay else {
            return Ok(());
        };
        if !message.is_gossip() || message.is_repeat() || message.is_saf {
            return Ok(());
        }
        let strategy = Strategy::Propagate {
            destination: Destination::Unknown,
            exclude: vec![message.source.node_id],
        };
        let (frame, tag) = (message.opened.frame.clone(), message.opened.header.tag);
        let request = SendRequest::forward(frame, strategy, tag, (&*message.source).into());
        count_sent("gossip", send_queue.try_send(request)).map(drop)
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip")
            .field("validates", &self.validator.is_some())
            .field("relays", &self.relay.is_some())
            .finish_non_exhaustive()
    }
}

impl Service<ValidationFuture> for Validate {
    type Response = Acceptance;
    type Error = Infallible;
    type Future = ValidateFuture;

    /// Always ready: the memory of the messages bounds how many wait.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, validation: ValidationFuture) -> ValidateFuture {
        ValidateFuture {
            validation,
            deadline: self.0,
            timer: None,
        }
    }
}

impl Future for ValidateFuture {
    type Output = Result<Acceptance, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(acceptance) = this.validation.as_mut().poll(cx) {
            match acceptance {
                // The usual case, which the counter of deliveries tells.
                Acceptance::Accept => {}
                Acceptance::Ignore => metrics::gossip_refused("ignore"),
                Acceptance::Reject => metrics::gossip_refused("reject"),
            }
            return Poll::Ready(Ok(acceptance));
        }
        if this.timer.is_none() {
            this.timer.set(Some(sleep(*this.deadline)));
        }
        match this.timer.as_pin_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => {
                metrics::gossip_refused("late");
                Poll::Ready(Ok(Acceptance::Ignore))
            }
            _ => Poll::Pending,
        }
    }
}

impl fmt::Debug for ValidateFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
