//! The onion service against a real Tor that stays offline. Without `tor` on this machine the test says so and ends; with
//! `DHT_TOR_REQUIRED=1`, as in CI, that is a failure.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use dht_core::SeededEntropy;
use dht_tor::{Authentication, OnionConfig, OnionKey, OnionService, OnionState};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// A Tor with its files in `dir`; `None` if this machine has none.
fn start(dir: &Path, options: &[&str]) -> Option<Child> {
    let (port_file, empty) = (dir.join("port"), dir.join("torrc"));
    std::fs::write(&empty, "").unwrap();
    let mut command = Command::new("tor");
    command
        .args([
            "--DisableNetwork",
            "1",
            "--SocksPort",
            "0",
            "--ControlPort",
            "auto",
        ])
        .arg("--quiet")
        .arg("-f")
        .arg(&empty)
        .arg("--defaults-torrc")
        .arg(&empty)
        .arg("--ControlPortWriteToFile")
        .arg(&port_file)
        .arg("--DataDirectory")
        .arg(dir.join("data"))
        .args(options)
        .stdout(Stdio::null())
        .kill_on_drop(true);
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let is_required = std::env::var_os("DHT_TOR_REQUIRED").is_some();
            assert!(!is_required, "tor is not installed");
            eprintln!("NOT RUN: tor is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The control port that Tor has written to a file.
async fn control_port(dir: &Path) -> SocketAddr {
    let path = dir.join("port");
    let start = Instant::now();
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(address) = text.trim().strip_prefix("PORT=") {
            return address.parse().unwrap();
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "tor does not start"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

async fn added(control: SocketAddr, authentication: Authentication) {
    let entropy = SeededEntropy::new(3);
    let config = OnionConfig {
        authentication,
        port: 18_141,
        target: ([127, 0, 0, 1], 5).into(),
    };
    let key = OnionKey::random(&entropy);
    let service = OnionService::new(control, config, key, Arc::new(entropy));
    let mut state = service.state();
    let task = tokio::spawn(service.run());
    let is_added = |state: &OnionState| matches!(state, OnionState::Added { .. });
    let added = timeout(Duration::from_secs(60), state.wait_for(is_added)).await;
    let is_added = added.is_ok();
    drop(added);
    assert!(is_added, "{:?}", *state.borrow());
    task.abort();
}

/// Tor derives the same address from the key as this crate does, and takes the proof of each way of authentication.
#[tokio::test]
async fn real_tor_serves_the_onion() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_tor) = start(dir.path(), &["--CookieAuthentication", "1"]) else {
        return;
    };
    let control = control_port(dir.path()).await;
    added(control, Authentication::Auto).await;
    let cookie = dir.path().join("data").join("control_auth_cookie");
    added(control, Authentication::Cookie(cookie)).await;
}

#[tokio::test]
async fn real_tor_takes_the_password() {
    let dir = tempfile::tempdir().unwrap();
    // `tor --hash-password 'a "b\c'`
    let hashed = Command::new("tor")
        .args(["--quiet", "--hash-password", r#"a "b\c"#])
        .output()
        .await;
    let hashed = hashed.map(|output| String::from_utf8(output.stdout).unwrap());
    let hashed = hashed.unwrap_or_default();
    let Some(_tor) = start(dir.path(), &["--HashedControlPassword", hashed.trim()]) else {
        return;
    };
    let password = dir.path().join("password");
    std::fs::write(&password, "a \"b\\c\n").unwrap();
    let control = control_port(dir.path()).await;
    added(control, Authentication::Password(password)).await;
}
