use std::time::Duration;

use dht_api::{
    ClientError, Parts,
    types::{ErrorCode, MessageState, NewMessage},
};
use dht_core::UnixSeconds;
use dht_spool::Transition;
use tokio::time::timeout;

use crate::served::{Served, key, node, within};

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> ErrorCode {
    answer.unwrap_err().code().unwrap()
}

#[tokio::test]
async fn a_key_queues_a_message_once() {
    let served = Served::start().await;
    let mut message = NewMessage::text(key(), "hello");
    message.key = Some("invoice-17".into());
    let first = served.client.send(&message).await.unwrap();
    let again = served.client.send(&message).await.unwrap();
    assert_eq!(
        (first.state, first.payload_bytes),
        (MessageState::Queued, 5)
    );
    assert_eq!(again.id, first.id);
    assert_eq!(served.outbox().stats().rows, 1);

    message.text = Some("another".into());
    assert_eq!(
        code(served.client.send(&message).await),
        ErrorCode::KeyReused
    );
}

#[tokio::test]
async fn the_header_is_a_key_too() {
    let served = Served::start().await;
    let body = format!(r#"{{"to":"{}","text":"x"}}"#, key());
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nidempotency-key: k1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..2 {
        assert!(served.raw(&request).await.starts_with("HTTP/1.1 202 "));
    }
    assert_eq!(served.outbox().stats().rows, 1);
    let twice = request.replace(
        "idempotency-key: k1",
        "idempotency-key: k2\r\nidempotency-key: k3",
    );
    assert!(served.raw(&twice).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(served.outbox().stats().rows, 1);
}

#[tokio::test]
async fn a_state_is_waited_for() {
    let served = Served::start().await;
    let id = served
        .client
        .send(&NewMessage::text(key(), "x"))
        .await
        .unwrap()
        .id;
    let waiting = served.client.message_after(id, MessageState::Queued);
    let changing = async {
        let stored = Transition::Stored {
            holders: 3,
            retry_at: None,
        };
        // A later request is answered: the first one most likely waits.
        served.client.status().await.unwrap();
        served
            .outbox()
            .update(id, stored, UnixSeconds(1))
            .await
            .unwrap();
    };
    let (message, ()) = within(async { tokio::join!(waiting, changing) }).await;
    let message = message.unwrap();
    assert_eq!(
        (message.state, message.holders),
        (MessageState::Stored, Some(3))
    );
}

/// No attempt follows: whoever waits for a receipt is answered at once.
#[tokio::test]
async fn ended_message_is_not_waited_for() {
    let served = Served::start().await;
    let stored = Transition::Stored {
        holders: 3,
        retry_at: None,
    };
    let sent = Transition::Sent { retry_at: None };
    for (transition, state) in [(stored, MessageState::Stored), (sent, MessageState::Sent)] {
        let message = NewMessage::text(key(), "x");
        let id = served.client.send(&message).await.unwrap().id;
        let outbox = served.outbox();
        outbox.update(id, transition, UnixSeconds(1)).await.unwrap();
        // Less than the time after which any request is answered.
        let waiting = served.client.message_after(id, state);
        let message = timeout(Duration::from_secs(20), waiting).await.unwrap();
        assert!(message.unwrap().ended_at.is_some());
    }
}

#[tokio::test]
async fn messages_are_listed_in_pages() {
    let served = Served::start().await;
    let keys = [key(), key()];
    for n in 0..6 {
        let message = NewMessage::text(keys[n % 2], "x");
        served.client.send(&message).await.unwrap();
    }
    let page = served
        .client
        .messages(None, None, None, Some(4))
        .await
        .unwrap();
    assert_eq!((page.messages.len(), page.next), (4, Some(4)));
    let rest = served
        .client
        .messages(None, None, page.next, None)
        .await
        .unwrap();
    assert_eq!((rest.messages.len(), rest.next), (2, None));
    let of_one = served
        .client
        .messages(None, Some(&keys[1]), None, None)
        .await
        .unwrap();
    assert_eq!(of_one.messages.len(), 3);
    let received = Some(MessageState::Received);
    let none = served
        .client
        .messages(received, None, None, None)
        .await
        .unwrap();
    assert!(none.messages.is_empty());
}

#[tokio::test]
async fn bad_requests_say_why() {
    let served = Served::start().await;
    let mut message = NewMessage::text(key(), "x");
    message.ttl_seconds = Some(0);
    let error = served.client.send(&message).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`ttl_seconds` is not in the range 1 to 259200"
    );

    assert_eq!(code(served.client.message(99).await), ErrorCode::NotFound);
    assert_eq!(
        code(served.client.messages(None, None, None, Some(0)).await),
        ErrorCode::BadRequest
    );
    for (request, status, message) in [
        (
            "GET /v1/messages/x",
            400,
            "an id is a whole number, 1 or larger",
        ),
        (
            "GET /v1/messages?stat=sent",
            400,
            "`stat` is not known here; known: `state`, `to`, `after`, `limit`",
        ),
        (
            "GET /v1/messages?state=gone",
            400,
            "`state` has the value `gone`; it takes `queued`, `sent`, `stored`, `failed`, `expired`, `received`",
        ),
        (
            "GET /v1/messages?limit=x",
            400,
            "`limit` takes a whole number that is not negative",
        ),
        (
            "GET /v1/messages?limit=1001",
            400,
            "`limit` is not in the range 1 to 1000",
        ),
        ("GET /v2/messages", 404, "no such route"),
        ("DELETE /v1/messages", 405, "the route has no such method"),
    ] {
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = served.raw(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(
            answer.contains(r#"{"version":1,"error":{"code":""#),
            "{answer}"
        );
        assert!(
            answer.contains(&format!(r#""message":"{message}""#)),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn without_home_there_is_no_outbox() {
    let served = Served::over(Parts::new(node().await), Default::default()).await;
    let message = NewMessage::text(key(), "x");
    let error = served.client.send(&message).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoHome));
    assert!(error.hint().unwrap().contains("--home"));
    assert_eq!(
        code(served.client.inbox("default", None, None).await),
        ErrorCode::NoHome
    );
}

#[tokio::test]
async fn a_message_is_withdrawn() {
    let served = Served::start().await;
    let id = served
        .client
        .send(&NewMessage::text(key(), "x"))
        .await
        .unwrap()
        .id;
    let message = within(served.client.withdraw(id)).await.unwrap();
    assert_eq!(message.state, MessageState::Failed);
    assert_eq!(message.reason.as_deref(), Some("withdrawn"));
    assert!(message.ended_at.is_some());
    assert_eq!(code(served.client.withdraw(99).await), ErrorCode::NotFound);
}

/// A message that nobody can withdraw any more is refused with the reason, and stays as it is.
#[tokio::test]
async fn ended_messages_are_not_withdrawn() {
    let served = Served::start().await;
    let stored = Transition::Stored {
        holders: 3,
        retry_at: None,
    };
    let sent = Transition::Sent { retry_at: None };
    let failed = Transition::Failed {
        reason: "no way".to_owned(),
    };
    for (transition, why) in [
        (sent, "was sent to a peer that gives no receipts"),
        (stored, "is stored by 3 other nodes, which deliver it"),
        (Transition::Received, "was received"),
        (failed, "has failed already: no way"),
    ] {
        let message = NewMessage::text(key(), "x");
        let id = served.client.send(&message).await.unwrap().id;
        let outbox = served.outbox();
        outbox.update(id, transition, UnixSeconds(1)).await.unwrap();
        let before = served.client.message(id).await.unwrap();
        let error = within(served.client.withdraw(id)).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Conflict));
        assert_eq!(error.to_string(), format!("message {id} {why}"));
        assert_eq!(served.client.message(id).await.unwrap(), before);
    }
}

#[tokio::test]
async fn a_message_is_sent_and_received() {
    let served = Served::start().await;
    let bob = node().await;
    let mut received = bob.subscribe();
    served
        .client
        .ping(bob.peer_address().to_string())
        .await
        .unwrap();
    let message = NewMessage::text(*bob.public_key(), "hello");
    let mut message = served.client.send(&message).await.unwrap();
    assert_eq!(received.recv().await.unwrap().message.payload, "hello");
    received.ack().await;
    while !message.state.has_ended() {
        message = served
            .client
            .message_after(message.id, message.state)
            .await
            .unwrap();
    }
    assert_eq!(message.state, MessageState::Received);
}
