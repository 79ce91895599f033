use dht_api::{
    Limits,
    types::{ErrorCode, NewMessage},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::sleep,
};

use crate::served::{LOOK_AGAIN, Served, key, until, within};

const STREAM: &[u8] = b"GET /v1/inbox/stream HTTP/1.1\r\nhost: x\r\n\r\n";

/// First bytes of the answer to a client that gets its stream.
const OPENED: [u8; 15] = *b"HTTP/1.1 200 OK";

/// Asks for a stream; the connection, and the first bytes of the answer.
async fn ask_for_stream(served: &Served) -> (UnixStream, [u8; 15]) {
    let mut socket = UnixStream::connect(served.socket()).await.unwrap();
    socket.write_all(STREAM).await.unwrap();
    let mut answer = [0; 15];
    within(socket.read_exact(&mut answer)).await.unwrap();
    (socket, answer)
}

/// A stream that the server has opened, of which nobody reads more.
async fn open_stream(served: &Served) -> UnixStream {
    let (socket, answer) = ask_for_stream(served).await;
    assert_eq!(answer, OPENED);
    socket
}

#[tokio::test]
async fn encoded_bodies_are_refused() {
    let served = Served::start().await;
    for (encoding, status) in [("gzip", "415"), ("identity", "400")] {
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding: {encoding}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        let answer = served.raw(&request).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
}

/// 503: nobody is connected whom the node could ask.
#[tokio::test]
async fn a_fetch_takes_no_body() {
    let served = Served::start().await;
    for (body, status) in [
        ("", "503"),
        ("{}", "503"),
        ("{\"x\":1}", "400"),
        ("x", "400"),
    ] {
        let request = format!(
            "POST /v1/fetch HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = served.raw(&request).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
}

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
async fn a_slow_body_is_cut_off() {
    let limits = Limits {
        body_seconds: 1,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    let slow = served.raw("POST /v1/ping HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{");
    let answer = within(slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn idle_connections_give_their_places() {
    let limits = Limits {
        connections: 2,
        first_request_seconds: 60 * 60,
        head_seconds: 60 * 60,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    let idle = [
        UnixStream::connect(served.socket()).await.unwrap(),
        UnixStream::connect(served.socket()).await.unwrap(),
    ];
    within(served.client.status()).await.unwrap();
    drop(idle);
}

/// A page that nobody reads from the socket holds up none but the next one.
#[tokio::test]
async fn unread_pages_leave_others_served() {
    let limits = Limits {
        // One page takes all.
        responses_bytes: 1 << 20,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    served.receive([vec![0; 6 << 20]]).await;
    let ask = async || {
        let mut socket = UnixStream::connect(served.socket()).await.unwrap();
        let request = b"GET /v1/inbox HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await.unwrap();
        socket
    };
    let mut start = [0; 15];
    let mut first = ask().await;
    within(first.read_exact(&mut start)).await.unwrap();
    let mut second = ask().await;
    for _ in 0..20 {
        within(served.client.status()).await.unwrap();
    }
    for socket in [&mut first, &mut second] {
        let mut page = Vec::new();
        within(socket.read_to_end(&mut page)).await.unwrap();
        assert!(page.len() > 8 << 20);
    }
}

#[tokio::test]
async fn a_slow_reader_keeps_its_messages() {
    let limits = Limits {
        streams: 1,
        write_seconds: 1,
        ..Limits::default()
    };
    let served = Served::with(limits).await;
    let mut slow = open_stream(&served).await;
    let mut other = served.client.inbox_stream("default", None);
    let error = other.next().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TooManyStreams));

    // Cut off, it gives its place to another, which gets everything.
    served.receive((0..40).map(|_| vec![0; 100_000])).await;
    let first = within(async {
        loop {
            match other.next().await {
                Ok(message) => break message.unwrap().id,
                Err(error) => assert_eq!(error.code(), Some(ErrorCode::TooManyStreams)),
            }
            sleep(LOOK_AGAIN).await;
        }
    });
    assert_eq!(first.await, 1);
    for id in 2..=40 {
        assert_eq!(within(other.next()).await.unwrap().unwrap().id, id);
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
        until(async || ask_for_stream(&served).await.1 == OPENED).await;
    }
}
