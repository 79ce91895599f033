//! A home: its key, its files, and the one process that has it.

use dht_core::{PeerAddress, SecretKey};
use tempfile::TempDir;

use super::{command, listen, run_to, runs, secret, stop, within};

#[tokio::test]
async fn init_keeps_a_private_key() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("new");
    let (first, _) = run_to(0, &home, &["init"]).await;
    assert!(first.starts_with("made "), "{first}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(home.join("secret_key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    }
    assert!(home.join("config.toml").exists());
    let (second, _) = run_to(0, &home, &["init"]).await;
    assert!(second.starts_with("kept "), "{second}");
    assert_eq!(first.lines().last(), second.lines().last());
}

#[tokio::test]
async fn id_formats_agree() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let (json, _) = run_to(0, home, &["id", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (address, _) = run_to(0, home, &["id", "--address"]).await;
    assert_eq!(json["version"], 1);
    assert_eq!(json["peer_address"], address.as_str());
    let peer: PeerAddress = address.parse().unwrap();
    assert_eq!(json["public_key"], peer.public_key.to_string());
    assert_eq!(json["node_id"], peer.public_key.node_id().to_string());
    let (text, _) = run_to(0, home, &["id"]).await;
    assert!(text.contains(&address), "{text}");
    // The key in the file is the one that is named.
    let key = std::fs::read_to_string(home.join("secret_key")).unwrap();
    let key: SecretKey = key.parse().unwrap();
    assert_eq!(key.public_key(), peer.public_key);
}

#[cfg(unix)]
#[tokio::test]
async fn readable_keys_are_refused() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let dir = TempDir::new().unwrap();
    let key = dir.path().join("secret_key");
    run_to(0, dir.path(), &["init"]).await;
    for mode in [0o640, 0o604, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        for args in [&["id"][..], &["init"], &["listen"]] {
            let (_, error) = run_to(4, dir.path(), args).await;
            assert!(error.contains("chmod 600"), "{error}");
        }
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    run_to(0, dir.path(), &["id"]).await;
    fs::write(&key, "no key").unwrap();
    let (_, error) = run_to(4, dir.path(), &["id"]).await;
    assert!(error.contains("secret_key"), "{error}");
}

/// A flag of `init` counts, or is refused: never taken and forgotten.
#[tokio::test]
async fn init_refuses_other_settings() {
    let dir = TempDir::new().unwrap();
    let init = ["init", "--listen", "/ip4/127.0.0.1/tcp/1"];
    for _ in 0..2 {
        run_to(0, dir.path(), &init).await;
    }
    let (_, error) = run_to(2, dir.path(), &[&init[..], &["--network", "igor"]].concat()).await;
    assert!(
        error.contains("config.toml") && error.contains("network"),
        "{error}"
    );
    let other = ["init", "--listen", "/ip4/127.0.0.1/tcp/2"];
    let (_, error) = run_to(2, dir.path(), &other).await;
    assert!(error.contains("value for listen; edit it"), "{error}");
    let (config, _) = run_to(0, dir.path(), &["config"]).await;
    assert!(config.contains("/ip4/127.0.0.1/tcp/1\""), "{config}");
}

#[tokio::test]
async fn unusable_listen_addresses_are_refused() {
    let dir = TempDir::new().unwrap();
    let (home, address) = (dir.path().join("new"), "/ip4/127.0.0.1/udp/1");
    let (_, error) = run_to(2, &home, &["init", "--listen", address]).await;
    assert!(error.contains("/ip4/0.0.0.0/tcp/18189"), "{error}");
    assert!(!home.exists());
    let config = format!("listen = ['{address}']");
    std::fs::write(dir.path().join("config.toml"), config).unwrap();
    let (_, error) = run_to(3, dir.path(), &["init"]).await;
    assert!(error.contains("/ip4/0.0.0.0/tcp/18189"), "{error}");
}

#[tokio::test]
async fn port_zero_is_no_address() {
    let dir = TempDir::new().unwrap();
    run_to(0, dir.path(), &["init", "--listen", "/ip4/127.0.0.1/tcp/0"]).await;
    let (out, error) = run_to(3, dir.path(), &["id", "--address"]).await;
    assert_eq!(out, "");
    let start = format!(
        "start it with: dht-node run --home {}",
        dir.path().display()
    );
    assert!(error.contains(&start), "{error}");
    let (out, _) = run_to(0, dir.path(), &["id"]).await;
    assert!(out.contains(&start), "{out}");
}

/// `id`, `status` and the node itself name the same address, which can be dialled.
#[tokio::test]
async fn unspecified_addresses_are_not_shown() {
    let dir = TempDir::new().unwrap();
    let open = "/ip4/0.0.0.0/tcp/0";
    run_to(0, dir.path(), &["init", "--listen", open]).await;
    let mut child = command(dir.path(), &["run"]).spawn().unwrap();
    let said = runs(&mut child).await;
    assert!(said.contains("set public_addresses"), "{said}");
    let (id, _) = run_to(0, dir.path(), &["id", "--address"]).await;
    assert!(id.contains("::/ip4/127.0.0.1/tcp/"), "{id}");
    assert!(said.contains(&id), "{said}");
    let (status, _) = run_to(0, dir.path(), &["status"]).await;
    assert!(status.contains(&id), "{status}");
    stop(child).await;
}

/// Something else lies where a file of the node belongs.
#[tokio::test]
async fn misplaced_files_are_named() {
    for (name, is_folder) in [("inbox.redb", true), ("outbox.redb", true), ("saf", false)] {
        let dir = TempDir::new().unwrap();
        run_to(0, dir.path(), &["init", "--listen", "/ip4/127.0.0.1/tcp/0"]).await;
        let path = dir.path().join(name);
        if is_folder {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, "").unwrap();
        }
        let (_, error) = run_to(1, dir.path(), &["run"]).await;
        assert!(error.contains("move it away"), "{name}: {error}");
        assert!(!error.contains("stop the node"), "{name}: {error}");
    }
}

