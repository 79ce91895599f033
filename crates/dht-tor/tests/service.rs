//! The onion service against a scripted control port.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use data_encoding::{HEXLOWER, HEXUPPER};
use dht_core::SeededEntropy;
use dht_tor::{
    Authentication, ControlError, ControlPort, OnionConfig, OnionKey, OnionService, OnionState,
};
use parking_lot::Mutex;
use ring::hmac;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

const COOKIE: [u8; 32] = [9; 32];
const NONCE: [u8; 32] = [7; 32];

/// Behaviour of the control port on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Serves until it is told to end.
    None,
    /// Refuses the connection.
    Refuses,
    /// Takes the connection and says nothing.
    Silent,
    /// Names a cookie that it does not know.
    Impostor,
    /// Asks for no authentication.
    Open,
    /// Asks for the cookie as it is.
    PlainCookie,
    /// Does not know the service any more after a while.
    Forgets,
    /// Reaches no directory of the network.
    Unpublished,
    /// Adds another service.
    WrongId,
    /// The service of an earlier connection is still there.
    Collides,
    /// Says more than a line may have.
    Endless,
    /// Ends in the middle of a reply.
    Cut,
}

/// A Tor whose control port has a fault for each connection, and none after those.
struct Tor {
    faults: Mutex<VecDeque<Fault>>,
    cookie: PathBuf,
    id: String,
    end: Arc<watch::Sender<usize>>,
    added: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
}

impl ControlPort for Tor {
    type Stream = DuplexStream;

    async fn connect(&self) -> io::Result<DuplexStream> {
        let fault = self.faults.lock().pop_front();
        let fault = fault.unwrap_or(Fault::None);
        if fault == Fault::Refuses || self.is_down.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (client, server) = duplex(8192);
        let end = self.end.subscribe();
        let served = serve(
            server,
            fault,
            self.cookie.clone(),
            self.id.clone(),
            end,
            Arc::clone(&self.added),
        );
        tokio::spawn(served);
        Ok(client)
    }
}

async fn serve(
    stream: DuplexStream,
    fault: Fault,
    cookie: PathBuf,
    id: String,
    mut end: watch::Receiver<usize>,
    added: Arc<AtomicUsize>,
) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader).lines();
    let mut proof = String::new();
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            _ = end.changed() => return,
        };
        let Ok(Some(line)) = line else { return };
        let (command, arguments) = line.split_once(' ').unwrap_or((&line, ""));
        let reply = match (command, fault) {
            (_, Fault::Silent) => continue,
            (_, Fault::Endless) => "2".repeat(5000),
            (_, Fault::Cut) => {
                let _gone = writer.write_all(b"250-AUTH MET").await;
                return;
            }
            ("PROTOCOLINFO", Fault::Open) => {
                "250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250 OK\r\n".into()
            }
            ("PROTOCOLINFO", Fault::PlainCookie) => format!(
                "250-PROTOCOLINFO 1\r\n250-AUTH METHODS=COOKIE COOKIEFILE=\"{}\"\r\n250 OK\r\n",
                cookie.display()
            ),
            ("AUTHENTICATE", Fault::Open | Fault::PlainCookie) => "250 OK\r\n".into(),
            ("PROTOCOLINFO", _) => format!(
                "250-PROTOCOLINFO 1\r\n250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE=\"{}\"\r\n\
                 250-VERSION Tor=\"0.4.9.8\"\r\n250 OK\r\n",
                cookie.display()
            ),
            ("AUTHCHALLENGE", _) => {
                let nonce = arguments.strip_prefix("SAFECOOKIE ").unwrap();
                let nonce = HEXLOWER.decode(nonce.as_bytes()).unwrap();
                let known = if fault == Fault::Impostor {
                    [0; 32]
                } else {
                    COOKIE
                };
                let message = [&known[..], &nonce, &NONCE].concat();
                let sign = |key: &[u8]| {
                    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                    HEXUPPER.encode(hmac::sign(&key, &message).as_ref())
                };
                proof = sign(b"Tor safe cookie authentication controller-to-server hash");
                let own = sign(b"Tor safe cookie authentication server-to-controller hash");
                let nonce = HEXUPPER.encode(&NONCE);
                format!("250 AUTHCHALLENGE SERVERHASH={own} SERVERNONCE={nonce}\r\n")
            }
            ("AUTHENTICATE", _) if arguments.eq_ignore_ascii_case(&proof) => "250 OK\r\n".into(),
            ("AUTHENTICATE", _) => "515 Authentication failed\r\n".into(),
            ("ADD_ONION", Fault::Collides) => "550 Onion address collision\r\n".into(),
            ("ADD_ONION", Fault::WrongId) => "250-ServiceID=abc\r\n250 OK\r\n".into(),
            ("ADD_ONION", _) => {
                assert!(arguments.starts_with("ED25519-V3:"), "{arguments}");
                assert!(
                    arguments.ends_with(" Port=18141,127.0.0.1:5"),
                    "{arguments}"
                );
                added.fetch_add(1, Ordering::SeqCst);
                let published = match fault {
                    Fault::Unpublished => String::new(),
                    _ => format!("650 HS_DESC UPLOADED {id} UNKNOWN $A\r\n"),
                };
                format!(
                    "250-ServiceID={id}\r\n250 OK\r\n650 HS_DESC UPLOAD {id} UNKNOWN $A\r\n{published}"
                )
            }
            ("SETEVENTS", _) => "250 OK\r\n".into(),
            ("GETINFO", Fault::Forgets) => "250-onions/current=\r\n250 OK\r\n".into(),
            ("GETINFO", _) => format!("250+onions/current=\r\nother\r\n{id}\r\n.\r\n250 OK\r\n"),
            _ => "510 Unrecognized command\r\n".into(),
        };
        if writer.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Sets who may read and write a file.
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

