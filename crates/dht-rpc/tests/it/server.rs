//! The answering side against a client that speaks in bytes.

use std::time::Duration;

use dht_proto::{decode, dht_rpc::GetPeersResponse, encode, rpc::RpcRequest};
use dht_rpc::{ServerConfig, StatusCode};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, sleep},
};

use crate::support::{
    COUNT, ECHO, FAIL, FLOOD, HUGE, Raw, Running, SLOW, STALL, TICK, call, cancel, item, number,
};

const SOON: Duration = Duration::from_secs(1);

fn server() -> Running {
    Running::new(ServerConfig::default())
}

/// The exchanges of specification 02, section 18.
#[tokio::test(start_paused = true)]
async fn recorded_exchanges_match() {
    let server = server();
    let mut old = Raw(server.stream(1, 1, 1024).await);
    old.send(&[0x0a, 1, 9]).await;
    let rejected = old.receive().await.unwrap();
    assert_eq!(rejected, [0x10, 1, 0x18, 1].as_slice());
    assert!(old.ends_within(SOON).await);

    let mut raw = server.raw().await;
    raw.send(&[0x18, 2, 0x20, 0x78]).await;
    assert_eq!(raw.receive().await.unwrap(), [0x18, 2].as_slice());
    raw.request(call(1, COUNT, 0)).await;
    let empty = raw.receive().await.unwrap();
    assert_eq!(empty, [8, 1, 0x18, 1].as_slice());
    raw.request(call(2, 99, 0)).await;
    let unknown = raw.response().await;
    assert_eq!(
        (unknown.status, unknown.flags, unknown.request_id),
        (2, 1, 2)
    );
    assert!(!unknown.payload.is_empty());
    raw.0.shutdown().await.unwrap();
    assert!(raw.ends_within(SOON).await);
}

#[tokio::test(start_paused = true)]
async fn deadlines_come_before_flags() {
    let server = server();
    let mut raw = server.raw().await;
    for flags in [0, 1, 2, 64] {
        let request = RpcRequest {
            flags,
            deadline: 0,
            ..call(5, ECHO, 0)
        };
        raw.request(request).await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.flags), (1, 1), "flags {flags}");
    }
}

