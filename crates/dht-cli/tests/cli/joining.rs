//! Processes that find each other over TCP.

use dht_api::Client;
use futures::future::join_all;
use tempfile::TempDir;
use tokio::time::{Duration, Instant, interval};

use crate::{LIMIT, address, start, stop, within};

/// Nodes, each of which is a process.
const NODES: usize = 12;
/// Connections of a node whose neighbour pool is full.
const NEIGHBOURS: u64 = dht_node::DEFAULT_NEIGHBOURS as u64;

/// Each knows the first one. On a machine that does nothing else this takes three seconds; the goal is 15.
#[tokio::test]
async fn processes_join_from_one_seed() {
    let dir = TempDir::new().unwrap();
    let homes = [(); NODES].map(|()| TempDir::new_in(dir.path()).unwrap());
    let mut nodes = vec![start(homes[0].path()).await];
    let config = format!("peers = ['{}']", address(homes[0].path()).await);
    for home in &homes[1..] {
        std::fs::write(home.path().join("config.toml"), &config).unwrap();
    }
    let begun = Instant::now();
    nodes.extend(join_all(homes[1..].iter().map(|home| start(home.path()))).await);
    let clients = homes
        .each_ref()
        .map(|home| Client::unix(home.path().join("api.sock")));
    let mut looks = interval(Duration::from_millis(100));
    loop {
        looks.tick().await;
        let statuses = within(join_all(clients.iter().map(Client::status))).await;
        let connections: Vec<u64> = statuses
            .into_iter()
            .map(|status| status.unwrap().connections)
            .collect();
        if connections.iter().all(|count| *count >= NEIGHBOURS) {
            break;
        }
        assert!(begun.elapsed() < LIMIT * 5, "{connections:?}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{NODES} processes joined within {seconds:.1} s");
    join_all(nodes.into_iter().map(stop)).await;
}