struct Running {
    state: watch::Receiver<OnionState>,
    end: Arc<watch::Sender<usize>>,
    added: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
    dir: tempfile::TempDir,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn start(faults: &[Fault], authentication: Authentication) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cookie = dir.path().join("cookie");
        std::fs::write(&cookie, COOKIE).unwrap();
        set_mode(&cookie, 0o640);
        let entropy = SeededEntropy::new(1);
        let key = OnionKey::random(&entropy);
        let address = key.address(18_141).to_string();
        let id = address.strip_prefix("/onion3/").unwrap();
        let id = id.split_once(':').unwrap().0.to_owned();
        let (end, added) = (Arc::new(watch::Sender::new(0)), Arc::default());
        let is_down = Arc::<AtomicBool>::default();
        let tor = Tor {
            faults: VecDeque::from(faults.to_vec()).into(),
            cookie,
            id,
            end: Arc::clone(&end),
            added: Arc::clone(&added),
            is_down: Arc::clone(&is_down),
        };
        let config = OnionConfig {
            authentication,
            port: 18_141,
            target: ([127, 0, 0, 1], 5).into(),
        };
        let service = OnionService::new(tor, config, key, Arc::new(entropy));
        let state = service.state();
        let task = tokio::spawn(async move {
            service.run().await;
        });
        Self {
            state,
            end,
            added,
            is_down,
            dir,
            task,
        }
    }

    async fn until(&mut self, wanted: impl Fn(&OnionState) -> bool) -> OnionState {
        let limit = Duration::from_secs(600);
        let state = timeout(limit, self.state.wait_for(|state| wanted(state))).await;
        state.expect("in time").unwrap().clone()
    }

    async fn published(&mut self) {
        let is_published = true;
        self.until(|state| *state == OnionState::Added { is_published })
            .await;
    }

    /// Why it is down, as the first attempt found out.
    async fn cause(&mut self) -> ControlError {
        let down = |state: &OnionState| matches!(state, OnionState::Down(Some(_)));
        match self.until(down).await {
            OnionState::Down(Some(error)) => error,
            state => panic!("{state:?}"),
        }
    }
}

