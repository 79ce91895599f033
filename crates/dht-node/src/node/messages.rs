//! Sending messages, and taking those that arrive.

use std::sync::{Arc, atomic::Ordering};

use dht_core::{
    Clock as _, DedupHash, DeliveryError, Destination, Encryption, Entropy as _, Message,
    MessageTag, NodeId, Payload, PublicKey, SendParams, SendRequest, Strategy,
};
use dht_outbound::{Candidates, Deliveries, DeliveryReply, Outbound, Selection, SendError, select};
use dht_spool::{EntryId, Outbox, SpoolError};
use rand_core::Rng as _;

use super::Node;
use crate::{
    adapters::ToApplication,
    inbox::{MAX_PAYLOAD_BYTES, Subscription, WhenFull},
    outbox::{Delivery, SendOptions, SubmitError},
    received::Received,
};

impl Node {
    /// Encrypts a message for `to` and sends it: directly, and to the nodes closest to it, which store it, if its receipt
    /// does not come within seconds. A message that has not arrived, is not stored and has not expired is tried again, also after a
    /// restart of a node with a home. The recipient learns who sent the message; no other node does. A message of a node to
    /// itself is delivered locally.
    ///
    /// Returns when the message is in the outbox, on disk if the node has a home. Waits while many messages are being sent,
    /// or many to this recipient. An unknown recipient is searched for; [`Node::add_peer`] makes it known.
    ///
    /// A recipient without a home confirms a message once its application has taken it, which is when it asks its
    /// [`Subscription`] for the next one or acks it. A task that is both sender and recipient waits for itself if it waits
    /// for [`SendState::Received`](dht_spool::SendState) before it reads.
    ///
    /// # Errors
    /// [`SubmitError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the message may be sent or not.
    pub async fn send(
        &self,
        to: &PublicKey,
        message: Message,
        options: SendOptions,
    ) -> Result<Delivery, SubmitError> {
        self.check(&message)?;
        self.outbox.send(to, message, options).await
    }

    /// A message that was given to [`send`](Self::send), also before a restart; `None` if there is none with this id, or it
    /// ended long ago.
    ///
    /// # Errors
    /// An error of the outbox's file.
    pub async fn delivery(&self, id: EntryId) -> Result<Option<Delivery>, SpoolError> {
        self.outbox.delivery(id).await
    }

    /// Withdraws a message of [`send`](Self::send), so that its state becomes failed; answers whether it did. Copies that have
    /// left are not called back. One that holders store, which deliver it, or that has ended stays as it is. The answer comes
    /// once the outbox has it.
    ///
    /// # Errors
    /// The outbox does not have it: the message is withdrawn for this life of the node, and may be tried again after it. The
    /// outbox is written again within a minute, or by another call of this.
    ///
    /// # Cancel safety
    /// Dropping the future may withdraw the message nevertheless.
    pub async fn withdraw(&self, id: EntryId) -> Result<bool, SpoolError> {
        self.outbox.withdraw(id).await
    }

