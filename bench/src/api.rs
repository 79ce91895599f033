//! The local API over unix sockets: messages sent through that of one node, into its outbox, and read from the inbox of
//! another through its own. Their homes lie beside this program.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use dht_api::{
    ApiServer, Client, Limits, Parts,
    types::{Ack, NewMessage},
};
use dht_core::{Entropy as _, OsEntropy, PublicKey, SecretKey};
use dht_node::{Config, DEFAULT_LISTEN, Node, RateLimits};
use tokio::runtime::Runtime;

use crate::{
    report::{Report, Row},
    sample::{Effort, median, now},
};

/// Callers at once, each with a connection that it keeps.
const CALLERS: usize = 32;
/// Bytes of one payload.
const PAYLOAD_BYTES: usize = 1000;

pub(crate) fn run(report: &mut Report, effort: Effort) -> anyhow::Result<()> {
    if !report.wants("api.") {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let beside = program.parent().context("no directory of the program")?;
    let directory = tempfile::tempdir_in(beside)?;
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let sender = Served::start(&directory.path().join("sender")).await?;
        let client = &sender.client;
        let floor = floor(client, effort).await?;
        if report.shows("api.send") {
            one_by_one(report, effort, client, floor).await?;
        }
        if report.shows("api.messages") {
            together(report, effort, client).await?;
        }
        sender.server.shutdown().await;
        // Without what is left of the rows above.
        let sender = Served::start(&directory.path().join("another")).await?;
        let recipient = Served::start(&directory.path().join("recipient")).await?;
        let peer = recipient.node.peer_address();
        sender.node.connect(&peer).await?;
        to_inbox(report, effort, &sender.client, &recipient, floor).await?;
        sender.server.shutdown().await;
        recipient.server.shutdown().await;
        Ok(())
    })
}

/// A node with a home and an API.
struct Served {
    node: Arc<Node>,
    client: Client,
    server: ApiServer,
}

impl Served {
    async fn start(home: &Path) -> anyhow::Result<Self> {
        let config = Config {
            listen: vec![DEFAULT_LISTEN.replace("18189", "0").parse()?],
            flood_messages: u32::MAX,
            rates: RateLimits::NONE,
            ..Config::default()
        };
        let builder = Node::builder(key()).config(config).home(home);
        let node = Arc::new(builder.start().await?);
        let socket = home.join("api.sock");
        let parts = Parts::new(Arc::clone(&node));
        let server = ApiServer::bind_unix(&socket, parts, Limits::default()).await?;
        Ok(Self {
            node,
            client: Client::unix(&socket),
            server,
        })
    }
}

fn key() -> SecretKey {
    SecretKey::random(&mut OsEntropy.rng())
}

fn message(to: &PublicKey) -> NewMessage {
    NewMessage::bytes(*to, vec![0xa5; PAYLOAD_BYTES])
}

/// Median microseconds of a request that does nothing.
async fn floor(client: &Client, effort: Effort) -> anyhow::Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..effort.messages.min(1_000) {
        let begin = now();
        // The smallest answer there is.
        client.bans().await?;
        samples.push(micros(begin.elapsed()));
    }
    Ok(median(samples))
}

async fn one_by_one(
    report: &mut Report,
    effort: Effort,
    client: &Client,
    floor: f64,
) -> anyhow::Result<()> {
    let message = message(&key().public_key());
    let mut samples = Vec::new();
    for _ in 0..effort.messages.min(500) {
        let begin = now();
        client.send(&message).await?;
        samples.push(micros(begin.elapsed()));
    }
    let row = Row::new("api.send", "us", "message of 1 kB, durable in the outbox");
    report.row(row.floor(floor), || median(samples));
    Ok(())
}

async fn together(report: &mut Report, effort: Effort, client: &Client) -> anyhow::Result<()> {
    let each = (effort.messages / CALLERS).max(1);
    let mut samples = Vec::new();
    for _ in 0..effort.samples {
        // All samples would be more than one recipient's share of the outbox.
        let to = key().public_key();
        let begin = now();
        let callers = (0..CALLERS).map(|_| {
            let (client, message) = (client.clone(), message(&to));
            tokio::spawn(async move {
                for _ in 0..each {
                    client.send(&message).await?;
                }
                Ok::<_, dht_api::ClientError>(())
            })
        });
        for caller in futures::future::join_all(callers).await {
            caller??;
        }
        let sent = u32::try_from(CALLERS * each)?;
        samples.push(f64::from(sent) / begin.elapsed().as_secs_f64());
    }
    let row = Row::new(
        "api.messages",
        "messages/s",
        "message of 1 kB, durable, 32 callers",
    );
    report.row(row.target(5_000.0), || median(samples));
    Ok(())
}

/// Messages of one node that a consumer reads from the inbox of the other: one after the other, and from many callers.
async fn to_inbox(
    report: &mut Report,
    effort: Effort,
    client: &Client,
    recipient: &Served,
    floor: f64,
) -> anyhow::Result<()> {
    let message = message(recipient.node.public_key());
    let mut inbox = recipient.client.inbox_stream("default", None);
    let (mut samples, mut newest) = (Vec::new(), 0);
    for _ in 0..effort.messages.min(500) {
        let begin = now();
        client.send(&message).await?;
        let received = inbox.next().await?.context("the stream has ended")?;
        samples.push(micros(begin.elapsed()));
        newest = received.id;
    }
    let row = Row::new(
        "api.send_to_inbox",
        "us",
        "message of 1 kB, sent by one node, read from the inbox of another",
    );
    report.row(row.floor(2.0 * floor).target(2_000.0), || median(samples));
    let each = (effort.messages / CALLERS).max(1);
    let mut samples = Vec::new();
    for _ in 0..effort.samples {
        let begin = now();
        let callers = (0..CALLERS).map(|_| {
            let (client, message) = (client.clone(), message.clone());
            tokio::spawn(async move {
                for _ in 0..each {
                    client.send(&message).await?;
                }
                Ok::<_, dht_api::ClientError>(())
            })
        });
        let callers = futures::future::join_all(callers);
        let reading = async {
            for _ in 0..CALLERS * each {
                newest = inbox.next().await?.context("the stream has ended")?.id;
            }
            let ack = Ack {
                consumer: "default".to_owned(),
                up_to: Some(newest),
                ids: Vec::new(),
            };
            recipient.client.ack(&ack).await?;
            anyhow::Ok(())
        };
        let (sent, read) = futures::future::join(callers, reading).await;
        for caller in sent {
            caller??;
        }
        read?;
        let count = u32::try_from(CALLERS * each)?;
        samples.push(f64::from(count) / begin.elapsed().as_secs_f64());
    }
    let row = Row::new(
        "api.messages_to_inbox",
        "messages/s",
        "message of 1 kB, from 32 callers of one node to the inbox of another, read and acked",
    );
    report.row(row.target(5_000.0), || median(samples));
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
