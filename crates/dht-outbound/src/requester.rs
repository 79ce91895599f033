//! What the rest of the node, and the application, sends messages with: specification 04, section 8.

use std::sync::Arc;

use bytes::Bytes;
use dht_core::{
    Address, Destination, Encryption, NodeId, NodeIdentity, OnDelivery, Outbox, OutboxError,
    Priority, PublicKey, Strategy,
};
use dht_stack::ByteBudget;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    DomainMessage, MAX_REPORTS, MAX_REQUEST_BYTES, MessageSendState, MessageSendStates, Payload,
    Report, SendBuilder, SendFailure, SendMessageResponse, SendParams, SendRequest, Submission,
    metrics,
};

/// Puts requests into the queue of a pipeline. Cheap to clone.
///
/// The queue is bounded in requests, by its channel, and together with the pipeline in bytes, by
/// [`MAX_REQUEST_BYTES`].
///
/// Specification 04, section 8.
///
/// ```
/// use dht_core::DomainMessage;
/// use dht_outbound::{Requester, SendMessageResponse, MessageSendStates};
/// use tokio::sync::mpsc;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// // A test reads the queue itself; a node gives it to a `Driver`.
/// let (sender, mut queue) = mpsc::channel(20);
/// let requester = Requester::new(sender);
/// let sending = requester.send_random(3, Default::default(), Default::default(), DomainMessage::new(1, "hi"));
/// let intercept = async {
///     let submission = queue.recv().await.expect("the requester is alive");
///     assert_eq!(submission.request.strategy().name(), "random");
///     let nobody = SendMessageResponse::Queued(MessageSendStates::default());
///     submission.reply.expect("somebody waits").send(nobody).expect("it still does");
/// };
/// let (result, ()) = tokio::join!(sending, intercept);
/// assert!(result.is_err());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Requester {
    queue: mpsc::Sender<Submission>,
    bytes: ByteBudget,
    reports: Arc<Semaphore>,
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// The pipeline no longer takes requests.
    #[error("outbound pipeline is closed")]
    Closed,
    /// The queue has no room for a request of this priority.
    #[error("outbound queue is full")]
    Full,
    /// The pipeline went away with the answer.
    #[error("outbound pipeline dropped the request")]
    ReplyDropped,
    /// Nobody was selected.
    #[error("no peer to send to")]
    NoMessagesQueued,
    /// Nothing was sent, for another reason.
    #[error("message was not sent")]
    SendMessageFailed(#[source] SendFailure),
}

impl Requester {
    /// Puts requests into this queue.
    #[must_use]
    pub fn new(queue: mpsc::Sender<Submission>) -> Self {
        Self {
            queue,
            bytes: ByteBudget::new(MAX_REQUEST_BYTES),
            reports: Arc::new(Semaphore::new(MAX_REPORTS)),
        }
    }

    // --- one peer ---