    /// The durable outbox; `None` for a node without a home or the feature `spool`.
    #[must_use]
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.spool()
    }

    /// Sends a clear, unsigned message to a few connected nodes, without those in `exclude`.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn broadcast(
        &self,
        message: Message,
        exclude: Vec<NodeId>,
    ) -> Result<Deliveries, SendError> {
        self.request(SendParams::builder().broadcast(exclude).finish(), message)
            .await
    }

    /// Passes a clear, unsigned message towards `destination`, or outwards to all nodes if it is unknown, without those
    /// in `exclude`. The bytes of a message do not depend on the node that passes it on, so that each node delivers it
    /// once. One towards this node is delivered here.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn propagate(
        &self,
        destination: Destination,
        message: Message,
        exclude: Vec<NodeId>,
    ) -> Result<Deliveries, SendError> {
        let params = SendParams::builder()
            .propagate(destination, exclude)
            .with_destination(destination);
        self.request(params.finish(), message).await
    }

    /// Announces this node to its neighbourhood: the nodes closest to it, and those on the way, learn its addresses.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodySelected`] if no node is connected or known.
    pub async fn join(&self) -> Result<Deliveries, SendError> {
        let nonce = self.shared.entropy.rng().next_u64();
        self.outbound.join(&self.shared.identity, nonce).await
    }

    /// The peers that a message with this strategy would go to now, with the reasons. Strategies with a random choice
    /// choose anew in each call.
    ///
    /// ```
    /// use dht_core::{Entropy, SecretKey, Strategy};
    /// use dht_node::{Node, OsEntropy};
    ///
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listen = "/ip4/127.0.0.1/tcp/0".parse()?;
    /// let alice = Node::builder(SecretKey::random(&mut OsEntropy.rng())).start().await?;
    /// let bob = Node::builder(SecretKey::random(&mut OsEntropy.rng())).listen(listen).start().await?;
    /// alice.connect(&bob.peer_address()).await?;
    ///
    /// # // The table of connected peers follows the dial a moment later.
    /// # while alice.peers().is_empty() { tokio::task::yield_now().await }
    /// let selection = alice.explain(&Strategy::Flood { exclude: vec![] });
    /// let expected = format!("flood: 1 chosen\n  {}: connected node", bob.public_key().node_id());
    /// assert_eq!(selection.explain(), expected);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn explain(&self, strategy: &Strategy) -> Selection {
        let shared = &self.shared;
        let candidates = Candidates {
            me: shared.directory.me(),
            connected: &shared.connections.snapshot(),
            directory: &shared.directory,
            now: shared.clock.now(),
        };
        let mut rng = shared.entropy.rng();
        select(strategy, candidates, &self.select, &mut rng)
    }

    /// Sends a message with any parameters. One that names this node as its destination, or is encrypted for it, is
    /// delivered here and leaves for no peer.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NobodySelected`] if the strategy selected no peer.
    pub async fn request(
        &self,
        params: SendParams,
        message: Message,
    ) -> Result<Deliveries, SendError> {
        self.check(&message)?;
        let me = *self.public_key();
        let is_own = params.destination == Destination::PublicKey(me)
            || params.encryption == Encryption::EncryptFor(me);
        if is_own {
            return Ok(self.deliver_own(&params, message).await);
        }
        let request = SendRequest::new(params, Payload::Domain(message));
        // Seals on the caller's task, so that many callers use many cores.
        self.outbound.send(request).await
    }

    /// Delivers a message of this node to itself, with the origin that a peer would have seen.
    async fn deliver_own(&self, params: &SendParams, message: Message) -> Deliveries {
        let me = self.public_key();
        let mut rng = self.shared.entropy.rng();
        let tag = params.tag.unwrap_or_else(|| MessageTag(rng.next_u64()));
        // Each message sent is another one, as each sealed one is.
        let mut hash = DedupHash([0; 32]);
        rng.fill_bytes(&mut hash.0);
        let is_signed = params.force_origin || params.encryption != Encryption::Clear;
        let received = Received {
            sender: is_signed.then_some(*me),
            via: me.node_id(),
            message,
        };
        let application = ToApplication {
            subscribers: Arc::clone(&self.subscribers),
            #[cfg(feature = "spool")]
            durable_inbox: self.durable_inbox.clone(),
        };
        let (reply, delivery) = DeliveryReply::pair(tag, me.node_id());
        reply.send(match application.deliver_own(received, hash).await {
            true => Ok(()),
            false => Err(DeliveryError::Dropped),
        });
        delivery.into()
    }

    /// Refuses a message that is too long, and every message once the node is stopping.
    fn check(&self, message: &Message) -> Result<(), SendError> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(SendError::Closed);
        }
        let (bytes, max) = (message.payload.len(), MAX_PAYLOAD_BYTES);
        if bytes > max {
            return Err(SendError::TooLarge { bytes, max });
        }
        Ok(())
    }

    /// The outbound pipeline, which sends any request.
    #[must_use]
    pub const fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Messages for the application, which are delivered once it has taken them; see [`Subscription`].
    ///
    /// With a home, the subscription reads the durable inbox as its default consumer, from the oldest row that is not
    /// acked, and acks what is taken: a message leaves the inbox when one of the subscriptions took it. Other consumers
    /// read it through [`inbox`](Self::inbox).
    ///
    /// Without a home, every subscription gets every message that arrives from now on, and the first that takes one
    /// makes it delivered. The [room](WhenFull) for messages that wait for a subscription is bounded: one that is slower than the
    /// others [misses](Subscription::missed) messages, and if all are that slow, they hold back the peers that send, for a minute
    /// without a read. A message that no subscriber takes is refused, and stays with the nodes that store it.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_with(WhenFull::default())
    }

    /// As [`subscribe`](Self::subscribe), and says what becomes of messages for which the subscription has no room. With a
    /// home all of them wait in the durable inbox, whatever is said here.
    #[must_use]
    pub fn subscribe_with(&self, when_full: WhenFull) -> Subscription {
        #[cfg(feature = "spool")]
        if let Some(durable_inbox) = &self.durable_inbox {
            return self.subscribers.subscribe_to(durable_inbox);
        }
        let subscription = self.subscribers.subscribe(when_full);
        // Messages that other nodes store for this one can be delivered now.
        self.saf.listen();
        subscription
    }

    /// The durable inbox: received messages that not every consumer has acked. `None` without a home.
    #[cfg(feature = "spool")]
    #[must_use]
    pub fn inbox(&self) -> Option<&dht_spool::Inbox> {
        Some(&self.durable_inbox.as_ref()?.inbox)
    }
}
