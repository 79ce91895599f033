//! How many sessions a server has, and which one makes room.

use std::time::Duration;

use dht_proto::dht_rpc::{GetPeersRequest, GetPeersResponse};
use dht_rpc::{
    CallError, Client, ClientConfig, HandshakeError, RejectReason, Responses, ServerConfig,
};
use tokio::{io::DuplexStream, time::sleep};

use crate::support::{ECHO, Raw, Running, TICK, number};

const SOON: Duration = Duration::from_secs(1);

fn server() -> Running {
    Running::new(ServerConfig {
        max_sessions: 4,
        max_peer_sessions: 2,
        ..ServerConfig::default()
    })
}

async fn echo(client: &mut Client<DuplexStream>) -> Result<GetPeersRequest, CallError> {
    client.unary(ECHO, &number(1)).await
}

/// Starts an endless call, which keeps the session busy.
async fn busy(client: &mut Client<DuplexStream>) -> Responses<'_, DuplexStream, GetPeersResponse> {
    let mut ticks = client.stream(TICK, &number(0)).await.unwrap();
    ticks.next().await.unwrap();
    ticks
}

#[tokio::test(start_paused = true)]
async fn longest_idle_session_is_culled() {
    let server = server();
    let mut first = server.client(1, 1).await;
    let mut second = server.client(1, 1).await;
    echo(&mut first).await.unwrap();
    let mut third = server.client(1, 1).await;
    echo(&mut third).await.unwrap();
    echo(&mut first).await.unwrap();
    assert!(echo(&mut second).await.is_err());
    assert!(second.is_closed());
}

/// The reason is sent unread, and to a client whose own frame no longer finds a reader.
#[tokio::test(start_paused = true)]
async fn busy_peer_is_rejected_unread() {
    let server = server();
    let (mut first, mut second) = (server.client(1, 1).await, server.client(1, 1).await);
    let (_first, _second) = (busy(&mut first).await, busy(&mut second).await);
    let mut raw = Raw(server.stream(1, 1, 64).await);
    assert_eq!(raw.receive().await.unwrap(), [0x10, 1, 0x18, 2].as_slice());
    assert_eq!(raw.receive().await, None);
    let stream = server.stream(1, 1, 64).await;
    sleep(SOON).await;
    let rejected = Client::connect(stream, ClientConfig::default()).await;
    let no_session = RejectReason::NoServerSessions;
    assert!(matches!(rejected, Err(HandshakeError::Rejected(reason)) if reason == no_session));
}

/// One source group, with any number of keys and every session busy, keeps nobody else out.
#[tokio::test(start_paused = true)]
async fn crowded_source_gives_way() {
    let server = server();
    let mut crowd = Vec::new();
    for peer in 0..4 {
        crowd.push(server.client(peer, 1).await);
    }
    let mut calls = Vec::new();
    for client in &mut crowd {
        calls.push(busy(client).await);
    }
    let mut honest = server.client(9, 2).await;
    echo(&mut honest).await.unwrap();
    // The oldest made room: it ends after what it had been sent.
    while calls[0].next().await.is_ok() {}
    for _ in 0..10 {
        calls[1].next().await.unwrap();
    }
}

/// Section 17, item 12: in the reference, ten failed handshakes lock a peer out, and one that is slow holds up all.
#[tokio::test(start_paused = true)]
async fn failed_handshakes_free_their_place() {
    let server = server();
    for _ in 0..20 {
        let mut raw = Raw(server.stream(1, 1, 64).await);
        raw.send(&[0xff; 7]).await;
        assert!(raw.ends_within(SOON).await);
    }
    let silent = server.stream(1, 1, 64).await;
    let mut client = server.client(1, 1).await;
    echo(&mut client).await.unwrap();
    drop(silent);
}
