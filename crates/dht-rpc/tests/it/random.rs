//! Bytes that no implementation would send.

use std::time::Duration;

use dht_proto::{
    dht_rpc::GetPeersResponse,
    encode,
    rpc::{RpcRequest, RpcResponse},
};
use dht_rpc::{Client, ClientConfig, ServerConfig};
use proptest::prelude::*;
use tokio::{io::AsyncWriteExt as _, runtime::Builder, time::timeout};

use crate::support::{COUNT, ECHO, Raw, Running, number};

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

fn frames(bytes: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Vec::new();
    for frame in bytes {
        all.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        all.extend(frame);
    }
    all
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let fields = (
        0_u32..4,
        0_u32..12,
        0_u32..5,
        prop::collection::vec(any::<u8>(), 0..9),
    );
    fields.prop_map(|(request_id, status, flags, payload)| {
        let payload = payload.into();
        encode(&RpcResponse {
            request_id,
            status,
            flags,
            payload,
        })
        .to_vec()
    })
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let fields = (
        0_u32..4,
        0_u32..10,
        0_u32..5,
        0_u64..3,
        prop::collection::vec(any::<u8>(), 0..9),
    );
    fields.prop_map(|(request_id, method, flags, deadline, payload)| {
        let payload = payload.into();
        encode(&RpcRequest {
            request_id,
            method,
            flags,
            deadline,
            payload,
        })
        .to_vec()
    })
}

proptest! {
    /// Every session ends, or goes on; nothing panics, and the server serves the next one.
    #[test]
    fn servers_survive_any_client(
        session in prop_oneof![Just(vec![0x0a, 1, 0]), prop::collection::vec(any::<u8>(), 0..9)],
        requests in prop::collection::vec(request(), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        run(async {
            let server = Running::new(ServerConfig::default());
            let mut raw = Raw(server.stream(1, 1, 1024 * 1024).await);
            let bytes = [frames(&[session]), frames(&requests), tail].concat();
            raw.0.write_all(&bytes).await.unwrap();
            let _ = raw.ends_within(Duration::from_secs(3)).await;
            let mut client = server.client(2, 2).await;
            let answer: dht_proto::dht_rpc::GetPeersRequest =
                client.unary(ECHO, &number(1)).await.unwrap();
            assert_eq!(answer, number(1));
        });
    }

    /// Every call ends in time, whatever the server sends.
    #[test]
    fn clients_survive_any_server(
        reply in prop_oneof![Just(vec![8, 0]), prop::collection::vec(any::<u8>(), 0..9)],
        responses in prop::collection::vec(response(), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        run(async {
            let (near, mut far) = tokio::io::duplex(1024 * 1024);
            let bytes = [frames(&[reply]), frames(&responses), tail].concat();
            far.write_all(&bytes).await.unwrap();
            let calls = async {
                let Ok(mut client) = Client::connect(near, ClientConfig::default()).await else {
                    return;
                };
                let _ = client.unary::<_, GetPeersResponse>(ECHO, &number(0)).await;
                if let Ok(mut items) = client.stream::<_, GetPeersResponse>(COUNT, &number(0)).await {
                    while let Ok(Some(_)) = items.next().await {}
                }
                let _ = client.ping().await;
            };
            assert!(timeout(Duration::from_secs(1_000), calls).await.is_ok());
        });
    }
}
