//! The calling side against a server that speaks in bytes.

use std::time::Duration;

use bytes::Bytes;
use dht_proto::{
    dht_rpc::{GetCloserPeersRequest, GetPeersRequest, GetPeersResponse},
    encode,
    rpc::RpcResponse,
};
use dht_rpc::{
    CallError, Client, ClientConfig, HandshakeError, MAX_LATE_BYTES, ProtocolError, RejectReason,
    ServerConfig, Status, StatusCode,
};
use tokio::{
    io::DuplexStream,
    time::{Instant, sleep, timeout},
};

use crate::support::{COUNT, ECHO, FAIL, FLOOD, Raw, Running, SLOW, TICK, item, number};

async fn connected() -> (Client<DuplexStream>, Raw) {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let mut far = Raw(far);
    let serving = async {
        assert_eq!(far.receive().await.unwrap(), [0x0a, 1, 0].as_slice());
        far.send(&[8, 0]).await;
    };
    let (client, ()) = tokio::join!(Client::connect(near, ClientConfig::default()), serving);
    (client.unwrap(), far)
}

fn answer(id: u32, n: u32) -> RpcResponse {
    RpcResponse {
        request_id: id,
        status: 0,
        flags: 1,
        payload: encode(&number(n)),
    }
}

fn stream_item(id: u32, n: u32) -> RpcResponse {
    RpcResponse {
        flags: 0,
        payload: encode(&item(n)),
        ..answer(id, n)
    }
}

async fn echo(client: &mut Client<DuplexStream>, n: u32) -> Result<GetPeersRequest, CallError> {
    client.unary(ECHO, &number(n)).await
}

