use std::time::Duration;

use dht_api::{
    Limits,
    types::{ErrorCode, NewMessage},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{sleep, timeout},
};

use crate::served::{Served, key};

const STREAM: &[u8] = b"GET /v1/inbox/stream HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_large_body_is_refused() {
    let served = Served::start().await;
    let limit = Limits::default().body_bytes;
    // Announced: refused before it is read.
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        limit + 1
    );
    assert!(served.raw(&head).await.starts_with("HTTP/1.1 413 "));

    // The largest payload passes.
    let payload = vec![0xff_u8; dht_node::MAX_PAYLOAD_BYTES];
    let message = served
        .client
        .send(&NewMessage::bytes(key(), payload))
        .await
        .unwrap();
    assert_eq!(message.payload_bytes, dht_node::MAX_PAYLOAD_BYTES as u64);
    let payload = vec![0_u8; dht_node::MAX_PAYLOAD_BYTES + 1];
    let error = served
        .client
        .send(&NewMessage::bytes(key(), payload))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TooLarge));
}

#[tokio::test]
async fn a_large_chunked_body_is_refused() {
    let limits = Limits {
        body_bytes: 1000,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    let mut request =
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_owned();
    for _ in 0..20 {
        request.push_str("64\r\n");
        request.push_str(&"x".repeat(100));
        request.push_str("\r\n");
    }
    assert!(served.raw(&request).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_slow_request_is_cut_off() {
    let limits = Limits {
        head_seconds: 1,
        body_seconds: 1,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    let slow_head = timeout(Duration::from_secs(5), served.raw("GET /v1/status HT"));
    let slow_body = timeout(
        Duration::from_secs(5),
        served.raw("POST /v1/ping HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{"),
    );
    let (head, body) = tokio::join!(slow_head, slow_body);
    let head = head.unwrap();
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408 "),
        "{head}"
    );
    assert!(body.unwrap().starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn connections_over_the_limit_wait() {
    let limits = Limits {
        connections: 2,
        head_seconds: 1,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    let idle = [
        UnixStream::connect(served.socket()).await.unwrap(),
        UnixStream::connect(served.socket()).await.unwrap(),
    ];
    sleep(Duration::from_millis(50)).await;
    let early = timeout(Duration::from_millis(300), served.client.status()).await;
    assert!(early.is_err(), "two idle connections take both places");
    // Idle connections are closed, and give their places to those that ask.
    timeout(Duration::from_secs(5), served.client.status())
        .await
        .unwrap()
        .unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_slow_reader_keeps_its_messages() {
    let limits = Limits {
        streams: 1,
        write_seconds: 1,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    served.receive((0..40).map(|_| vec![0; 100_000])).await;
    let mut slow = UnixStream::connect(served.socket()).await.unwrap();
    slow.write_all(STREAM).await.unwrap();
    sleep(Duration::from_millis(100)).await;

    let mut other = served.client.inbox_stream("default", None);
    let error = other.next().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TooManyStreams));

    // Cut off, it gives its place to another, which gets everything.
    sleep(Duration::from_secs(2)).await;
    for id in 1..=40 {
        assert_eq!(other.next().await.unwrap().unwrap().id, id);
    }
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert!(
        rest.len() < 2_000_000,
        "the slow one got {} bytes",
        rest.len()
    );
}

#[tokio::test]
async fn departed_reader_frees_its_place() {
    let limits = Limits {
        streams: 1,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    for _ in 0..3 {
        let mut socket = UnixStream::connect(served.socket()).await.unwrap();
        socket.write_all(STREAM).await.unwrap();
        let mut answer = [0; 15];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        drop(socket);
        sleep(Duration::from_millis(200)).await;
    }
}
