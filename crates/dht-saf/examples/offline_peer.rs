//! Two nodes without a network: `cargo run -p dht-saf --example offline_peer`.
//!
//! Alice writes to Bob, who is offline. A holder, which cannot read the messages, stores them. Bob comes online and
//! asks for them page by page; each request proves that he received the page before, and the holder deletes it.
#![allow(clippy::print_stdout, reason = "it is an example")]

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use dht_core::{
    Clock as _, Content, DedupHash, Destination, Disposition, DropReason, Encryption, Entropy as _,
    Features, Flags, Header, InTransit, ManualClock, MessageTag, MessageType, NodeIdentity,
    OnDelivery, Opened, Payload, ProtocolVersion, RawEnvelope, RemotePeer, SealRequest,
    SealSecrets, SecretKey, SeededEntropy, SendQueue, SendQueueError, SendRequest, SharedEntropy,
    Signing, StoreOutcome, UnixSeconds, dedup_hash, dedup_key, encode_envelope, encode_parts, seal,
};
use dht_dedup::{DEFAULT_CAPACITY, DedupTable};
use dht_mailbox::{MemoryDisk, Store, StoreConfig};
use dht_peers::{
    Connections, Directory,
    policy::{AttributionProfile, BanPolicy, BanTerms},
};
use dht_saf::{Config, Ledger, Saf, SafEvent, SafParts};
use parking_lot::Mutex;
use tower::{BoxError, Layer as _, ServiceExt as _};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Messages that Alice sends: three pages of 50.
const MESSAGES: u64 = 120;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    // Outside of examples: `OsEntropy` and `SystemClock` of dht-core.
    let entropy: SharedEntropy = Arc::new(SeededEntropy::new(1));
    let clock = Arc::new(ManualClock::new(UnixSeconds(1_700_000_000)));
    let alice = SecretKey::random(&mut entropy.rng());
    let store = Store::open_on(MemoryDisk::new(), StoreConfig::default())?;
    let holder = Node::new(Features::NODE, Some(store.clone()), &entropy, &clock)?;
    let bob = Node::new(Features::CLIENT, None, &entropy, &clock)?;

    for number in 0..MESSAGES {
        let message = holder.open(write(&alice, &bob, number, &entropy)?, &alice)?;
        assert_eq!(holder.handle(message).await?, Disposition::Stored);
        clock.advance(1);
    }
    println!("The holder stores {} messages.", store.stats().rows);

    let mut events = bob.saf.subscribe();
    bob.saf.request_from(&holder.peer())?;
    let summary = loop {
        // The network: everything one node sends arrives at the other.
        bob.queue.deliver(&bob, &holder).await?;
        holder.queue.deliver(&holder, &bob).await?;
        if let Ok(SafEvent::CaughtUp(summary)) = events.try_recv() {
            break summary;
        }
    };
    println!("Bob is done: {summary:?}.");
    println!("His application has {} messages.", bob.inbox.lock().len());
    println!(
        "The holder stores the last page until Bob asks again: {} messages.",
        store.stats().rows
    );
    assert_eq!(summary.new, MESSAGES);
    Ok(())
}

/// Seals a message of Alice for Bob.
fn write(alice: &SecretKey, to: &Node, number: u64, entropy: &SharedEntropy) -> Outcome<Bytes> {
    let key = *to.identity.public_key();
    let request = SealRequest {
        body: encode_parts(&[Bytes::from(format!("message {number}"))]),
        message_type: MessageType::None,
        destination: Destination::PublicKey(key),
        encryption: Encryption::EncryptFor(key),
        sender: alice,
        signing: Signing::Anonymous,
        expires: None,
        tag: MessageTag(number),
        version: ProtocolVersion::V2,
    };
    let sealed = seal(request, SealSecrets::random(&mut entropy.rng()))?;
    Ok(encode_envelope(&sealed.header, &sealed.body))
}

/// A node: store-and-forward, a queue and an application.
struct Node {
    identity: Arc<NodeIdentity>,
    saf: Saf,
    queue: Arc<Queue>,
    inbox: Arc<Mutex<Vec<Envelope>>>,
}

