//! Commands talk to the node of a home over its API: the one that runs, or a short-lived one of their own.

use std::{path::Path, time::Duration};

use dht_api::{Client, ClientError, types::ErrorCode};
use dht_core::{PeerAddress, SecretKey, error_chain};
use dht_node::Config;
use futures::future::select_ok;
use tokio::time::{Instant, sleep};

use crate::{
    exit::Failure,
    home::Home,
    lock::{Held, Lock},
    log,
    progress::shown,
    service::Service,
    signals,
};

/// Longest time that a command waits for a node that starts, or for another command to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a node waits for a command to end.
const NODE_PATIENCE: Duration = Duration::from_secs(60);
/// Time for a node to appear that was started together with a command, and for one that listens to serve its API.
const APPEARANCE: Duration = Duration::from_secs(2);
/// Step of a command that has not reached a node yet.
pub(crate) const WAITING: &str = "waiting for the node of this home";
/// Interval between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// How a command gets to the node of a home.
enum Door {
    /// A node runs.
    Running(Client),
    /// No node runs, and none starts while the lock is held.
    Free(Lock),
}

/// A connection to the node of a home, for one command.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// The node of this process, if no other runs on the home.
    pub(crate) own: Option<Service>,
}

impl Session {
    /// Does `work` with the running node of a home, or else with a short-lived one that has the key of `secret`.
    pub(crate) async fn with<T>(
        home: &Home,
        command: &str,
        secret: fn(&Home) -> Result<SecretKey, Failure>,
        work: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let opening = async {
            if !home.exists() {
                secret(home)?;
            }
            match Door::find(home, command).await? {
                Door::Running(client) => Ok(Self { client, own: None }),
                Door::Free(lock) => {
                    let settings = home.settings()?;
                    log::set(settings.log.as_ref());
                    let service =
                        Service::start_brief(home, lock, secret(home)?, &settings).await?;
                    let client = service.client().clone();
                    let own = Some(service);
                    Ok(Self { client, own })
                }
            }
        };
        let opening = shown(WAITING, opening);
        let session = signals::or_interrupted(opening).await?;
        let outcome = signals::or_interrupted(work(&session)).await;
        if let Some(service) = session.own {
            service.shutdown().await;
        }
        outcome
    }
}

impl Session {
    /// Connects to the `named` peers, and a short-lived node to the peers of its settings as well; if there are none, or none is
    /// reached, to the first of its seeds that answers.
    pub(crate) async fn reach_configured(
        &self,
        config: &Config,
        named: &[PeerAddress],
    ) -> Result<(), Failure> {
        // The node of another process connects to its own.
        let (peers, seeds) = match self.own {
            Some(_) => (&*config.peers, &*config.seeds),
            None => (&[][..], &[][..]),
        };
        let reached = self.reach(peers.iter().chain(named)).await;
        let is_alone = reached.is_err() || (peers.is_empty() && named.is_empty());
        if seeds.is_empty() || !is_alone {
            return reached;
        }
        let dials = seeds.iter().map(|seed| {
            let dial = self.client.ping(seed.to_string());
            Box::pin(async move { dial.await.map_err(|error| refused(&error)) })
        });
        select_ok(dials).await.map(|_reached| ())
    }

