//! A server of a few methods, and a remote side that speaks in bytes.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use dht_proto::{
    decode,
    dht_rpc::{GetPeersRequest, GetPeersResponse, PeerInfo},
    encode,
    rpc::{RpcRequest, RpcResponse},
};
use dht_rpc::{Caller, Client, ClientConfig, Router, Server, ServerConfig, Status, StatusCode};
use futures::{Stream, StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Answers with the number it was sent.
pub(crate) const ECHO: u32 = 1;
/// Answers after as many seconds as it was sent.
pub(crate) const SLOW: u32 = 2;
/// Streams as many items as it was sent.
pub(crate) const COUNT: u32 = 3;
/// Streams one item a second without end.
pub(crate) const TICK: u32 = 4;
/// Streams without end as fast as it can.
pub(crate) const FLOOD: u32 = 5;
/// Answers with more bytes than a frame may have.
pub(crate) const HUGE: u32 = 6;
/// Streams one item and then a failure.
pub(crate) const FAIL: u32 = 7;
/// Streams one item and then nothing.
pub(crate) const STALL: u32 = 8;

pub(crate) fn number(n: u32) -> GetPeersRequest {
    GetPeersRequest {
        n,
        ..GetPeersRequest::default()
    }
}

pub(crate) fn item(n: u32) -> GetPeersResponse {
    GetPeersResponse {
        peer: Some(PeerInfo {
            public_key: n.to_be_bytes().to_vec().into(),
            claims: Vec::new(),
        }),
    }
}

fn ticks(every: Duration) -> impl Stream<Item = Result<GetPeersResponse, Status>> {
    stream::unfold(0, move |n| async move {
        sleep(every).await;
        Some((Ok(item(n)), n + 1))
    })
}

fn router() -> Router<Caller<u8, u8>> {
    type Request = GetPeersRequest;
    Router::new()
        .unary(ECHO, |_, request: Request| async move { Ok(request) })
        .unary(SLOW, |_, request: Request| async move {
            sleep(Duration::from_secs(request.n.into())).await;
            Ok(request)
        })
        .streaming(COUNT, |_, request: Request| async move {
            Ok(stream::iter((0..request.n).map(|n| Ok(item(n)))))
        })
        .streaming(TICK, |_, _: Request| async move {
            Ok(ticks(Duration::from_secs(1)))
        })
        .streaming(FLOOD, |_, _: Request| async move {
            Ok(stream::iter((0..).map(|n| Ok(item(n)))))
        })
        .unary(HUGE, |_, _: Request| async move {
            let peer = PeerInfo {
                public_key: vec![0; dht_rpc::MAX_PAYLOAD_BYTES].into(),
                claims: Vec::new(),
            };
            Ok(GetPeersResponse { peer: Some(peer) })
        })
        .streaming(FAIL, |_, _: Request| async move {
            let failure = Status::new(StatusCode::NotFound, "no more");
            Ok(stream::iter([Ok(item(0)), Err(failure)]))
        })
        .streaming(STALL, |_, _: Request| async move {
            Ok(stream::iter([Ok(item(0))]).chain(stream::pending()))
        })
}

/// A running server to which streams are handed.
pub(crate) struct Running {
    streams: mpsc::Sender<(Caller<u8, u8>, DuplexStream)>,
    _serving: JoinHandle<()>,
}

impl Running {
    pub(crate) fn new(config: ServerConfig) -> Self {
        let (streams, mut handed) = mpsc::channel(64);
        let handed = stream::poll_fn(move |cx| handed.poll_recv(cx));
        let _serving = tokio::spawn(Server::new(router(), config).serve(handed));
        Self { streams, _serving }
    }

    /// A stream to the server whose buffers hold so many bytes each way.
    pub(crate) async fn stream(&self, peer: u8, source: u8, bytes: usize) -> DuplexStream {
        let (near, far) = tokio::io::duplex(bytes);
        let caller = Caller { peer, source };
        self.streams.send((caller, far)).await.unwrap();
        near
    }

    /// A session that speaks in bytes.
    pub(crate) async fn raw(&self) -> Raw {
        let mut raw = Raw(self.stream(1, 1, 64 * 1024).await);
        raw.send(&[0x0a, 1, 0]).await;
        assert_eq!(raw.receive().await.unwrap(), [8, 0].as_slice());
        raw
    }

    pub(crate) async fn client(&self, peer: u8, source: u8) -> Client<DuplexStream> {
        let stream = self.stream(peer, source, 64 * 1024).await;
        Client::connect(stream, ClientConfig::default())
            .await
            .unwrap()
    }
}

/// One side of a session, in frames of bytes.
pub(crate) struct Raw(pub(crate) DuplexStream);

impl Raw {
    pub(crate) async fn send(&mut self, frame: &[u8]) {
        let header = u32::try_from(frame.len()).unwrap();
        self.0.write_u32(header).await.unwrap();
        self.0.write_all(frame).await.unwrap();
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        let length = self.0.read_u32().await.ok()?;
        let mut frame = vec![0; length.try_into().unwrap()];
        self.0.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    pub(crate) async fn request(&mut self, request: RpcRequest) {
        self.send(&encode(&request)).await;
    }

    pub(crate) async fn respond(&mut self, response: RpcResponse) {
        self.send(&encode(&response)).await;
    }

    pub(crate) async fn response(&mut self) -> RpcResponse {
        decode(self.receive().await.unwrap()).unwrap()
    }

    pub(crate) async fn requested(&mut self) -> RpcRequest {
        decode(self.receive().await.unwrap()).unwrap()
    }

    /// Whether the other side ends the stream within `wait` on the paused clock, whatever it sends before.
    pub(crate) async fn ends_within(&mut self, wait: Duration) -> bool {
        let mut end = pin!(async { while self.receive().await.is_some() {} });
        timeout(wait, &mut end).await.is_ok()
    }
}

pub(crate) fn call(id: u32, method: u32, n: u32) -> RpcRequest {
    RpcRequest {
        request_id: id,
        method,
        flags: 0,
        deadline: 10,
        payload: encode(&number(n)),
    }
}

/// The cancellation of this call.
pub(crate) fn cancel(call: &RpcRequest) -> RpcRequest {
    RpcRequest {
        flags: 1,
        payload: Bytes::new(),
        ..call.clone()
    }
}
