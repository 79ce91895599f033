//! A node of this process, and the API over which commands talk to it.

use std::{collections::BTreeMap, io, net::SocketAddr, path::Path, sync::Arc};

use dht_api::{ApiServer, BindError, Client, Metrics, MetricsServer, Parts};
use dht_core::{Features, SecretKey, error_chain, is_disk_full};
use dht_node::{Builder, Event, Node, StartError, interface_addresses};
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

use crate::{
    descriptors,
    exit::Failure,
    home::Home,
    lock::Lock,
    output::say,
    settings::{ApiSettings, Settings},
    signals,
};

/// A node that runs on a home, with its API.
#[derive(Debug)]
pub(crate) struct Service {
    node: Arc<Node>,
    apis: Vec<ApiServer>,
    metrics: Option<MetricsServer>,
    client: Client,
    _lock: Lock,
}

impl Service {
    /// The node that a home is for: listens, stores messages for others, and serves its API to other processes.
    pub(crate) async fn start(
        home: &Home,
        lock: Lock,
        secret: SecretKey,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        // Before the node, which counts from its start.
        let metrics = match settings.api.metrics {
            Some(address) => {
                let metrics =
                    Metrics::install().map_err(|error| Failure::other(error_chain(&error)))?;
                Some((address, metrics))
            }
            None => None,
        };
        let mut config = settings.node.clone();
        descriptors::fit(&mut config, settings.api.limits.connections);
        let builder = Node::builder(secret).config(config);
        let node = start(builder.interfaces(interface_addresses), home).await?;
        if settings.node.hides_addresses() {
            tracing::warn!(
                "nodes on other machines learn no address of this one, which listens on all; set public_addresses"
            );
        }
        if settings.node.tor.control.is_some() && settings.node.transport.proxy.is_none() {
            tracing::warn!(
                "this node has an onion address and dials none: set transport.proxy, as to 127.0.0.1:9050"
            );
        }
        let parts = Parts::new(Arc::clone(&node));
        let mut service = Self {
            client: Client::unix(home.socket()),
            node,
            apis: Vec::new(),
            metrics: None,
            _lock: lock,
        };
        service.write_addresses(home, settings);
        if let Err(failure) = service.serve(home, &settings.api, metrics, parts).await {
            service.shutdown().await;
            return Err(failure);
        }
        Ok(service)
    }

    /// Writes where others reach this node, for `id`, and its claim, for commands after it.
    pub(crate) fn write_addresses(&self, home: &Home, settings: &Settings) {
        let node = &self.node;
        // A home on a full disk still runs; `id` then prints the configured addresses, and `send` presents an old claim.
        let addresses = match settings.node.claimed_addresses(&node.listen_addresses()) {
            // The claim has an address that leads nowhere.
            none if none.is_empty() => none,
            _ => node.claim().addresses.clone(),
        };
        let written = home
            .write_addresses(&addresses)
            .and_then(|()| home.write_claim(&node.claim()));
        if let Err(failure) = written {
            tracing::warn!(%failure, "the addresses of this node are not written");
        }
    }

    /// A node for one command while no other runs on the home: it presents the last claim of the home, so that peers
    /// go on to reach the addresses in it, listens nowhere, and stores and forwards nothing for others. Before a node
    /// ran on the home, it is a client. Its API is for this process.
    pub(crate) async fn start_brief(
        home: &Home,
        lock: Lock,
        secret: SecretKey,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let mut config = settings.node.clone();
        config.listen.clear();
        config.tor.control = None;
        // They are dialled by the command, which learns why one is not reached.
        config.peers.clear();
        config.forward = false;
        config.overlay.enabled = false;
        // Commands fetch when they want to.
        config.saf.auto_request = false;
        let claim = home.claim(&secret.public_key());
        let builder = Node::builder(secret).config(config);
        let builder = match claim {
            Some(claim) => builder.claim(claim),
            None => builder.features(Features::CLIENT),
        };
        let node = start(builder, home).await?;
        let parts = Parts::new(Arc::clone(&node));
        let socket = home.own_socket();
        let api = ApiServer::bind_unix(&socket, parts, settings.api.limits.clone()).await;
        let api = api.map_err(|error| not_served(&error, None))?;
        Ok(Self {
            node,
            apis: vec![api],
            metrics: None,
            client: Client::unix(socket),
            _lock: lock,
        })
    }

