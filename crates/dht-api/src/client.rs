//! The client: a typed method for each route.

mod connection;
mod sse;
mod stream;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::{NodeId, PublicKey};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use self::connection::{Connections, Target};
pub use self::stream::{EventReader, InboxReader};
use crate::types::{
    Ack, AllowList, AllowedPeer, BanList, ConsumerList, ConsumerState, DiscoverPeer, Done,
    ErrorBody, ErrorCode, ErrorInfo, FetchReport, GossipReport, InboxPage, MailboxList,
    MessageList, MessageState, NewBan, NewConsumer, NewGossip, NewMessage, NodeConfig,
    OutgoingMessage, PeerFound, PeerList, PingPeer, Pong, Purge, Purged, Status, StoreReport,
    StoredMessages,
};

/// Time in which most requests are answered, in seconds: 30.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Time in which a request that searches the network or fetches is answered, in seconds: 330, ten more than the
/// longest the node takes.
const SEARCH_LIMIT: Duration = Duration::from_secs(330);
/// Largest response in bytes: 16 MiB, a message of the largest size in base64 and room for the rest.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// A client of the API of one node. Clones share connections, which are kept for later requests.
///
/// ```no_run
/// use dht_api::{Client, types::{Ack, NewMessage}};
///
/// # async fn example(key: dht_core::PublicKey) -> Result<(), dht_api::ClientError> {
/// let client = Client::unix("home/api.sock");
/// let message = client.send(&NewMessage::text(key, "hello")).await?;
/// println!("message {} is {:?}", message.id, message.state);
///
/// let mut inbox = client.inbox_stream("default", None);
/// while let Some(message) = inbox.next().await? {
///     println!("{:?}", message.text);
///     client.ack(&Ack::up_to("default", message.id)).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    connections: Arc<Connections>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No process serves at the socket or address: no node runs there, or access is denied.
    #[error("no node answers at {at}")]
    Connect {
        /// Path of the socket, or address.
        at: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The connection failed before the answer was complete. The request may have been carried out.
    #[error("the connection to the node failed")]
    Connection(#[source] hyper::Error),
    /// The node did not answer in time. The request may have been carried out.
    #[error("the node did not answer in time")]
    TimedOut,
    /// The node answered with an error.
    #[error("{}", error.message)]
    Refused {
        /// Status of the response.
        status: StatusCode,
        /// The error in the response.
        error: ErrorInfo,
    },
    /// The answer is too large, or not what this client knows.
    #[error("the answer of the node is not understood: {0}")]
    Answer(String),
}

/// The bearer token contains something that a header cannot carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a token consists of printable ASCII characters")]
pub struct TokenError;

impl ClientError {
    /// Name of the error that the node answered with.
    #[must_use]
    pub const fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { error, .. } => Some(error.code),
            _ => None,
        }
    }

    /// Advice on the error.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { error, .. } => error.hint.as_deref(),
            Self::TimedOut => Some(
                "other programs may use all connections of the node: `api.limits.connections` in its configuration",
            ),
            _ => None,
        }
    }
}

/// A request, not yet sent.
struct Call<'a> {
    method: Method,
    path: &'a str,
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    limit: Duration,
}

impl<'a> Call<'a> {
    const fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            limit: ANSWER_LIMIT,
        }
    }

    const fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path)
    }

    fn post(path: &'a str, body: &impl Serialize) -> Result<Self, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| answer(&error))?;
        Ok(Self {
            body: Some(body.into()),
            ..Self::new(Method::POST, path)
        })
    }

    fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query
            .extend(value.map(|value| (name, value.to_string())));
        self
    }

    const fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

fn answer(error: &impl ToString) -> ClientError {
    ClientError::Answer(error.to_string())
}