impl Node {
    fn new(
        features: Features,
        store: Option<Store>,
        entropy: &SharedEntropy,
        clock: &Arc<ManualClock>,
    ) -> Outcome<Self> {
        let rng = &mut entropy.rng();
        let secret = SecretKey::random(rng);
        let identity = Arc::new(NodeIdentity::new(
            secret,
            features,
            vec![],
            clock.now(),
            rng,
        ));
        let queue = Arc::new(Queue::default());
        let directory = Directory::new(*identity.node_id());
        let bans = BanPolicy::new(
            AttributionProfile::Strict,
            BanTerms::default(),
            directory.clone(),
            Arc::clone(clock) as _,
        );
        let parts = SafParts {
            identity: Arc::clone(&identity),
            directory,
            connections: Connections::new(),
            clock: Arc::clone(clock) as _,
            entropy: Arc::clone(entropy),
            store,
            ledger: Arc::new(Ledger::in_memory()),
            send_queue: Arc::clone(&queue) as _,
            responses: dht_stack::ByteBudget::new(64 << 20),
            bans,
            dedup: DedupTable::new(DEFAULT_CAPACITY, [7; 16]),
        };
        Ok(Self {
            identity,
            saf: Saf::new(&Config::default(), parts),
            queue,
            inbox: Arc::default(),
        })
    }

    fn peer(&self) -> Arc<RemotePeer> {
        let key = *self.identity.public_key();
        Arc::new(RemotePeer::new(key, self.identity.features()))
    }

    /// Verifies and opens, as the layers before these do.
    fn open(&self, frame: Bytes, deliverer: &SecretKey) -> Outcome<Envelope> {
        let verified = RawEnvelope::parse(frame)?.into_sealed()?.verify()?;
        let deliverer = RemotePeer::new(deliverer.public_key(), Features::NODE);
        Ok(Envelope {
            deliverer: Arc::new(deliverer),
            hash: dedup_key(&verified)?,
            opened: verified.open(&self.identity)?,
        })
    }

    /// The part of the inbound stack that belongs to store-and-forward, with the application behind it.
    async fn handle(&self, message: Envelope) -> Outcome<Disposition> {
        let inbox = Arc::clone(&self.inbox);
        let application = tower::service_fn(move |message: Envelope| {
            let readable = message.opened.parts().is_some();
            if readable {
                inbox.lock().push(message);
            }
            std::future::ready(Ok::<_, BoxError>(match readable {
                true => Disposition::Delivered,
                false => Disposition::Dropped(DropReason::NotForUs),
            }))
        });
        let inner = self.saf.layer().layer(application);
        match self.saf.store_layer() {
            Some(store) => store.layer(inner).oneshot(message).await,
            None => inner.oneshot(message).await,
        }
    }
}

/// A message in the inbound stack of this example.
struct Envelope {
    deliverer: Arc<RemotePeer>,
    hash: DedupHash,
    opened: Opened,
}

impl InTransit for Envelope {
    fn source(&self) -> &Arc<RemotePeer> {
        &self.deliverer
    }
    fn opened(&self) -> &Opened {
        &self.opened
    }
    fn hash(&self) -> DedupHash {
        self.hash
    }
    fn occurrences(&self) -> u32 {
        1
    }
    fn set_store_outcome(&mut self, _: StoreOutcome) {}
    fn unpack(&mut self, opened: Opened, hash: DedupHash, _: usize) -> Self {
        Self {
            deliverer: Arc::clone(&self.deliverer),
            hash,
            opened,
        }
    }
}

/// Requests and responses that wait for the network.
#[derive(Default)]
struct Queue(Mutex<VecDeque<(MessageType, Bytes, OnDelivery)>>);

impl Queue {
    async fn deliver(&self, from: &Node, to: &Node) -> Outcome<()> {
        loop {
            let next = self.0.lock().pop_front();
            let Some((message_type, part, done)) = next else {
                return Ok(());
            };
            done(true);
            let message = Envelope {
                deliverer: from.peer(),
                hash: dedup_hash(&[], &part),
                opened: clear(message_type, part),
            };
            to.handle(message).await?;
        }
    }
}

impl SendQueue for Queue {
    fn try_send(&self, request: SendRequest) -> Result<(), SendQueueError> {
        self.try_send_reporting(request, Box::new(drop))
    }

    fn try_send_reporting(
        &self,
        request: SendRequest,
        done: OnDelivery,
    ) -> Result<(), SendQueueError> {
        if let SendRequest::Message {
            params,
            payload: Payload::Part(part),
        } = request
        {
            let message = (params.message_type, part, done);
            self.0.lock().push_back(message);
        }
        Ok(())
    }
}

/// A clear message of the protocol, as the recipient's stack opens it.
fn clear(message_type: MessageType, part: Bytes) -> Opened {
    Opened {
        header: Header {
            version: ProtocolVersion::V2,
            destination: Destination::Unknown,
            message_type,
            flags: Flags::NONE,
            signature: Bytes::new(),
            ephemeral_key: None,
            tag: MessageTag(0),
            expires: None,
        },
        content: Content::Readable {
            parts: vec![part],
            origin: None,
        },
        frame: Bytes::new(),
        body: Bytes::new(),
    }
}
