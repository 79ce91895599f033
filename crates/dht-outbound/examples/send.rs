//! Sends a message to two connected nodes through a sink that takes one copy and refuses the other, and prints what
//! became of each: `cargo run -p dht-outbound --example send`.

use std::sync::Arc;

use dht_core::{
    DeliveryError, DialFailure, Entropy as _, Features, ManualClock, Message, NodeIdentity,
    Payload, RemotePeer, SecretKey, SeededEntropy, SendParams, SendQueue as _, SendRequest,
    UnixSeconds,
};
use dht_dedup::DedupTable;
use dht_outbound::{Config, Outbound, OutboundMessage, PipelineParts, pipeline};
use dht_peers::{Connections, Direction, Directory};
use futures::StreamExt as _;
use tower::{BoxError, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // An operating-system generator and the system's clock outside of examples.
    let entropy = Arc::new(SeededEntropy::new(1));
    let now = UnixSeconds(1_700_000_000);
    let mut rng = entropy.rng();
    let me = NodeIdentity::new(
        SecretKey::random(&mut rng),
        Features::NODE,
        vec![],
        now,
        &mut rng,
    );

    let connections = Connections::new();
    for _ in 0..2 {
        let key = SecretKey::random(&mut rng).public_key();
        let peer = Arc::new(RemotePeer::new(key, Features::NODE));
        connections.insert(peer, Direction::Outbound);
    }

    // Where the transport would put a frame into a peer's queue.
    let mut copies = 0;
    let sink = service_fn(move |message: OutboundMessage| {
        copies += 1;
        message.reply.send(match copies {
            1 => Ok(()),
            _ => Err(DeliveryError::DialFailed(DialFailure::Lookup)),
        });
        std::future::ready(Ok::<_, BoxError>(()))
    });
    let parts = PipelineParts {
        directory: Directory::new(*me.node_id()),
        identity: Arc::new(me),
        connections,
        clock: Arc::new(ManualClock::new(now)),
        entropy,
        dedup: DedupTable::new(1_000, [1; 16]),
    };
    let config = Config::default();
    let (outbound, worker) = Outbound::new(&config, pipeline(parts, &config, sink));
    let worker = tokio::spawn(worker.run());

    // The application waits for room.
    let hello = || Payload::Domain(Message::new(1, "hello"));
    let broadcast = || SendParams::builder().broadcast(vec![]).finish();
    let deliveries = outbound
        .send(SendRequest::new(broadcast(), hello()))
        .await?;
    println!("message {:02x?}…", deliveries.hash().map(|hash| hash.0[0]));
    let mut deliveries = deliveries.into_stream();
    while let Some(delivery) = deliveries.next().await {
        println!("to {}: {:?}", delivery.recipient, delivery.result);
    }

    // Other parts of a node are refused when there is none.
    let report = Box::new(|left| println!("all copies left: {left}"));
    outbound.try_send_reporting(SendRequest::new(broadcast(), hello()), report)?;
    drop(outbound);
    worker.await?;
    Ok(())
}