    /// Serves the API of the home and the metrics.
    async fn serve(
        &mut self,
        home: &Home,
        settings: &ApiSettings,
        metrics: Option<(SocketAddr, Metrics)>,
        parts: Parts,
    ) -> Result<(), Failure> {
        let told = |text: String| say(&text, signals::STOP_LIMIT);
        let socket = home.socket();
        let bound = ApiServer::bind_unix(&socket, parts.clone(), settings.limits.clone()).await;
        match bound {
            Ok(api) => self.apis.push(api),
            // The node does its work on a full disk, without commands beside it.
            Err(ref error @ BindError::Io { ref source, .. }) if is_disk_full(source) => {
                tracing::error!(error = error_chain(error), "the API is not served");
            }
            Err(error) => return Err(not_served(&error, None)),
        }
        if let Some(address) = settings.listen {
            let token = home.path().join(&settings.token_file);
            let bound = bind_tcp(address, &token, &parts, settings).await?;
            if let Some(address) = bound.local_address() {
                told(format!(
                    "API at http://{address}, token in {}",
                    token.display()
                ));
            }
            self.apis.push(bound);
        }
        if let Some((address, metrics)) = metrics {
            let limits = settings.limits.clone();
            let bound = MetricsServer::bind(address, metrics, parts, limits).await;
            let bound = bound.map_err(|error| not_served(&error, Some("api.metrics")))?;
            let address = bound.local_address();
            told(format!("metrics at http://{address}/metrics"));
            if !address.ip().is_loopback() {
                tracing::warn!(
                    "metrics and health at {address} are open to the network, without a token; set api.metrics to an address as 127.0.0.1:{}, or let a firewall close the port",
                    address.port()
                );
            }
            self.metrics = Some(bound);
        }
        Ok(())
    }

    /// The running node.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// A client of this node.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Ends with the failure of a part of the node, or of a server.
    pub(crate) async fn failed(&self) -> Failure {
        let mut events = self.node.events();
        let servers = self.apis.iter().map(|api| api.ended().boxed());
        let metrics = self.metrics.iter().map(|server| server.ended().boxed());
        let mut servers: FuturesUnordered<_> = servers.chain(metrics).collect();
        tokio::select! {
            failure = first_failure(|| self.node.failures(), async || events.recv().await) => failure,
            Some(()) = servers.next() => {
                Failure::other("a server of the API or metrics has stopped: its task panicked".to_owned())
            }
        }
    }

    /// Stops in order: requests under way are answered while the node stops.
    pub(crate) async fn shutdown(self) {
        let apis = futures::future::join_all(self.apis.into_iter().map(ApiServer::shutdown));
        let metrics = async {
            if let Some(metrics) = self.metrics {
                metrics.shutdown().await;
            }
        };
        tokio::join!(apis, metrics, self.node.shutdown());
    }
}

/// Looks for a failure at first, and whenever an event may tell of one: lost events may, too.
async fn first_failure(
    failures: impl Fn() -> BTreeMap<&'static str, String>,
    mut next: impl AsyncFnMut() -> Option<Event>,
) -> Failure {
    loop {
        if let Some((part, reason)) = failures().first_key_value() {
            return Failure::other(format!(
                "{part} has stopped: {reason}; remove the cause, and start the node again"
            ));
        }
        loop {
            match next().await {
                Some(Event::Failed { .. } | Event::Missed { .. }) => break,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn start(builder: Builder, home: &Home) -> Result<Arc<Node>, Failure> {
    let started = builder.home(home.path()).start().await;
    started.map(Arc::new).map_err(|error| not_started(&error))
}

async fn bind_tcp(
    address: SocketAddr,
    token: &Path,
    parts: &Parts,
    settings: &ApiSettings,
) -> Result<ApiServer, Failure> {
    let (parts, limits) = (parts.clone(), settings.limits.clone());
    let bound = ApiServer::bind_tcp(address, token, parts, limits).await;
    bound.map_err(|error| not_served(&error, Some("api.listen")))
}

/// The failure of a node that did not start, with its exit code.
fn not_started(error: &StartError) -> Failure {
    let text = with_hint(error_chain(error), error.hint());
    match error {
        StartError::Listen { .. } => Failure::listen(text),
        StartError::Config(_) | StartError::Identity(_) => Failure::config(text),
        _ => Failure::other(text),
    }
}

/// The failure of a server that does not start. `setting` has its address.
fn not_served(error: &BindError, setting: Option<&str>) -> Failure {
    let text = error_chain(error);
    let hint = match (error, setting) {
        (BindError::Io { .. }, Some(setting)) => Some(format!("set {setting} to another address")),
        (BindError::Io { source, .. }, None)
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Some("run as the owner of the home".to_owned())
        }
        _ => None,
    };
    let text = with_hint(text, hint.as_deref());
    match error {
        BindError::NotLoopback(_) => Failure::config(format!("api.listen: {text}")),
        _ => Failure::listen(text),
    }
}

fn with_hint(text: String, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{text}; {hint}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// More events than the queue holds push out the one that tells of the failure.
    #[tokio::test]
    async fn missed_events_hide_no_failure() {
        let is_lost = Cell::new(false);
        let failures = || {
            let failed = is_lost.get().then(|| ("store", "disk".to_owned()));
            failed.into_iter().collect()
        };
        let next = async || {
            if is_lost.replace(true) {
                return std::future::pending().await;
            }
            Some(Event::Missed { events: 9 })
        };
        let failure = first_failure(failures, next).await;
        let text = failure.to_string();
        assert!(text.starts_with("store has stopped: disk"), "{text}");
    }
}