impl Client {
    /// A client over the unix socket of a home, usually `HOME/api.sock`. Connects with the first request.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::of(Target::Unix(path.into()))
    }

    /// A client over loopback TCP. `token` is the content of the token file; blanks around it are ignored.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn tcp(address: SocketAddr, token: &str) -> Result<Self, TokenError> {
        let value = format!("Bearer {}", token.trim());
        let mut authorization = header::HeaderValue::from_str(&value).map_err(|_| TokenError)?;
        authorization.set_sensitive(true);
        Ok(Self::of(Target::Tcp {
            address,
            authorization,
        }))
    }

    fn of(target: Target) -> Self {
        Self {
            connections: Arc::new(Connections::new(target)),
        }
    }

    // --- messages ---

    /// Queues a message for a recipient. With an idempotency key it can be called again until it succeeds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(&self, message: &NewMessage) -> Result<OutgoingMessage, ClientError> {
        self.call(Call::post("/v1/messages", message)?).await
    }

    /// The state of a message.
    ///
    /// # Errors
    /// [`ClientError`]; [`ErrorCode::NotFound`] if there is none, or it ended and left.
    pub async fn message(&self, id: u64) -> Result<OutgoingMessage, ClientError> {
        self.call(Call::get(&format!("/v1/messages/{id}"))).await
    }

    /// The state of a message once it is no longer `seen`, or after some 25 s as it is.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn message_after(
        &self,
        id: u64,
        seen: MessageState,
    ) -> Result<OutgoingMessage, ClientError> {
        let path = format!("/v1/messages/{id}");
        self.call(Call::get(&path).with("unlike", Some(seen.name())))
            .await
    }

    /// Gives a message up that is queued or sent, and answers how it is then.
    ///
    /// # Errors
    /// As [`message`](Self::message); [`ErrorCode::Conflict`] if it has ended or holders store it.
    pub async fn withdraw(&self, id: u64) -> Result<OutgoingMessage, ClientError> {
        let path = format!("/v1/messages/{id}");
        self.call(Call::new(Method::DELETE, &path)).await
    }

    /// Outgoing messages above `after`, at most `limit`, in order of their ids.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn messages(
        &self,
        state: Option<MessageState>,
        to: Option<&PublicKey>,
        after: Option<u64>,
        limit: Option<usize>,
    ) -> Result<MessageList, ClientError> {
        let call = Call::get("/v1/messages")
            .with("state", state.map(MessageState::name))
            .with("to", to)
            .with("after", after)
            .with("limit", limit);
        self.call(call).await
    }

    /// Sends a clear, unsigned message to connected peers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn gossip(&self, message: &NewGossip) -> Result<GossipReport, ClientError> {
        self.call(Call::post("/v1/gossip", message)?).await
    }

    // --- inbox ---

    /// Messages that a consumer has not acked, above `after`, at most `limit`, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn inbox(
        &self,
        consumer: &str,
        after: Option<u64>,
        limit: Option<usize>,
    ) -> Result<InboxPage, ClientError> {
        let call = Call::get("/v1/inbox")
            .with("consumer", Some(consumer))
            .with("after", after)
            .with("limit", limit);
        self.call(call).await
    }

    /// Tells that a consumer is done with messages, which do not come again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ack(&self, ack: &Ack) -> Result<ConsumerState, ClientError> {
        self.call(Call::post("/v1/inbox/ack", ack)?).await
    }

    /// Messages that a consumer has not acked, above `after`, and those that come later. Connects with the first
    /// [`next`](InboxReader::next), and again whenever the connection is lost.
    #[must_use]
    pub fn inbox_stream(&self, consumer: impl Into<String>, after: Option<u64>) -> InboxReader {
        InboxReader::new(self.clone(), consumer.into(), after)
    }

    /// The consumers of the inbox.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn consumers(&self) -> Result<ConsumerList, ClientError> {
        self.call(Call::get("/v1/inbox/consumers")).await
    }

    /// Adds a consumer; nothing changes if it exists.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_consumer(&self, consumer: &NewConsumer) -> Result<Done, ClientError> {
        self.call(Call::post("/v1/inbox/consumers", consumer)?)
            .await
    }

    /// Removes a consumer, and the messages that only it had not acked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_consumer(&self, name: &str) -> Result<Done, ClientError> {
        let path = format!("/v1/inbox/consumers/{}", escape(name));
        self.call(Call::new(Method::DELETE, &path)).await
    }

    // --- peers ---

    /// Peers that are connected, or all that are known, at most `limit`: those after the node id `after`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn peers(
        &self,
        all: bool,
        after: Option<NodeId>,
        limit: Option<usize>,
    ) -> Result<PeerList, ClientError> {
        let call = Call::get("/v1/peers")
            .with("all", Some(all))
            .with("after", after)
            .with("limit", limit);
        self.call(call).await
    }

    /// Record of the peer with this public key or node id.
    ///
    /// # Errors
    /// [`ClientError`]; [`ErrorCode::UnknownPeer`] if it is not known.
    pub async fn peer(&self, peer: &str) -> Result<PeerFound, ClientError> {
        self.call(Call::get(&format!("/v1/peers/{}", escape(peer))))
            .await
    }

    /// Forgets the peer with this public key or node id, and closes its connection.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_peer(&self, peer: &str) -> Result<Done, ClientError> {
        let path = format!("/v1/peers/{}", escape(peer));
        self.call(Call::new(Method::DELETE, &path)).await
    }

    /// Bans in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn bans(&self) -> Result<BanList, ClientError> {
        self.call(Call::get("/v1/bans")).await
    }

    /// Bans a peer and closes its connection.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ban(&self, ban: &NewBan) -> Result<BanList, ClientError> {
        self.call(Call::post("/v1/bans", ban)?).await
    }

    /// Lifts the ban of the peer with this public key or node id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn lift_ban(&self, peer: &str) -> Result<Done, ClientError> {
        let path = format!("/v1/bans/{}", escape(peer));
        self.call(Call::new(Method::DELETE, &path)).await
    }

    /// The allow list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn allowed(&self) -> Result<AllowList, ClientError> {
        self.call(Call::get("/v1/allowed")).await
    }

    /// Puts the peer with this public key or node id on the allow list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn allow(&self, peer: impl Into<String>) -> Result<Done, ClientError> {
        let body = AllowedPeer { peer: peer.into() };
        self.call(Call::post("/v1/allowed", &body)?).await
    }

    /// Takes the peer with this public key or node id off the allow list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn disallow(&self, peer: &str) -> Result<Done, ClientError> {
        let path = format!("/v1/allowed/{}", escape(peer));
        self.call(Call::new(Method::DELETE, &path)).await
    }

    /// Searches the network for a peer.
    ///
    /// # Errors
    /// [`ClientError`]; [`ErrorCode::UnknownPeer`] if it was not found in time.
    pub async fn discover(&self, key: &PublicKey) -> Result<PeerFound, ClientError> {
        let body = DiscoverPeer { public_key: *key };
        self.call(Call::post("/v1/discover", &body)?.within(SEARCH_LIMIT))
            .await
    }

    /// Connects to a peer, given as `KEY` or `KEY::ADDRESS`, unless it is connected, and measures a round trip.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ping(&self, peer: impl Into<String>) -> Result<Pong, ClientError> {
        let body = PingPeer { peer: peer.into() };
        self.call(Call::post("/v1/ping", &body)?.within(SEARCH_LIMIT))
            .await
    }

    // --- the node ---

    /// Statistics of the messages that the node stores now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn store(&self) -> Result<StoreReport, ClientError> {
        self.call(Call::get("/v1/store")).await
    }

    /// Mailboxes with messages for offline peers, at most `limit`.
    ///
    /// # Errors
    /// [`ClientError`]; [`ErrorCode::Disabled`] if the node stores none.
    pub async fn mailboxes(&self, limit: Option<usize>) -> Result<MailboxList, ClientError> {
        let call = Call::get("/v1/store/mailboxes").with("limit", limit);
        self.call(call).await
    }

    /// The oldest messages stored for one recipient, at most `limit`.
    ///
    /// # Errors
    /// As [`mailboxes`](Self::mailboxes).
    pub async fn mailbox(
        &self,
        recipient: &PublicKey,
        limit: Option<usize>,
    ) -> Result<StoredMessages, ClientError> {
        let path = format!("/v1/store/mailboxes/{recipient}");
        self.call(Call::get(&path).with("limit", limit)).await
    }

    /// Deletes messages stored for offline peers.
    ///
    /// # Errors
    /// As [`mailboxes`](Self::mailboxes).
    pub async fn purge(&self, what: &Purge) -> Result<Purged, ClientError> {
        self.call(Call::post("/v1/store/purge", what)?).await
    }

    /// Asks connected peers for the messages they store for this node, and waits for their answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch(&self) -> Result<FetchReport, ClientError> {
        let call = Call::new(Method::POST, "/v1/fetch").within(SEARCH_LIMIT);
        self.call(call).await
    }

    /// Status of the node now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Call::get("/v1/status")).await
    }

    /// Settings the node runs with.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn config(&self) -> Result<NodeConfig, ClientError> {
        self.call(Call::get("/v1/config")).await
    }

    /// Events from now on. Connects with the first [`next`](EventReader::next), and again whenever the connection
    /// is lost; events in between are lost.
    #[must_use]
    pub fn events(&self) -> EventReader {
        EventReader::new(self.clone())
    }

    /// The OpenAPI document that the node serves.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.call(Call::get("/v1/openapi.json")).await
    }

    // --- sending ---

    async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        let limit = call.limit;
        let answered = async {
            let (response, lease) = self.connections.request(call.request()?).await?;
            let bytes = read(response).await?;
            // The connection can carry the next request.
            lease.give_back();
            serde_json::from_slice(&bytes).map_err(|error| answer(&error))
        };
        timeout(limit, answered)
            .await
            .unwrap_or(Err(ClientError::TimedOut))
    }

    /// Opens a stream of server-sent events that continues after the event `last`.
    async fn open(&self, call: Call<'_>, last: Option<u64>) -> Result<Incoming, ClientError> {
        let mut request = call.request()?;
        if let Some(last) = last {
            let last = header::HeaderValue::from(last);
            request.headers_mut().insert("last-event-id", last);
        }
        let opened = async {
            let (response, _lease) = self.connections.request(request).await?;
            if response.status().is_success() {
                return Ok(response.into_body());
            }
            read(response).await?;
            Err(ClientError::Answer("a stream was expected".to_owned()))
        };
        timeout(ANSWER_LIMIT, opened)
            .await
            .unwrap_or(Err(ClientError::TimedOut))
    }
}

/// Reads the body of a success, or the error in it.
async fn read(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let (head, body) = response.into_parts();
    let bytes = Limited::new(body, MAX_RESPONSE_BYTES)
        .collect()
        .await
        .map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => ClientError::Connection(*error),
            Err(error) => answer(&error),
        })?
        .to_bytes();
    if head.status.is_success() {
        return Ok(bytes);
    }
    let error = match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => body.error,
        Err(_) => ErrorInfo {
            code: ErrorCode::Unknown,
            message: format!("the node answered {}", head.status),
            hint: None,
        },
    };
    Err(ClientError::Refused {
        status: head.status,
        error,
    })
}

impl Call<'_> {
    fn request(self) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut uri = self.path.to_owned();
        for (index, (name, value)) in self.query.iter().enumerate() {
            uri.push(if index == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.push_str(&escape(value));
        }
        let mut request = Request::builder().method(self.method).uri(uri);
        if self.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(self.body.unwrap_or_default()))
            .map_err(|error| answer(&error))
    }
}

/// Percent-encodes everything but letters, digits and `-._~`.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