/// However the first connections fail, the service is there within 30 s of the first good one.
#[tokio::test(start_paused = true)]
async fn every_fault_is_survived() {
    use Fault::{Collides, Cut, Endless, Forgets, Impostor, Refuses, Silent, WrongId};
    for fault in [
        Refuses, Silent, Impostor, Forgets, WrongId, Collides, Endless, Cut,
    ] {
        let mut running = Running::start(&[fault], Authentication::Auto);
        let cause = running.cause().await;
        let start = Instant::now();
        running.published().await;
        assert!(start.elapsed() < Duration::from_secs(30), "{fault:?}");
        let told = cause.to_string();
        let expected = match fault {
            Refuses => "connection refused",
            Silent => "in time",
            Impostor => "does not know its own cookie",
            Forgets => "does not serve",
            WrongId => "another onion service",
            Collides => "550 Onion address collision",
            Endless => "too long",
            _ => "end of file",
        };
        assert!(told.contains(expected), "{fault:?}: {told}");
    }
}

/// Tor ends, stays away for an hour, and comes back.
#[tokio::test(start_paused = true)]
async fn service_returns_with_tor() {
    let mut running = Running::start(&[], Authentication::Auto);
    running.published().await;
    running.is_down.store(true, Ordering::SeqCst);
    running.end.send_modify(|ends| *ends += 1);
    running.cause().await;
    sleep(Duration::from_secs(3600)).await;
    running.is_down.store(false, Ordering::SeqCst);
    let back = Instant::now();
    running.published().await;
    assert!(
        back.elapsed() <= Duration::from_secs(10),
        "{:?}",
        back.elapsed()
    );
    assert_eq!(running.added.load(Ordering::SeqCst), 2);
}

/// The checks of a service that is there change nothing.
#[tokio::test(start_paused = true)]
async fn quiet_service_stays() {
    let mut running = Running::start(&[], Authentication::Auto);
    running.published().await;
    sleep(Duration::from_secs(3600)).await;
    running.published().await;
    assert_eq!(running.added.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn missing_secrets_are_named() {
    let nowhere = PathBuf::from("/nowhere/secret");
    for authentication in [
        Authentication::Cookie(nowhere.clone()),
        Authentication::Password(nowhere.clone()),
    ] {
        let mut running = Running::start(&[], authentication);
        let cause = running.cause().await;
        let (path, kind) = (nowhere.clone(), io::ErrorKind::NotFound);
        assert_eq!(cause, ControlError::Unreadable { path, kind });
    }
}

/// Another user that listens before Tor does gets no cookie, and no key.
#[tokio::test(start_paused = true)]
async fn unproven_tor_gets_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let cookie = dir.path().join("cookie");
    std::fs::write(&cookie, COOKIE).unwrap();
    for fault in [Fault::Open, Fault::PlainCookie] {
        for authentication in [Authentication::Auto, Authentication::Cookie(cookie.clone())] {
            let mut running = Running::start(&[fault; 8], authentication);
            assert_eq!(running.cause().await, ControlError::NoAuthentication);
            assert_eq!(running.added.load(Ordering::SeqCst), 0);
        }
    }
}

/// The impostor proves a cookie that it knows, of a file that it named.
#[tokio::test(start_paused = true)]
async fn cookies_of_others_are_refused() {
    for mode in [0o644, 0o660] {
        let mut running = Running::start(&[Fault::Refuses], Authentication::Auto);
        let cookie = running.dir.path().join("cookie");
        set_mode(&cookie, mode);
        running.cause().await;
        let refused = OnionState::Down(Some(ControlError::UntrustedCookie(cookie.clone())));
        running.until(|state| *state == refused).await;
        assert_eq!(running.added.load(Ordering::SeqCst), 0);
        // Named by the operator, it is taken.
        let mut running = Running::start(&[], Authentication::Cookie(cookie));
        running.published().await;
    }
}

#[tokio::test(start_paused = true)]
async fn unpublished_service_is_a_problem() {
    let mut running = Running::start(&[Fault::Unpublished], Authentication::Auto);
    let is_added = |state: &OnionState| matches!(state, OnionState::Added { .. });
    let state = running.until(is_added).await;
    let problem = state.problem().unwrap();
    assert!(problem.contains("not published yet"), "{problem}");
    running.end.send_modify(|ends| *ends += 1);
    running.published().await;
    assert_eq!(running.state.borrow().problem(), None);
}

#[test]
fn keys_have_their_own_addresses() {
    let address = |seed| OnionKey::random(&SeededEntropy::new(seed)).address(1);
    assert_ne!(address(1), address(2));
    let text = address(1).to_string();
    assert_eq!(text.parse(), Ok(address(1)));
}
