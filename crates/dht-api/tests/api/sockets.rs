use std::{fs, os::unix::fs::PermissionsExt as _, os::unix::net::UnixListener, path::Path};

use dht_api::{
    ApiServer, BindError, Client, Limits, Metrics, MetricsServer, Parts, types::ErrorCode,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::served::{Served, node};

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
    let mut served = Served::start().await;
    served.parts.config.peers = vec![
        "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919::/ip4/1.2.3.4/tcp/1"
            .parse()
            .unwrap(),
    ];
    let address = "127.0.0.1:0".parse().unwrap();
    let (parts, limits) = (served.parts.clone(), Limits::default());
    let server = MetricsServer::bind(address, metrics, parts, limits)
        .await
        .unwrap();
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