#[tokio::test(start_paused = true)]
async fn calls_and_pings_are_answered() {
    let server = Running::new(ServerConfig::default());
    let mut client = server.client(1, 1).await;
    assert_eq!(echo(&mut client, 7).await.unwrap(), number(7));
    client.ping().await.unwrap();
    let mut items = client.stream(COUNT, &number(2)).await.unwrap();
    assert_eq!(items.next().await.unwrap(), Some(item(0)));
    assert_eq!(items.next().await.unwrap(), Some(item(1)));
    assert_eq!(items.next().await.unwrap(), None);
    assert_eq!(items.next().await.unwrap(), None);
    let mut failing = client
        .stream::<_, GetPeersResponse>(FAIL, &number(0))
        .await
        .unwrap();
    failing.next().await.unwrap();
    let failure = failing.next().await.unwrap_err();
    let expected = Status::new(StatusCode::NotFound, "no more");
    assert!(matches!(failure, CallError::Status(status) if status == expected));
    assert_eq!(failing.next().await.unwrap(), None);
    assert!(!client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn rejections_name_their_reason() {
    let reasons = [
        (0, RejectReason::Unknown),
        (1, RejectReason::UnsupportedVersion),
        (2, RejectReason::NoServerSessions),
        (3, RejectReason::NoClientSessions),
        (4, RejectReason::ProtocolNotSupported),
        (99, RejectReason::Unknown),
    ];
    for (number, expected) in reasons {
        let (near, far) = tokio::io::duplex(64);
        let mut far = Raw(far);
        far.send(&[0x10, 1, 0x18, number]).await;
        drop(far);
        let rejected = Client::connect(near, ClientConfig::default()).await;
        assert!(matches!(rejected, Err(HandshakeError::Rejected(reason)) if reason == expected));
    }
}

#[tokio::test(start_paused = true)]
async fn silent_servers_are_given_up() {
    let (near, _far) = tokio::io::duplex(64);
    let start = Instant::now();
    let silent = Client::connect(near, ClientConfig::default()).await;
    assert!(matches!(silent, Err(HandshakeError::TimedOut)));
    assert_eq!(start.elapsed(), dht_rpc::DEFAULT_HANDSHAKE_WAIT);

    let (mut client, _far) = connected().await;
    let start = Instant::now();
    assert!(matches!(
        echo(&mut client, 1).await,
        Err(CallError::TimedOut)
    ));
    let waited = dht_rpc::DEFAULT_DEADLINE + dht_rpc::DEFAULT_GRACE;
    assert_eq!(start.elapsed(), waited);
    assert!(client.is_closed());
    assert!(matches!(echo(&mut client, 1).await, Err(CallError::Closed)));
}

/// A server that streams without end holds the caller only for the limit of the stream.
#[tokio::test(start_paused = true)]
async fn endless_streams_are_given_up() {
    let server = Running::new(ServerConfig::default());
    let config = ClientConfig {
        stream_limit: Duration::from_millis(5_500),
        ..ClientConfig::default()
    };
    let stream = server.stream(1, 1, 1024).await;
    let mut client = Client::connect(stream, config).await.unwrap();
    let mut ticks = client
        .stream::<_, GetPeersResponse>(TICK, &number(0))
        .await
        .unwrap();
    for _ in 0..5 {
        ticks.next().await.unwrap();
    }
    assert!(matches!(ticks.next().await, Err(CallError::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn breaches_of_servers_are_named() {
    let wrong = ProtocolError::WrongResponse {
        expected: 1,
        received: 7,
    };
    let flags = |flags| RpcResponse {
        flags,
        ..answer(1, 0)
    };
    let breaches = [
        (answer(7, 0), wrong),
        (flags(2), ProtocolError::UnexpectedAck),
        (flags(8), ProtocolError::UnknownFlags(8)),
    ];
    for (response, expected) in breaches {
        let (mut client, mut far) = connected().await;
        far.respond(response).await;
        let error = echo(&mut client, 1).await.unwrap_err();
        assert!(error.is_server_fault() && error.ends_session());
        assert!(matches!(error, CallError::Protocol(found) if found == expected));
    }
}

#[tokio::test(start_paused = true)]
async fn undecodable_answers_keep_the_session() {
    let (mut client, mut far) = connected().await;
    let garbage = RpcResponse {
        payload: Bytes::from_static(&[0xff; 9]),
        ..answer(1, 0)
    };
    far.respond(garbage).await;
    let error = echo(&mut client, 1).await.unwrap_err();
    assert!(matches!(error, CallError::Undecodable(_)) && error.is_server_fault());
    far.respond(answer(2, 5)).await;
    assert_eq!(echo(&mut client, 1).await.unwrap(), number(5));
}

#[tokio::test(start_paused = true)]
async fn long_requests_are_not_sent() {
    let (mut client, mut far) = connected().await;
    let request = GetCloserPeersRequest {
        closer_to: vec![0; 4 * 1024 * 1024].into(),
        ..GetCloserPeersRequest::default()
    };
    let refused = client.unary::<_, GetPeersRequest>(ECHO, &request).await;
    assert!(matches!(refused, Err(CallError::RequestTooLong { .. })));
    far.respond(answer(1, 0)).await;
    echo(&mut client, 1).await.unwrap();
    assert_eq!(far.requested().await.request_id, 1);
}

#[tokio::test(start_paused = true)]
async fn ids_wrap_and_skip_zero() {
    let (mut client, mut far) = connected().await;
    for id in (1..=65_535).chain(1..=2) {
        let (answered, ()) = tokio::join!(echo(&mut client, id), async {
            let request = far.requested().await;
            assert_eq!(request.request_id, id);
            // Late answers to the call before are skipped, also across the wrap.
            let before = if id == 1 { 65_535 } else { id - 1 };
            far.respond(answer(before, 0)).await;
            far.respond(answer(id, id)).await;
        });
        assert_eq!(answered.unwrap().n, id);
    }
}

#[tokio::test(start_paused = true)]
async fn late_answers_are_bounded() {
    const BYTES: usize = 1024 * 1024;
    let (mut client, mut far) = connected().await;
    far.respond(answer(1, 0)).await;
    echo(&mut client, 0).await.unwrap();
    let late = RpcResponse {
        payload: vec![0; BYTES].into(),
        ..stream_item(1, 0)
    };
    let sending = async {
        for _ in 0..MAX_LATE_BYTES / BYTES {
            far.respond(late.clone()).await;
        }
    };
    let (called, ()) = tokio::join!(echo(&mut client, 0), sending);
    let error = called.unwrap_err();
    assert!(matches!(
        error,
        CallError::Protocol(ProtocolError::TooMuchLate)
    ));
}

/// Responses of a cancelled stream that are under way are skipped by the next call.
#[tokio::test(start_paused = true)]
async fn cancelled_streams_leave_a_session() {
    let server = Running::new(ServerConfig::default());
    for is_dropped in [false, true] {
        let mut client = server.client(1, 1).await;
        let mut flood = client
            .stream::<_, GetPeersResponse>(FLOOD, &number(0))
            .await
            .unwrap();
        flood.next().await.unwrap();
        if !is_dropped {
            flood.cancel().await.unwrap();
            client.ping().await.unwrap();
        }
        assert_eq!(echo(&mut client, 3).await.unwrap().n, 3);
    }
}

/// A request while a unary call is answered would end the session.
#[tokio::test(start_paused = true)]
async fn dropped_calls_are_waited_for() {
    let server = Running::new(ServerConfig::default());
    let mut client = server.client(1, 1).await;
    let start = Instant::now();
    let twenty = number(20);
    let slow = client.unary::<_, GetPeersRequest>(SLOW, &twenty);
    assert!(timeout(Duration::from_secs(5), slow).await.is_err());
    assert_eq!(echo(&mut client, 3).await.unwrap().n, 3);
    assert_eq!(start.elapsed().as_secs(), 20);
}

/// The deadline bounds each gap, and a slow caller loses nothing.
#[tokio::test(start_paused = true)]
async fn dropped_waits_lose_no_item() {
    let (mut client, mut far) = connected().await;
    let mut items = client
        .stream::<_, GetPeersResponse>(COUNT, &number(2))
        .await
        .unwrap();
    assert!(timeout(Duration::from_secs(1), items.next()).await.is_err());
    for n in 0..2 {
        far.respond(stream_item(1, n)).await;
    }
    sleep(Duration::from_secs(200)).await;
    assert_eq!(items.next().await.unwrap(), Some(item(0)));
    assert_eq!(items.next().await.unwrap(), Some(item(1)));
    drop(far);
    assert!(matches!(items.next().await, Err(CallError::Closed)));
}
