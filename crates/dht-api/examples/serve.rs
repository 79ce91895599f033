//! A node that serves the API: `cargo run -p dht-api --example serve [DIRECTORY]`.
//!
//! It listens on a free loopback port, receives into an inbox, and prints what to try. Ctrl-C stops it in order.
#![allow(clippy::print_stdout, reason = "it is an example")]

use std::{env, error::Error, path::PathBuf, sync::Arc};

use dht_api::{ApiServer, Limits, Metrics, MetricsServer, Parts};
use dht_core::{Entropy as _, OsEntropy, SecretKey};
use dht_node::{Config, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let home = env::args_os().nth(1).map_or_else(
        || env::temp_dir().join(format!("dht-api-{}", std::process::id())),
        PathBuf::from,
    );
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        ..Config::default()
    };
    let node = Node::builder(SecretKey::random(&mut OsEntropy.rng()))
        .config(config)
        .home(&home)
        .start()
        .await?;
    let key = *node.public_key();

    let parts = Parts::new(Arc::new(node));

    let socket = home.join("api.sock");
    let api = ApiServer::bind_unix(&socket, parts.clone(), Limits::default()).await?;
    let metrics = Metrics::install()?;
    let address = "127.0.0.1:0".parse()?;
    let health = MetricsServer::bind(address, metrics, parts.clone(), Limits::default()).await?;

    let (home, socket, address) = (home.display(), socket.display(), health.local_address());
    println!("curl --unix-socket {socket} http://localhost/v1/status");
    println!("curl --unix-socket {socket} http://localhost/v1/inbox/stream --no-buffer");
    println!("DHT_NODE_HOME={home} docs/clients/send.sh {key} hello");
    println!("curl http://{address}/ready");

    tokio::signal::ctrl_c().await?;
    api.shutdown().await;
    health.shutdown().await;
    parts.node.shutdown().await;
    Ok(())
}