#[tokio::test]
async fn other_encodings_are_refused() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), b"network = '\xff'").unwrap();
    for args in [&["config"][..], &["id"]] {
        let (_, error) = run_to(3, dir.path(), args).await;
        assert!(error.contains("not valid UTF-8"), "{error}");
    }
    std::fs::remove_file(dir.path().join("config.toml")).unwrap();
    run_to(0, dir.path(), &["init"]).await;
    std::fs::write(dir.path().join("secret_key"), b"\xff").unwrap();
    let (_, error) = run_to(4, dir.path(), &["inbox"]).await;
    assert!(error.contains("not valid UTF-8"), "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        let mut command = command(dir.path(), &["send", "--to"]);
        command.arg(std::ffi::OsStr::from_bytes(b"\xff"));
        let output = within(command.output()).await.unwrap();
        assert_eq!(output.status.code(), Some(2));
    }
}

#[tokio::test]
async fn one_home_has_one_process() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.toml"), "[saf]\nenabled = false").unwrap();
    let mut child = listen(dir.path(), &[]).await;
    let id = child.id().unwrap().to_string();
    let to = format!("{}::/ip4/127.0.0.1/tcp/9", secret(9).public_key());
    let (_, error) = run_to(1, dir.path(), &["run"]).await;
    assert!(
        error.contains(&format!("process {id} (dht-node listen)")),
        "{error}"
    );
    assert!(error.contains("stop it"), "{error}");
    // Commands talk to the process that has the home.
    let send = [
        "send",
        "--to",
        &to,
        "--text",
        "hi",
        "--wait",
        "received",
        "--timeout",
        "1",
    ];
    let (_, error) = run_to(6, dir.path(), &send).await;
    assert!(error.contains("stays in the outbox"), "{error}");
    let (status, _) = run_to(0, dir.path(), &["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["pid"].to_string(), id);
    assert_eq!(status["outbox"]["messages"], 1);
    child.kill().await.unwrap();
    // The lock of a killed process is free.
    let mut child = listen(dir.path(), &[]).await;
    child.kill().await.unwrap();
}

/// A public key: the base point of the curve.
const KEY: &str = "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76";

#[tokio::test]
async fn run_needs_a_home() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("new");
    let (_, error) = run_to(4, &home, &["run"]).await;
    assert!(error.contains("dht-node init --home"), "{error}");
    let others = [
        &["inbox"][..],
        &["inbox", "fetch"],
        &["saf", "fetch"],
        &["saf", "list"],
        &["saf", "purge", "--all"],
        &["status"],
        &["peers", "list"],
        &["peers", "show", KEY],
        &["bans", "list"],
        &["bans", "lift", KEY],
        &["discover", KEY],
        &["ping", KEY],
    ];
    for args in others {
        let (_, error) = run_to(4, &home, args).await;
        assert!(error.contains("dht-node init --home"), "{args:?} {error}");
        assert!(!home.exists(), "a mistyped home is not made: {args:?}");
    }
    let idle = dir.path().join("idle");
    run_to(0, &idle, &["init"]).await;
    let (_, error) = run_to(1, &idle, &["status"]).await;
    assert!(error.contains("dht-node run --home"), "{error}");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("inbox.redb"), "of another key").unwrap();
    for args in [&["listen"][..], &["init"], &["id"]] {
        let (_, error) = run_to(4, &home, args).await;
        assert!(error.contains("inbox.redb"), "{error}");
        assert!(!home.join("secret_key").exists());
        assert!(!home.join("config.toml").exists());
    }
}

