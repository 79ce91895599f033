//! `run` and `listen`: a node that runs until it is interrupted.

use clap::Args;
use dht_api::types::DEFAULT_CONSUMER;
use dht_node::{Event, EventStream, RELOADABLE};

use crate::{
    descriptors,
    exit::Failure,
    home::{Home, ListeningHome},
    inbox::{Print, follow},
    lock::Lock,
    log,
    output::say,
    service::Service,
    session,
    settings::Settings,
    signals,
};

/// `dht-node run`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node run --home a --listen /ip4/0.0.0.0/tcp/18189 --log info\n  \
    dht-node run --home a --seed KEY::ADDR     # joins the network of that node, and stays in it\n  \
    DHT_NODE_API_METRICS=127.0.0.1:9100 dht-node run --home a     # /metrics, /healthy, /ready\n  \
    curl --unix-socket a/api.sock http://localhost/v1/status      # the API: see docs/api.md\n  \
    kill -HUP PID     # reads config.toml again: takes the log filter, rates, limits of\n                      # connections, bans, public addresses; names what needs a restart\n\n\
    A home is made with `dht-node init`. Received messages wait in its inbox; `dht-node inbox` reads them. SIGINT and \
    SIGTERM stop the node within 5 seconds, the second at once."
)]
pub(crate) struct Run {
    #[command(flatten)]
    home: ListeningHome,
}

/// `dht-node listen`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node listen --home a\n  dht-node listen --home a --json --count 1\n\n\
    If a node runs on the home, its messages are printed. A message is acked once the reader of standard output \
    has read its line: other messages come again."
)]
pub(crate) struct Listen {
    #[command(flatten)]
    home: ListeningHome,
    #[command(flatten)]
    print: Print,
}

impl Run {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let home = self.home.home();
        // First: a mistyped home stays as it is.
        let secret = home.key()?;
        signals::serve_reloads();
        let lock = signals::or_interrupted(session::lock(&home, "run")).await?;
        let mut settings = started(&home)?;
        let service = Service::start(&home, lock, secret, &settings).await?;
        // Messages stay in the inbox until a client reads it.
        keep(&home, &mut settings, service, |_| std::future::pending()).await
    }
}

impl Listen {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let home = self.home.home();
        if !home.exists() {
            home.key_or_new()?;
        }
        let reads = async |client: &_| follow(client, DEFAULT_CONSUMER, true, &self.print).await;
        let entering = session::running_or_lock(&home, "listen");
        match signals::or_interrupted(entering).await? {
            Ok(client) => tokio::select! {
                outcome = reads(&client) => outcome,
                () = signals::stopped() => Ok(()),
            },
            Err(lock) => Self::start(&home, lock, reads).await,
        }
    }

    async fn start(
        home: &Home,
        lock: Lock,
        reads: impl AsyncFnOnce(&dht_api::Client) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        signals::serve_reloads();
        let secret = home.key_or_new()?;
        let mut settings = started(home)?;
        let service = Service::start(home, lock, secret, &settings).await?;
        let client = service.client().clone();
        keep(home, &mut settings, service, |_| reads(&client)).await
    }
}

/// The settings of a home, of which the log filter counts from now on.
fn started(home: &Home) -> Result<Settings, Failure> {
    let settings = home.settings()?;
    log::set(settings.log.as_ref());
    Ok(settings)
}

/// Keeps a node running until `work` ends, a part of it fails or a signal comes; then stops it.
async fn keep<F: Future<Output = Result<(), Failure>>>(
    home: &Home,
    settings: &mut Settings,
    service: Service,
    work: impl FnOnce(&Service) -> F,
) -> Result<(), Failure> {
    say(
        &format!(
            "running as {}; stop with ctrl-c",
            service.node().peer_address()
        ),
        signals::STOP_LIMIT,
    );
    let mut events = service.node().events();
    let changes = async {
        loop {
            tokio::select! {
                () = signals::reload() => reload(home, &service, settings),
                () = addresses_changed(&mut events) => service.write_addresses(home, settings),
            }
        }
    };
    let outcome = tokio::select! {
        outcome = work(&service) => outcome,
        failure = service.failed() => Err(failure),
        () = signals::stopped() => Ok(()),
        () = changes => Ok(()),
    };
    home.remove_addresses();
    service.shutdown().await;
    outcome
}

/// Waits until the node claims other addresses, or may have begun to.
async fn addresses_changed(events: &mut EventStream) {
    loop {
        match events.recv().await {
            Some(Event::AddressesChanged | Event::Missed { .. }) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Reads the settings again and takes what can change while the node runs: the filter of the log, and what
/// [`Node::reload`] takes.
fn reload(home: &Home, service: &Service, settings: &mut Settings) {
    let read = match home.settings() {
        Ok(read) => read,
        Err(failure) => {
            tracing::error!(target: "dht_cli", %failure, "the settings are not valid; those before stay");
            return;
        }
    };
    let mut config = read.node.clone();
    descriptors::fit(&mut config, read.api.limits.connections);
    if let Err(error) = service.node().reload(&config) {
        tracing::error!(target: "dht_cli", %error, "the settings are not valid; those before stay");
        return;
    }
    service.write_addresses(home, &read);
    let log = read.log != settings.log && log::set(read.log.as_ref());
    let filter = read.log.clone().unwrap_or_default();
    let changed = read.changed(settings).into_iter();
    let (mut taken, later): (Vec<_>, Vec<_>) = changed.partition(|key| {
        let mut rests = RELOADABLE
            .iter()
            .filter_map(|listed| key.strip_prefix(listed));
        rests.any(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    if log {
        taken.push("log".to_owned());
    }
    // Both are what the operator asked for, so they are seen with the default filter.
    if later.is_empty() {
        tracing::warn!(
            target: "dht_cli",
            changed = log,
            log = filter.as_str(),
            taken = taken.join(", "),
            "settings read again"
        );
    } else {
        tracing::warn!(
            target: "dht_cli",
            changed = log,
            log = filter.as_str(),
            taken = taken.join(", "),
            needs_restart = later.join(", "),
            "settings read again"
        );
    }
    // Settings that need a restart are reported until then.
    settings.log = read.log;
}