    /// Connects to peers; the failure of the last one if none is reached.
    pub(crate) async fn reach(
        &self,
        peers: impl Iterator<Item = &PeerAddress>,
    ) -> Result<(), Failure> {
        let (mut reached, mut last) = (false, None);
        for peer in peers {
            match self.client.ping(peer.to_string()).await {
                Ok(_) => reached = true,
                Err(error) => {
                    if let Some(before) = last.replace(refused(&error)) {
                        warn(&before);
                    }
                }
            }
        }
        match last {
            Some(failure) if !reached => Err(failure),
            Some(failure) => {
                warn(&failure);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Door {
    async fn find(home: &Home, command: &str) -> Result<Self, Failure> {
        let start = Instant::now();
        loop {
            if let Some(client) = answering(home).await? {
                check_flags(home, &client).await?;
                return Ok(Self::Running(client));
            }
            match home.try_lock(command)? {
                Ok(lock) => return Ok(Self::Free(lock)),
                Err(held) if held.is_for_long() && home.is_listening() => {
                    if start.elapsed() > APPEARANCE {
                        return Err(held.unheard(&home.socket()));
                    }
                    sleep(PAUSE).await;
                }
                Err(held) if start.elapsed() > PATIENCE => return Err(held.into()),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// A client of the node that runs on a home; the lock of the home if none does.
pub(crate) async fn running_or_lock(
    home: &Home,
    command: &str,
) -> Result<Result<Client, Lock>, Failure> {
    Ok(match Door::find(home, command).await? {
        Door::Running(client) => Ok(client),
        Door::Free(lock) => Err(lock),
    })
}

/// Waits a moment for a node that starts on a home: for a command that has little chance without one.
pub(crate) async fn appearance(home: &Home) -> Result<(), Failure> {
    let start = Instant::now();
    while home.path().exists() && start.elapsed() < APPEARANCE && answering(home).await?.is_none() {
        sleep(PAUSE).await;
    }
    Ok(())
}

/// A client of the node that must run on a home.
pub(crate) async fn running(home: &Home) -> Result<Client, Failure> {
    if !home.exists() {
        home.key()?;
    }
    match shown(WAITING, Door::find(home, "client")).await? {
        Door::Running(client) => Ok(client),
        Door::Free(_) => {
            let (path, flag) = (home.path().display(), home.flag());
            Err(Failure::other(format!(
                "no node runs on {path}; start one with: dht-node run {flag}"
            )))
        }
    }
}

/// Takes the lock of a home for a node that goes on running; waits while a command has it.
pub(crate) async fn lock(home: &Home, command: &str) -> Result<Lock, Failure> {
    let start = Instant::now();
    loop {
        match home.try_lock(command)? {
            Ok(lock) => return Ok(lock),
            Err(held) if held.is_for_long() || start.elapsed() > NODE_PATIENCE => {
                return Err(held.into());
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Logs that a peer is not reached, which others make up for.
pub(crate) fn warn(failure: &Failure) {
    tracing::warn!(%failure, "a peer is not reached");
}

/// Refuses flags that say something else than the settings of the running node, which would not follow them.
async fn check_flags(home: &Home, client: &Client) -> Result<(), Failure> {
    if home.flags().is_empty() {
        return Ok(());
    }
    let settings = client.config().await.map_err(|error| refused(&error))?;
    for (key, value) in home.flags() {
        // A flag is a text or a list of texts, which JSON holds as well.
        let value = serde_json::to_value(value).unwrap_or_default();
        if settings.config.get(key) != Some(&value) {
            return Err(Failure::usage(format!(
                "the node that runs on {} has another value for {key}; leave --{} out, or stop the node",
                home.path().display(),
                // A flag that is given for each item has no plural.
                key.strip_suffix('s').unwrap_or(key)
            )));
        }
    }
    Ok(())
}

/// A client of the node that serves at the socket of a home; `None` if none does.
async fn answering(home: &Home) -> Result<Option<Client>, Failure> {
    let path = home.socket();
    if !path.exists() {
        return Ok(None);
    }
    let client = Client::unix(path);
    match client.status().await {
        Ok(_) => Ok(Some(client)),
        // A socket that a killed node has left, or one that stops.
        Err(ClientError::Connect { .. } | ClientError::Connection(_)) => Ok(None),
        Err(error) => Err(refused(&error)),
    }
}

/// The failure of a request, with what the node says can be done about it.
pub(crate) fn refused(error: &ClientError) -> Failure {
    let text = error_chain(error);
    let hint = error.hint().map(|hint| match error.code() {
        // In the words of the command line.
        _ if !hint.contains(" /v1/") => hint,
        Some(ErrorCode::NobodyConnected) => "connect to a node with: dht-node ping KEY::ADDR",
        Some(ErrorCode::NotFound) => "see: dht-node inbox consumers --help",
        _ => "see --help",
    });
    let text = match hint {
        Some(hint) => format!("{text}; {hint}"),
        None => text,
    };
    match error.code() {
        Some(ErrorCode::UnknownPeer | ErrorCode::PeerFailed | ErrorCode::NobodyConnected) => {
            Failure::unreachable(text)
        }
        // The arguments of a command become parts of the request.
        Some(ErrorCode::BadRequest) => Failure::usage(text),
        Some(ErrorCode::Disabled) => Failure::config(text),
        _ => Failure::other(text),
    }
}

impl Held {
    /// The failure of a command that does not reach the node which holds the home.
    fn unheard(&self, socket: &Path) -> Failure {
        let (holder, at) = (self.holder(), socket.display());
        Failure::other(if socket.exists() {
            format!("{holder} does not answer at {at}; see its log")
        } else {
            format!(
                "{holder} runs, but its socket {at} is missing; it is made again within 5 s, or the log of the node says why not"
            )
        })
    }
}

impl From<Held> for Failure {
    fn from(held: Held) -> Self {
        Self::other(held.to_string())
    }
}
