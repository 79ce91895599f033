//! The local API: messages sent through it over the unix socket, into the outbox of a home beside this program.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use dht_api::{ApiServer, Client, Limits, Parts, types::NewMessage};
use dht_core::{Entropy as _, OsEntropy, PublicKey, SecretKey};
use dht_node::{Config, Node};
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
        let config = Config {
            listen: Vec::new(),
            ..Config::default()
        };
        let home = directory.path().join("home");
        let node = Node::builder(key())
            .config(config)
            .home(home)
            .start()
            .await?;
        let parts = Parts::new(Arc::new(node));
        let socket = directory.path().join("api.sock");
        let server = ApiServer::bind_unix(&socket, parts, Limits::default()).await?;
        let (client, to) = (Client::unix(&socket), key().public_key());

        let floor = floor(&client, effort).await?;
        one_by_one(report, effort, &client, &to, floor).await?;
        together(report, effort, &client, &to).await?;
        server.shutdown().await;
        Ok(())
    })
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
    to: &PublicKey,
    floor: f64,
) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for _ in 0..effort.messages.min(500) {
        let message = message(to);
        let begin = now();
        client.send(&message).await?;
        samples.push(micros(begin.elapsed()));
    }
    let row = Row::new("api.send", "us", "message of 1 kB, durable in the outbox");
    report.row(row.floor(floor), || median(samples));
    Ok(())
}

async fn together(
    report: &mut Report,
    effort: Effort,
    client: &Client,
    to: &PublicKey,
) -> anyhow::Result<()> {
    let each = (effort.messages / CALLERS).max(1);
    let mut samples = Vec::new();
    for _ in 0..effort.samples {
        let begin = now();
        let callers = (0..CALLERS).map(|_| {
            let (client, message) = (client.clone(), message(to));
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

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
