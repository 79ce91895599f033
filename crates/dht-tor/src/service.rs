//! Keeps the onion service there.

use std::{
    convert::Infallible, fmt, future::Future, io, net::SocketAddr, sync::Arc, time::Duration,
};

use dht_core::{Address, SharedEntropy};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    authenticate::Authentication, control::Control, error::ControlError, key::OnionKey, metrics,
};

/// Time for the control connection to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time until the second attempt; it doubles up to [`MAX_RETRY_WAIT`].
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Longest time between two attempts: Tor serves again well within 30 s of its return.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(10);
/// Interval between questions whether the service is still there.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Connects to the control port of a Tor.
pub trait ControlPort: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Connects. The caller limits the time.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Settings of an onion service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnionConfig {
    /// How this node authenticates itself.
    pub authentication: Authentication,
    /// Port of the onion service.
    pub port: u16,
    /// Socket that Tor connects to for each connection to the service.
    pub target: SocketAddr,
}

/// Whether the onion service is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnionState {
    /// It is not, and this is why. Attempts go on.
    Down(Option<ControlError>),
    /// Tor serves it.
    Added {
        /// Whether a directory of the network has taken its descriptor since: peers find it.
        is_published: bool,
    },
}

/// An onion service that is added again whenever it is lost.
pub struct OnionService<C> {
    control: C,
    config: OnionConfig,
    key: OnionKey,
    entropy: SharedEntropy,
    state: watch::Sender<OnionState>,
}

impl OnionState {
    /// Why peers cannot find the service, in words; `None` if they can.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Down(Some(error)) => Some(format!("the onion service is not there: {error}")),
            Self::Down(None) => Some("the onion service is not there yet".to_owned()),
            Self::Added {
                is_published: false,
            } => Some("the onion service is not published yet".to_owned()),
            Self::Added { is_published: true } => None,
        }
    }
}

impl ControlPort for SocketAddr {
    type Stream = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self).await
    }
}

impl<C: ControlPort> ControlPort for Arc<C> {
    type Stream = C::Stream;

    fn connect(&self) -> impl Future<Output = io::Result<C::Stream>> + Send {
        (**self).connect()
    }
}

impl<C: ControlPort> OnionService<C> {
    /// A service that is down until it [runs](Self::run).
    #[must_use]
    pub fn new(control: C, config: OnionConfig, key: OnionKey, entropy: SharedEntropy) -> Self {
        Self {
            control,
            config,
            key,
            entropy,
            state: watch::Sender::new(OnionState::Down(None)),
        }
    }

    /// The address of the service, which its key decides.
    #[must_use]
    pub fn address(&self) -> Address {
        self.key.address(self.config.port)
    }

    /// Whether the service is there, now and later.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<OnionState> {
        self.state.subscribe()
    }

    /// Adds the service, watches it, and adds it again, for ever. Tor removes it when this is dropped.
    pub async fn run(self) -> Infallible {
        let mut wait = RETRY_WAIT;
        loop {
            let Err(error) = self.serve(&mut wait).await;
            metrics::lost();
            let told = OnionState::Down(Some(error.clone()));
            // The same cause again and again is told once.
            if self.state.send_replace(told.clone()) == told {
                tracing::debug!(%error, "the onion service is still down");
            } else {
                tracing::warn!(%error, "the onion service is down; it is added again as soon as Tor allows");
            }
            sleep(wait).await;
            wait = (2 * wait).min(MAX_RETRY_WAIT);
        }
    }

    /// Serves on one control connection until that, or the service, is lost.
    async fn serve(&self, wait: &mut Duration) -> Result<Infallible, ControlError> {
        let connected = timeout(CONNECT_LIMIT, self.control.connect()).await;
        let mut control = Control::new(connected.map_err(|_| ControlError::Timeout)??);
        let mut rng = self.entropy.rng();
        (self.config.authentication)
            .perform(&mut control, &mut rng)
            .await?;
        // Before the service is there, so that no event of it is missed.
        control.request("SETEVENTS", " HS_DESC").await?;
        let id = self.key.service_id();
        let (key, port, target) = (self.key.argument(), self.config.port, self.config.target);
        let arguments = zeroize::Zeroizing::new(format!(" {} Port={port},{target}", &*key));
        let added = control.request("ADD_ONION", &arguments).await?;
        if added.value("ServiceID") != Some(&*id) {
            return Err(ControlError::Protocol("it serves another onion service"));
        }
        *wait = RETRY_WAIT;
        metrics::added();
        let is_published = false;
        self.state.send_replace(OnionState::Added { is_published });
        tracing::info!(address = %self.address(), "Tor serves the onion service");
        let mut next_check = Instant::now() + CHECK_INTERVAL;
        loop {
            tokio::select! {
                biased;
                // First, so that no number of events keeps it from its turn.
                () = sleep_until(next_check) => {
                    let listed = control.request("GETINFO", " onions/current").await?;
                    let names = |line: &String| {
                        line.strip_prefix("onions/current=").unwrap_or(line) == id
                    };
                    if !listed.lines.iter().any(names) {
                        return Err(ControlError::Removed);
                    }
                    next_check = Instant::now() + CHECK_INTERVAL;
                }
                event = control.event() => {
                    let event = event?;
                    let line = event.lines.first().map_or("", String::as_str);
                    if line.starts_with(&format!("HS_DESC UPLOADED {id} ")) {
                        self.state.send_replace(OnionState::Added { is_published: true });
                    }
                }
            }
        }
    }
}

impl<C> fmt::Debug for OnionService<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnionService")
            .field("key", &self.key)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