/// A mistyped home, such as a folder of all users, is not closed to them.
#[cfg(unix)]
#[tokio::test]
async fn foreign_folders_stay_unchanged() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let dir = TempDir::new().unwrap();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("letter.txt"), "of somebody").unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    for (code, args) in [
        (4, &["status"][..]),
        (4, &["run"]),
        (4, &["listen"]),
        (4, &["init"]),
    ] {
        let (_, error) = run_to(code, &shared, args).await;
        assert!(error.contains("shared"), "{error}");
        let mode = fs::metadata(&shared).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{args:?}");
        assert_eq!(fs::read_dir(&shared).unwrap().count(), 1, "{args:?}");
    }
}

/// Also a home that a node has run in, whose files can be opened. Another user runs it, as root may write anywhere.
#[cfg(unix)]
#[tokio::test]
async fn unwritable_homes_say_so() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    stop(listen(&home, &[]).await).await;
    let mut entries = vec![home.clone(), dir.path().to_owned()];
    entries.extend(fs::read_dir(&home).unwrap().map(|it| it.unwrap().path()));
    fs::set_permissions(&home, fs::Permissions::from_mode(0o500)).unwrap();
    let is_root = fs::write(home.join("probe"), "").is_ok();
    for args in [&["run"][..], &["listen"], &["inbox"]] {
        let mut command = command(&home, args);
        if is_root {
            for path in &entries {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = within(command.output()).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?} {error}");
        let said = error.contains("cannot write to") && error.contains("read and write it");
        assert!(said, "{error}");
    }
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
}

/// User without rights.
#[cfg(unix)]
const NOBODY: u32 = 65_534;

/// A pipe has no end until somebody writes to it.
#[cfg(unix)]
#[tokio::test]
async fn pipes_are_not_read() {
    for (name, code) in [("config.toml", 3), ("secret_key", 4)] {
        let dir = TempDir::new().unwrap();
        run_to(0, dir.path(), &["init"]).await;
        let path = dir.path().join(name);
        std::fs::remove_file(&path).unwrap();
        let mut mkfifo = tokio::process::Command::new("mkfifo");
        assert!(mkfifo.arg(&path).status().await.unwrap().success());
        for _ in 0..2 {
            for args in [&["id"][..], &["run"]] {
                let (_, error) = run_to(code, dir.path(), args).await;
                let said = error.contains(name) && error.contains("no regular file; move it away");
                assert!(said, "{error}");
            }
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::create_dir(&path);
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn homes_are_for_their_owner() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("open");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = listen(&home, &[]).await;
    let mut folders = vec![home];
    while let Some(folder) = folders.pop() {
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o} {}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o} {}", path.display());
            folders.extend(path.is_dir().then_some(path));
        }
    }
    child.kill().await.unwrap();
}
