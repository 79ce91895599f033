//! A node, its server and what tests do to it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dht_api::{ApiServer, Client, Limits, Parts};
use dht_core::{
    Clock as _, DedupHash, Deliverer, Entropy as _, NodeId, OsEntropy, PublicKey, SecretKey,
    SystemClock, UnixSeconds,
};
use dht_node::{Builder, Config, Node};
use dht_spool::{Arrival, Inbox, InboxConfig, NewRow, Outbox, OutboxConfig};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{sleep, timeout},
};

/// Longer than any step takes on a slow machine: only a deadlock reaches it.
const LIMIT: Duration = Duration::from_secs(60);
/// Interval between two looks at a condition.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The result of a future that must not hang.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap()
}

/// Looks at a condition until it holds.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let holding = async {
        while !holds().await {
            sleep(LOOK_AGAIN).await;
        }
    };
    within(holding).await;
}

pub(crate) struct Served {
    pub(crate) folder: TempDir,
    pub(crate) parts: Parts,
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::new(home_node(&folder.path().join("home")).await);
        Self::serve(folder, parts, limits).await
    }

    /// A node that was told of a peer which cannot be reached.
    pub(crate) async fn with_peer(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config();
        config.peers = vec![format!("{}::/ip4/127.0.0.1/tcp/1", key()).parse().unwrap()];
        let home = folder.path().join("home");
        let node = builder().config(config).home(&home).start().await.unwrap();
        Self::serve(folder, Parts::new(Arc::new(node)), limits).await
    }

    pub(crate) async fn over(parts: Parts, limits: Limits) -> Self {
        Self::serve(tempfile::tempdir().unwrap(), parts, limits).await
    }

    async fn serve(folder: TempDir, parts: Parts, limits: Limits) -> Self {
        let socket = folder.path().join("api.sock");
        let server = ApiServer::bind_unix(&socket, parts.clone(), limits)
            .await
            .unwrap();
        Self {
            client: Client::unix(socket),
            folder,
            parts,
            server,
        }
    }

    /// Ends the server in order and starts another one at the same place.
    pub(crate) async fn restart(self) -> Self {
        self.server.shutdown().await;
        let socket = self.folder.path().join("api.sock");
        let server = ApiServer::bind_unix(&socket, self.parts.clone(), Limits::default())
            .await
            .unwrap();
        Self { server, ..self }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        self.parts.inbox.as_ref().unwrap()
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        self.parts.node.outbox().unwrap()
    }

    /// Puts messages into the inbox.
    pub(crate) async fn receive(&self, payloads: impl IntoIterator<Item = Vec<u8>>) {
        for payload in payloads {
            let next = self.inbox().stats().newest + 1;
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&next.to_le_bytes());
            let row = NewRow {
                received_at: SystemClock.now(),
                origin: Some(key()),
                origin_is_proven: true,
                message_type: 7,
                payload: payload.into(),
                via: NodeId::default(),
                deliverer: Deliverer::from_bytes([1; 32]),
                arrival: Arrival::Stored,
                hash: DedupHash(hash),
            };
            self.inbox().insert(row).await.unwrap();
        }
    }

    /// Sends bytes over a connection of their own and reads until the server closes it.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut socket = UnixStream::connect(self.socket()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }
}

pub(crate) async fn node() -> Arc<Node> {
    Arc::new(builder().start().await.unwrap())
}

/// A node in this home. The ids of its messages begin with 1, as in files begun in the first second of the clock.
pub(crate) async fn home_node(home: &Path) -> Arc<Node> {
    begin_files(home);
    Arc::new(builder().home(home).start().await.unwrap())
}

fn begin_files(home: &Path) {
    std::fs::create_dir_all(home).unwrap();
    let begun = UnixSeconds(0);
    Inbox::open(home.join("inbox.redb"), InboxConfig::default(), begun).unwrap();
    Outbox::open(home.join("outbox.redb"), OutboxConfig::default(), begun).unwrap();
}

fn builder() -> Builder {
    Node::builder(SecretKey::random(&mut OsEntropy.rng())).config(config())
}

fn config() -> Config {
    Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        ..Config::default()
    }
}

pub(crate) fn key() -> PublicKey {
    SecretKey::random(&mut OsEntropy.rng()).public_key()
}