#[tokio::test(start_paused = true)]
async fn undecodable_requests_are_bad() {
    let server = server();
    let mut raw = server.raw().await;
    let request = RpcRequest {
        payload: vec![0xff; 9].into(),
        ..call(1, ECHO, 0)
    };
    raw.request(request).await;
    assert_eq!(raw.response().await.status, 1);
    raw.request(call(2, ECHO, 7)).await;
    assert_eq!(raw.response().await.payload, encode(&number(7)));
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_an_empty_fin() {
    let server = server();
    let mut raw = server.raw().await;
    raw.request(call(1, COUNT, 3)).await;
    for n in 0..3 {
        let response = raw.response().await;
        assert_eq!((response.flags, response.status), (0, 0));
        let peer: GetPeersResponse = decode(response.payload).unwrap();
        assert_eq!(peer, item(n));
    }
    let fin = raw.response().await;
    assert_eq!((fin.flags, fin.status, fin.payload.len()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn failures_end_a_stream() {
    let server = server();
    let mut raw = server.raw().await;
    raw.request(call(1, FAIL, 0)).await;
    assert_eq!(raw.response().await.flags, 0);
    let failure = raw.response().await;
    assert_eq!((failure.status, failure.flags), (7, 1));
    assert_eq!(failure.payload, "no more");
    raw.request(call(2, ECHO, 0)).await;
    assert_eq!(raw.response().await.status, 0);
}

/// Section 17, item 13: the reference says nothing, and its client waits for another minute.
#[tokio::test(start_paused = true)]
async fn passed_deadlines_are_answered() {
    let server = server();
    let mut raw = server.raw().await;
    let start = Instant::now();
    raw.request(call(1, SLOW, 60)).await;
    let answer = raw.response().await;
    assert_eq!((answer.status, answer.flags), (4, 1));
    assert_eq!(start.elapsed().as_secs(), 10);
    // The gap between two items has the same bound.
    raw.request(call(2, STALL, 0)).await;
    assert_eq!(raw.response().await.flags, 0);
    assert_eq!(raw.response().await.status, 4);
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn long_deadlines_are_shortened() {
    let server = server();
    let mut raw = server.raw().await;
    let start = Instant::now();
    let request = RpcRequest {
        deadline: u64::MAX,
        ..call(1, SLOW, u32::MAX)
    };
    raw.request(request).await;
    assert_eq!(raw.response().await.status, 4);
    assert_eq!(start.elapsed(), dht_rpc::DEFAULT_MAX_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn endless_streams_end() {
    let config = ServerConfig {
        reply_limit: Duration::from_millis(5_500),
        ..ServerConfig::default()
    };
    let server = Running::new(config);
    let mut raw = server.raw().await;
    raw.request(call(1, TICK, 0)).await;
    for _ in 0..5 {
        assert_eq!(raw.response().await.flags, 0);
    }
    let end = raw.response().await;
    assert_eq!((end.status, end.flags), (4, 1));
    raw.request(call(2, ECHO, 0)).await;
    assert_eq!(raw.response().await.request_id, 2);
}

#[tokio::test(start_paused = true)]
async fn cancelled_streams_stop() {
    let server = server();
    let mut raw = server.raw().await;
    let endless = call(1, TICK, 0);
    raw.request(endless.clone()).await;
    raw.response().await;
    raw.request(cancel(&endless)).await;
    // A late one finds nothing to cancel.
    raw.request(cancel(&endless)).await;
    raw.request(call(2, SLOW, 5)).await;
    assert_eq!(raw.response().await.request_id, 2);
}

/// The client does not read, so that the server is blocked in a write when the cancellation comes.
#[tokio::test(start_paused = true)]
async fn blocked_streams_can_be_cancelled() {
    let server = server();
    let mut raw = server.raw().await;
    let endless = call(1, FLOOD, 0);
    raw.request(endless.clone()).await;
    sleep(SOON).await;
    raw.request(cancel(&endless)).await;
    sleep(SOON).await;
    raw.request(call(2, ECHO, 0)).await;
    while raw.response().await.request_id == 1 {}
}

#[tokio::test(start_paused = true)]
async fn unary_calls_ignore_cancellation() {
    let server = server();
    let mut raw = server.raw().await;
    let slow = call(1, SLOW, 5);
    raw.request(slow.clone()).await;
    raw.request(cancel(&slow)).await;
    raw.request(call(2, ECHO, 0)).await;
    assert_eq!(raw.response().await.request_id, 1);
    assert_eq!(raw.response().await.request_id, 2);
}

#[tokio::test(start_paused = true)]
async fn breaches_end_the_session() {
    let pipelined = [call(1, TICK, 0), call(2, ECHO, 0)];
    let pinged = [
        call(1, SLOW, 9),
        RpcRequest {
            flags: 2,
            ..call(0, 0, 0)
        },
    ];
    let unknown_flags = [RpcRequest {
        flags: 4,
        ..call(1, ECHO, 0)
    }];
    let long_flags = [RpcRequest {
        flags: 256,
        ..call(1, ECHO, 0)
    }];
    let long_id = [call(65_536, ECHO, 0)];
    let breaches: [&[RpcRequest]; 5] = [&pipelined, &pinged, &unknown_flags, &long_flags, &long_id];
    for requests in breaches {
        let server = server();
        let mut raw = server.raw().await;
        for request in requests {
            raw.request(request.clone()).await;
        }
        assert!(raw.ends_within(SOON).await, "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn long_requests_are_not_read() {
    let config = ServerConfig {
        max_request_bytes: 1_000,
        ..ServerConfig::default()
    };
    let server = Running::new(config);
    let mut raw = server.raw().await;
    raw.0.write_u32(1_001).await.unwrap();
    assert!(raw.ends_within(SOON).await);
}

#[tokio::test(start_paused = true)]
async fn huge_responses_become_failures() {
    let server = server();
    let mut raw = server.raw().await;
    raw.request(call(1, HUGE, 0)).await;
    let answer = raw.response().await;
    let malformed = StatusCode::MalformedResponse.number();
    assert_eq!((answer.status, answer.flags), (malformed, 1));
}

#[tokio::test(start_paused = true)]
async fn silent_sessions_are_closed() {
    let server = server();
    let mut raw = server.raw().await;
    assert!(!raw.ends_within(dht_rpc::DEFAULT_IDLE_LIMIT - SOON).await);
    assert!(raw.ends_within(2 * SOON).await);
    let mut silent = Raw(server.stream(1, 1, 64).await);
    assert!(
        !silent
            .ends_within(dht_rpc::DEFAULT_HANDSHAKE_LIMIT - SOON)
            .await
    );
    assert!(silent.ends_within(2 * SOON).await);
}

/// A client that takes nothing holds a session only for a while.
#[tokio::test(start_paused = true)]
async fn slow_readers_are_cut_off() {
    let server = server();
    let mut raw = server.raw().await;
    raw.request(call(1, FLOOD, 0)).await;
    sleep(dht_rpc::DEFAULT_WRITE_LIMIT + SOON).await;
    assert!(raw.ends_within(SOON).await);
}

#[tokio::test(start_paused = true)]
async fn closed_clients_stop_the_call() {
    for method in [SLOW, TICK] {
        let server = server();
        let mut raw = server.raw().await;
        raw.request(call(1, method, 9)).await;
        sleep(SOON / 2).await;
        raw.0.shutdown().await.unwrap();
        assert!(raw.ends_within(SOON).await);
    }
}