    /// Sends to the peer with this key, which is searched for if it is not known. Encrypts only if told to.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn send_direct_encrypted(
        &self,
        to: PublicKey,
        message: DomainMessage,
        encryption: Encryption,
        info: impl Into<Arc<str>>,
    ) -> Result<MessageSendStates, OutboundError> {
        let params = SendParams::builder()
            .direct_public_key(to)
            .with_destination(Destination::PublicKey(to))
            .with_encryption(encryption)
            .with_discovery(true);
        self.resolve(params.with_debug_info(info), message).await
    }

    /// Sends in clear to the peer with this key, which is searched for if it is not known. Returns as soon as it is
    /// queued or the search has begun.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn send_direct_unencrypted(
        &self,
        to: PublicKey,
        message: DomainMessage,
        info: impl Into<Arc<str>>,
    ) -> Result<SendMessageResponse, OutboundError> {
        let params = SendParams::builder()
            .direct_public_key(to)
            .with_discovery(true);
        self.send_message(params.with_debug_info(info).finish(), message)
            .await
    }

    /// Sends in clear to the peer with this node id.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn send_direct_node_id(
        &self,
        to: NodeId,
        message: DomainMessage,
        info: impl Into<Arc<str>>,
    ) -> Result<MessageSendState, OutboundError> {
        let params = SendParams::builder()
            .direct_node_id(to)
            .with_debug_info(info);
        let states = self.resolve(params, message).await?;
        states
            .into_iter()
            .next()
            .ok_or(OutboundError::NoMessagesQueued)
    }

    // --- many peers ---

    /// Sends towards a destination.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn propagate(
        &self,
        destination: Destination,
        encryption: Encryption,
        exclude: Vec<NodeId>,
        message: DomainMessage,
        info: impl Into<Arc<str>>,
    ) -> Result<MessageSendStates, OutboundError> {
        let params = SendParams::builder().propagate(destination, exclude);
        self.to_many(params, destination, encryption, message, info)
            .await
    }

    /// Sends to a few connected nodes.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn broadcast(
        &self,
        destination: Destination,
        encryption: Encryption,
        exclude: Vec<NodeId>,
        message: DomainMessage,
        info: impl Into<Arc<str>>,
    ) -> Result<MessageSendStates, OutboundError> {
        let params = SendParams::builder().broadcast(exclude);
        self.to_many(params, destination, encryption, message, info)
            .await
    }

    /// Sends to the nodes closest to the peer with this key, some of which may have to be dialled.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn closest_broadcast(
        &self,
        to: PublicKey,
        encryption: Encryption,
        exclude: Vec<NodeId>,
        message: DomainMessage,
    ) -> Result<MessageSendStates, OutboundError> {
        let params = SendParams::builder()
            .closest(to.node_id(), exclude)
            .with_destination(Destination::PublicKey(to))
            .with_encryption(encryption);
        self.resolve(params, message).await
    }

    /// Sends to all connected nodes.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn flood(
        &self,
        destination: Destination,
        encryption: Encryption,
        exclude: Vec<NodeId>,
        message: DomainMessage,
        info: impl Into<Arc<str>>,
    ) -> Result<MessageSendStates, OutboundError> {
        let params = SendParams::builder().flood(exclude);
        self.to_many(params, destination, encryption, message, info)
            .await
    }

    /// Sends to `n` known nodes at random.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn send_random(
        &self,
        n: usize,
        destination: Destination,
        encryption: Encryption,
        message: DomainMessage,
    ) -> Result<MessageSendStates, OutboundError> {
        let params = SendParams::builder()
            .random(n)
            .with_destination(destination)
            .with_encryption(encryption);
        self.resolve(params, message).await
    }

    // --- by parameters ---

    /// Sends an application's message and waits for the first answer.
    ///
    /// # Errors
    /// [`OutboundError::Closed`] or [`OutboundError::ReplyDropped`].
    pub async fn send_message(
        &self,
        params: SendParams,
        message: DomainMessage,
    ) -> Result<SendMessageResponse, OutboundError> {
        self.send(SendRequest::new(params, Payload::Domain(message)))
            .await
    }

    /// Sends a message of the protocol, without an application's header, and waits for the first answer.
    ///
    /// # Errors
    /// [`OutboundError::Closed`] or [`OutboundError::ReplyDropped`].
    pub async fn send_message_no_header(
        &self,
        params: SendParams,
        message: Bytes,
    ) -> Result<SendMessageResponse, OutboundError> {
        self.send(SendRequest::new(params, Payload::Part(message)))
            .await
    }

    /// Sends a message of the protocol, without an application's header, and waits for room in the queue only.
    ///
    /// # Errors
    /// [`OutboundError::Closed`].
    pub async fn send_message_no_header_no_wait(
        &self,
        params: SendParams,
        message: Bytes,
    ) -> Result<(), OutboundError> {
        self.send_no_wait(SendRequest::new(params, Payload::Part(message)))
            .await
    }

    /// Sends a complete envelope body and waits for the first answer.
    ///
    /// Unlike in other implementations the body has no length prefix even if it is to be encrypted.
    ///
    /// # Errors
    /// [`OutboundError::Closed`] or [`OutboundError::ReplyDropped`].
    pub async fn send_raw(
        &self,
        params: SendParams,
        body: Bytes,
    ) -> Result<SendMessageResponse, OutboundError> {
        self.send(SendRequest::new(params, Payload::Body(body)))
            .await
    }

    /// Sends a complete envelope body and waits for room in the queue only.
    ///
    /// # Errors
    /// [`OutboundError::Closed`].
    pub async fn send_raw_no_wait(
        &self,
        params: SendParams,
        body: Bytes,
    ) -> Result<(), OutboundError> {
        self.send_no_wait(SendRequest::new(params, Payload::Body(body)))
            .await
    }

    // --- requests ---

    /// Queues a request and waits for the first answer.
    ///
    /// # Errors
    /// [`OutboundError::Closed`] or [`OutboundError::ReplyDropped`].
    ///
    /// # Cancel safety
    /// Once it is queued the request is carried out whether or not anybody waits.
    pub async fn send(&self, request: SendRequest) -> Result<SendMessageResponse, OutboundError> {
        let (reply, answer) = oneshot::channel();
        self.submit(request, Some(reply)).await?;
        answer.await.map_err(|_| OutboundError::ReplyDropped)
    }

    /// Queues a request and waits for room in the queue only.
    ///
    /// # Errors
    /// [`OutboundError::Closed`].
    pub async fn send_no_wait(&self, request: SendRequest) -> Result<(), OutboundError> {
        self.submit(request, None).await
    }

    /// Queues a request if there is room for its priority, and never waits: gossip may fill half of the queue and of its bytes,
    /// stored mail three quarters, direct messages seven eighths, control messages all of it.
    ///
    /// # Errors
    /// [`OutboundError::Full`] or [`OutboundError::Closed`].
    pub fn try_send_no_wait(&self, request: SendRequest) -> Result<(), OutboundError> {
        self.try_submit(request, None, None)
    }

    fn try_submit(
        &self,
        request: SendRequest,
        reply: Option<oneshot::Sender<SendMessageResponse>>,
        report: Option<Report>,
    ) -> Result<(), OutboundError> {
        let (priority, bytes) = (request.priority(), request.bytes());
        // What is left to more important requests, of the places and of the bytes.
        let reserve = |most: usize| match priority {
            Priority::Control => 0,
            Priority::Direct => most / 8,
            Priority::Stored => most / 4,
            Priority::Gossip => most / 2,
        };
        let shed = || {
            metrics::shed(priority);
            OutboundError::Full
        };
        if self.queue.is_closed() {
            return Err(OutboundError::Closed);
        }
        let left = self.bytes.available().saturating_sub(bytes);
        if self.queue.capacity() <= reserve(self.queue.max_capacity())
            || left < reserve(MAX_REQUEST_BYTES)
        {
            return Err(shed());
        }
        let submission = Submission {
            request,
            reply,
            report,
            permit: self.bytes.try_acquire(bytes).ok_or_else(shed)?,
        };
        self.queue
            .try_send(submission)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => shed(),
                mpsc::error::TrySendError::Closed(_) => OutboundError::Closed,
            })
    }

    /// Queues a request as [`try_send_no_wait`](Self::try_send_no_wait) does; the future waits for the first answer.
    ///
    /// # Errors
    /// [`OutboundError::Full`] or [`OutboundError::Closed`] at once, [`OutboundError::ReplyDropped`] later.
    pub fn try_send(
        &self,
        request: SendRequest,
    ) -> Result<
        impl Future<Output = Result<SendMessageResponse, OutboundError>> + Send + use<>,
        OutboundError,
    > {
        let (reply, answer) = oneshot::channel();
        self.try_submit(request, Some(reply), None)?;
        Ok(async move { answer.await.map_err(|_| OutboundError::ReplyDropped) })
    }

    /// Passes on a received frame as gossip, if there is room.
    ///
    /// # Errors
    /// [`OutboundError::Full`] or [`OutboundError::Closed`].
    pub fn forward(
        &self,
        frame: Bytes,
        strategy: Strategy,
        tag: dht_core::MessageTag,
    ) -> Result<(), OutboundError> {
        self.try_send_no_wait(SendRequest::forward(frame, strategy, tag))
    }

    /// Whether the pipeline no longer takes requests.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Announces this node to its neighbourhood with a [join](SendRequest::join). Returns how it is sent; empty, with
    /// nothing sent, if every address of this node is in `excluded`: others would only learn where not to dial.
    ///
    /// # Errors
    /// [`OutboundError`]; [`OutboundError::NoMessagesQueued`] if no node is connected or known.
    pub async fn send_join(
        &self,
        me: &NodeIdentity,
        excluded: &[Address],
        nonce: u64,
    ) -> Result<MessageSendStates, OutboundError> {
        // Its own addresses as it signed them, not as somebody's peer list has them.
        let all_excluded = me
            .claim()
            .addresses
            .iter()
            .all(|own| excluded.contains(own));
        if !excluded.is_empty() && all_excluded {
            tracing::debug!("no join: every address of this node is excluded");
            return Ok(MessageSendStates::default());
        }
        Ok(self
            .send(SendRequest::join(me, nonce))
            .await?
            .resolve()
            .await?)
    }

    async fn to_many(
        &self,
        params: SendBuilder,
        destination: Destination,
        encryption: Encryption,
        message: DomainMessage,
        info: impl Into<Arc<str>>,
    ) -> Result<MessageSendStates, OutboundError> {
        let params = params
            .with_destination(destination)
            .with_encryption(encryption);
        self.resolve(params.with_debug_info(info), message).await
    }

    async fn resolve(
        &self,
        params: SendBuilder,
        message: DomainMessage,
    ) -> Result<MessageSendStates, OutboundError> {
        Ok(self
            .send_message(params.finish(), message)
            .await?
            .resolve()
            .await?)
    }

    async fn submit(
        &self,
        request: SendRequest,
        reply: Option<oneshot::Sender<SendMessageResponse>>,
    ) -> Result<(), OutboundError> {
        let permit = tokio::select! {
            permit = self.bytes.acquire(request.bytes()) => permit,
            // Whoever would give bytes back may be gone.
            () = self.queue.closed() => return Err(OutboundError::Closed),
        };
        let submission = Submission {
            request,
            reply,
            report: None,
            permit,
        };
        self.queue
            .send(submission)
            .await
            .map_err(|_| OutboundError::Closed)
    }
}

impl Outbox for Requester {
    fn try_send(&self, request: SendRequest) -> Result<(), OutboxError> {
        Ok(self.try_submit(request, None, None)?)
    }

    fn try_send_reporting(
        &self,
        request: SendRequest,
        done: OnDelivery,
    ) -> Result<(), OutboxError> {
        let place = Arc::clone(&self.reports).try_acquire_owned();
        let report = Report {
            done,
            _place: place.map_err(|_| OutboxError::Full)?,
        };
        Ok(self.try_submit(request, None, Some(report))?)
    }
}

impl From<OutboundError> for OutboxError {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Full => Self::Full,
            _ => Self::Closed,
        }
    }
}

impl From<SendFailure> for OutboundError {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::NoMessagesQueued => Self::NoMessagesQueued,
            other => Self::SendMessageFailed(other),
        }
    }
}
