//! A banned peer is cut off and stays out until the ban ends.

use std::sync::Arc;

use dht_core::{Clock as _, DeliveryError, DialFailure, Severity};
use dht_node::{Node, SendOptions, SubmitError};
use dht_peers::BanOutcome;
use dht_transport::DialError;

use crate::net::{builder, clock, connect, is_connected, message, receive, send, until, within};

/// Two connected nodes with one clock; the first bans the second for ten minutes.
async fn banned() -> (Node, Node, Arc<dht_core::ManualClock>) {
    let clock = clock();
    let start = |seed| builder(seed).clock(Arc::clone(&clock) as _).start();
    let alice = within(start(1)).await.unwrap();
    let banned = within(start(2)).await.unwrap();
    connect(&banned, &alice).await;
    let now = clock.now();
    let outcome = alice.directory().ban(
        *banned.public_key(),
        now.saturating_add(600),
        Severity::Medium,
        "a test",
        now,
    );
    assert!(matches!(outcome, BanOutcome::Banned(_)), "{outcome:?}");
    until(|| !is_connected(&alice, &banned) && !is_connected(&banned, &alice)).await;
    (alice, banned, clock)
}

/// Both, connected again, can talk to each other.
async fn assert_reconciled(alice: &Node, banned: &Node) {
    let (mut to_alice, mut to_banned) = (alice.subscribe(), banned.subscribe());
    within(send(banned, alice.public_key(), message("thanks")))
        .await
        .unwrap();
    assert_eq!(receive(&mut to_alice).await.message, message("thanks"));
    within(send(alice, banned.public_key(), message("welcome")))
        .await
        .unwrap();
    assert_eq!(receive(&mut to_banned).await.message, message("welcome"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn banned_peer_is_refused_until_unbanned() {
    let (alice, banned, _clock) = banned().await;
    let _inbox = alice.subscribe();
    for _ in 0..3 {
        let dialled = within(banned.connect(&alice.peer_address())).await;
        // The ban is noticed by whom is dialled, after the dialler's half of the handshake at the earliest.
        if dialled.is_ok() {
            until(|| !is_connected(&banned, &alice)).await;
        }
        assert!(!is_connected(&alice, &banned));
    }
    let sent = within(send(&banned, alice.public_key(), message("let me in"))).await;
    // The dialler's half of the handshake may be over when the ban is noticed.
    let refused = [
        DeliveryError::Refused,
        DeliveryError::DialFailed(DialFailure::HandshakeEnded),
        DeliveryError::DialFailed(DialFailure::NotAccepted),
    ]
    .map(|error| Err(error.to_string()));
    assert!(refused.contains(&sent), "{sent:?}");
    assert_eq!(alice.stats().delivered, 0);

    // The other way round nobody even tries.
    assert!(matches!(
        within(alice.connect(&banned.peer_address())).await,
        Err(DialError::Banned)
    ));
    let sent = within(send(&alice, banned.public_key(), message("no"))).await;
    let refused = sent.unwrap_err();
    // Seconds pass.
    let rest = refused.strip_prefix("this node bans the recipient for ");
    assert!(
        rest.is_some_and(|rest| rest.ends_with(" s more: a test")),
        "{refused}"
    );

    assert!(alice.directory().unban(*banned.public_key()));
    connect(&alice, &banned).await;
    assert_reconciled(&alice, &banned).await;
}

/// The message was accepted before the ban.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_key_outlives_a_ban() {
    let (alice, banned, clock) = banned().await;
    let to = banned.public_key();
    let named = |key: &str| SendOptions {
        key: Some(key.to_owned()),
        ..SendOptions::default()
    };
    assert!(alice.directory().unban(*to));
    let first = within(alice.send(to, message("pay"), named("a"))).await;
    let now = clock.now();
    let until = now.saturating_add(600);
    let outcome = (alice.directory()).ban(*to, until, Severity::Medium, "a test", now);
    assert!(matches!(outcome, BanOutcome::Banned(_)), "{outcome:?}");
    let again = within(alice.send(to, message("pay"), named("a"))).await;
    assert_eq!(again.unwrap().id(), first.unwrap().id());
    for options in [named("b"), SendOptions::default()] {
        let refused = within(alice.send(to, message("pay"), options)).await;
        assert!(matches!(refused, Err(SubmitError::Banned { .. })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_ends_by_itself() {
    let (alice, banned, clock) = banned().await;
    clock.advance(599);
    assert!(matches!(
        within(alice.connect(&banned.peer_address())).await,
        Err(DialError::Banned)
    ));
    clock.advance(1);
    connect(&banned, &alice).await;
    assert_reconciled(&alice, &banned).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_concern_nobody_else() {
    let (alice, banned, clock) = banned().await;
    let other = within(builder(3).clock(clock as _).start()).await.unwrap();
    let mut inbox = alice.subscribe();
    connect(&other, &alice).await;
    within(send(&other, alice.public_key(), message("hello")))
        .await
        .unwrap();
    assert_eq!(receive(&mut inbox).await.sender, Some(*other.public_key()));
    // Nor does the alice's ban keep the banned peer from others.
    connect(&banned, &other).await;
}
