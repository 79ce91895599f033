use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
};

use dht_api::{
    ApiServer, BindError, Client, Limits, Metrics, MetricsServer, Parts, types::ErrorCode,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::served::{Served, node, within};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_owner_can_connect() {
    let served = Served::start().await;
    assert_eq!(mode(&served.socket()), 0o600);

    let made = served.folder.path().join("made/api.sock");
    let server = ApiServer::bind_unix(&made, served.parts.clone(), Limits::default()).await;
    server.unwrap().shutdown().await;
    assert_eq!(mode(made.parent().unwrap()), 0o700);
    assert!(!made.exists(), "removed by an orderly end");
}

#[tokio::test]
async fn a_dead_socket_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let parts = Parts::new(node().await);
    let _server = ApiServer::bind_unix(&path, parts.clone(), Limits::default())
        .await
        .unwrap();
    Client::unix(&path).status().await.unwrap();

    let second = ApiServer::bind_unix(&path, parts, Limits::default()).await;
    let error = second.unwrap_err();
    assert!(matches!(error, BindError::InUse(_)));
    assert!(error.to_string().contains("api.sock"), "{error}");
    Client::unix(&path).status().await.unwrap();
}

#[tokio::test]
async fn files_and_shared_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let parts = Parts::new(node().await);
    fs::write(&path, "precious").unwrap();
    let bound = ApiServer::bind_unix(&path, parts.clone(), Limits::default()).await;
    assert!(matches!(bound.unwrap_err(), BindError::NotASocket(_)));
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().join("other.sock");
    let bound = ApiServer::bind_unix(&path, parts, Limits::default()).await;
    assert!(matches!(bound.unwrap_err(), BindError::SharedFolder(_)));
}

#[tokio::test]
async fn tcp_asks_for_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("api.token");
    let parts = Parts::new(node().await);
    let bind = |address: &str| {
        let (parts, file) = (parts.clone(), file.clone());
        let address = address.parse().unwrap();
        async move { ApiServer::bind_tcp(address, &file, parts, Limits::default()).await }
    };
    let everywhere = bind("0.0.0.0:0").await;
    assert!(matches!(everywhere.unwrap_err(), BindError::NotLoopback(_)));
    assert!(!file.exists());

    let server = bind("127.0.0.1:0").await.unwrap();
    let address = server.local_address().unwrap();
    assert_eq!(mode(&file), 0o600);
    let token = fs::read_to_string(&file).unwrap();
    assert_eq!(token.len(), 64);
    Client::tcp(address, &token)
        .unwrap()
        .status()
        .await
        .unwrap();
    for wrong in ["", "x", &token[1..], &token.to_uppercase()] {
        let answer = Client::tcp(address, wrong).unwrap().status().await;
        assert_eq!(answer.unwrap_err().code(), Some(ErrorCode::Unauthorized));
    }
    server.shutdown().await;

    // The same token the next time.
    let server = bind("127.0.0.1:0").await.unwrap();
    let address = server.local_address().unwrap();
    Client::tcp(address, &token)
        .unwrap()
        .status()
        .await
        .unwrap();

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        bind("127.0.0.1:0").await.unwrap_err(),
        BindError::SharedToken(_)
    ));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "").unwrap();
    assert!(matches!(
        bind("127.0.0.1:0").await.unwrap_err(),
        BindError::BadToken(_)
    ));

    // Nobody writes to the pipe: who opens it waits for ever.
    fs::remove_file(&file).unwrap();
    let mut mkfifo = tokio::process::Command::new("mkfifo");
    mkfifo.args(["-m", "600"]).arg(&file);
    assert!(mkfifo.status().await.unwrap().success());
    assert!(matches!(
        bind("127.0.0.1:0").await.unwrap_err(),
        BindError::Io { .. }
    ));
}

/// Limits of a server on which only the number of connections ends one that is silent.
fn patient(connections: usize) -> Limits {
    Limits {
        connections,
        first_request_seconds: 60 * 60,
        head_seconds: 60 * 60,
        ..Limits::default()
    }
}

async fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connecting = (0..count).map(|_| TcpStream::connect(address));
    futures::future::try_join_all(connecting).await.unwrap()
}

/// Those who show no token keep nobody out, whether they are silent or not.
#[tokio::test]
async fn strangers_hold_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("api.token");
    let (address, parts) = ("127.0.0.1:0".parse().unwrap(), Parts::new(node().await));
    let bound = ApiServer::bind_tcp(address, &file, parts, patient(2)).await;
    let server = bound.unwrap();
    let address = server.local_address().unwrap();
    let token = fs::read_to_string(&file).unwrap();
    let silent = silent(address, 5).await;
    let client = Client::tcp(address, &token).unwrap();
    within(client.status()).await.unwrap();
    for mut stranger in silent {
        let request = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n";
        // Closed already, or refused.
        let _ = stranger.write_all(request).await;
        let mut answer = Vec::new();
        let _ = within(stranger.read_to_end(&mut answer)).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 401 "));
    }
    within(client.status()).await.unwrap();
}

/// The first node of a network is ready; that it has no peers is said nevertheless.
#[tokio::test]
async fn first_node_waits_for_others() {
    let served = Served::start().await;
    let status = served.client.status().await.unwrap();
    assert!(status.ready);
    assert_eq!(status.problems.len(), 1);
    assert_eq!(status.problems[0].code, "nobody_connected");
    let served = Served::with_peer(Limits::default()).await;
    let status = served.client.status().await.unwrap();
    assert!(!status.ready);
    assert_eq!(status.problems[0].code, "nobody_connected");
}

/// Every scraped family has its help text.
fn assert_described(metrics: &str) {
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    for family in types.filter_map(|line| line.split(' ').next()) {
        let help = format!("# HELP {family} ");
        assert!(metrics.contains(&help), "{family}");
    }
}

#[tokio::test]
async fn metrics_and_health_are_served() {
    // Before the node, which counts from its start.
    let metrics = Metrics::install().unwrap();
    let served = Served::with_peer(Limits::default()).await;
    let address = "127.0.0.1:0".parse().unwrap();
    let server = MetricsServer::bind(address, metrics, served.parts.clone(), patient(2))
        .await
        .unwrap();
    let _silent = silent(server.local_address(), 3).await;
    let get = async |path: &str| {
        let mut socket = TcpStream::connect(server.local_address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    served.receive([b"x".to_vec()]).await;
    let metrics = get("/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 "));
    assert!(metrics.contains("\n# TYPE dht_spool_"), "{metrics}");
    assert_described(&metrics);
    assert!(get("/healthy").await.contains(r#""ok":true"#));
    let ready = get("/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(ready.contains(r#""code":"nobody_connected""#), "{ready}");
    let other = node().await;
    let address = other.peer_address().to_string();
    served.client.ping(address).await.unwrap();
    let metrics = get("/metrics").await;
    assert!(metrics.contains("\n# TYPE dht_transport_"), "{metrics}");
    assert_described(&metrics);
    // The API itself is not there.
    assert!(get("/v1/status").await.starts_with("HTTP/1.1 404 "));
}

/// Longer than the system takes as the path of a socket.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn long_paths_are_served() {
    let served = Served::start().await;
    let mut folder = served.folder.path().to_owned();
    for _ in 0..4 {
        folder.push("a".repeat(60));
    }
    let (socket, parts) = (folder.join("api.sock"), served.parts.clone());
    for _ in 0..2 {
        let server = ApiServer::bind_unix(&socket, parts.clone(), Limits::default())
            .await
            .unwrap();
        Client::unix(&socket).status().await.unwrap();
        let second = ApiServer::bind_unix(&socket, parts.clone(), Limits::default()).await;
        assert!(matches!(second, Err(BindError::InUse(_))), "{second:?}");
        server.shutdown().await;
    }
}
