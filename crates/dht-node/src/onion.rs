//! The onion service of a node (feature `tor`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use dht_core::{Address, Host, OutOfRange, SharedEntropy, SourceGroup};
use dht_tor::{Authentication, KeyError, OnionConfig, OnionKey, OnionService, OnionState};
use dht_transport::Transport;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{config_error::ConfigError, tasks::Tasks};

/// Port of the onion service by default: that of stock nodes.
const DEFAULT_PORT: u16 = 18_141;
/// File of the key within the home.
const KEY_FILE: &str = "onion_key";

/// Settings of the onion service, section `[tor]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TorConfig {
    /// Control port of a Tor on this machine, a loopback address as `127.0.0.1:9051`; empty by default: no onion service.
    #[serde(with = "dht_transport::optional_address")]
    pub control: Option<SocketAddr>,
    /// Port of the onion service, 1 to 65 535. Defaults to 18141, that of stock nodes.
    pub port: u16,
    /// File with the cookie of Tor, relative to the home; empty by default: the file that Tor names, unless another user may
    /// have made it.
    pub cookie_file: PathBuf,
    /// File whose first line is the password of the control port, relative to the home; empty by default: none. Not with
    /// `cookie_file`.
    pub password_file: PathBuf,
}

/// An onion service that is not there yet.
pub(crate) struct Onion {
    control: SocketAddr,
    port: u16,
    authentication: Authentication,
    key: OnionKey,
}

impl TorConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        OutOfRange::check("tor.port", self.port.into(), 1..=u64::from(u16::MAX))?;
        let is_local = |ip: IpAddr| ip.to_canonical().is_loopback();
        let is_wrong = |control: &SocketAddr| !is_local(control.ip()) || control.port() == 0;
        if let Some(control) = self.control.filter(is_wrong) {
            // The secret key of the onion service would cross a network.
            let why = "which is no port on this machine, as 127.0.0.1:9051 is";
            return Err(ConfigError::unusable("tor.control", control, why));
        }
        let names = [&self.cookie_file, &self.password_file];
        if names.iter().all(|path| !path.as_os_str().is_empty()) {
            return Err(ConfigError::CookieAndPassword);
        }
        Ok(())
    }

    fn authentication(&self, home: Option<&Path>) -> Authentication {
        let within = |path: &Path| home.map_or_else(|| path.to_owned(), |home| home.join(path));
        let (cookie, password) = (&self.cookie_file, &self.password_file);
        if !password.as_os_str().is_empty() {
            Authentication::Password(within(password))
        } else if !cookie.as_os_str().is_empty() {
            Authentication::Cookie(within(cookie))
        } else {
            Authentication::Auto
        }
    }
}

impl Default for TorConfig {
    fn default() -> Self {
        Self {
            control: None,
            port: DEFAULT_PORT,
            cookie_file: PathBuf::new(),
            password_file: PathBuf::new(),
        }
    }
}

impl Onion {
    /// The service that the settings ask for, with the key in the home; without a home, with one that ends with the
    /// process. Blocks.
    pub(crate) fn prepare(
        config: &TorConfig,
        home: Option<&Path>,
        entropy: &SharedEntropy,
    ) -> Result<Option<Self>, KeyError> {
        let Some(control) = config.control else {
            return Ok(None);
        };
        let key = match home {
            Some(home) => OnionKey::read_or_make(&home.join(KEY_FILE), &**entropy)?,
            None => OnionKey::random(&**entropy),
        };
        Ok(Some(Self {
            control,
            port: config.port,
            authentication: config.authentication(home),
            key,
        }))
    }

    pub(crate) fn address(&self) -> Address {
        self.key.address(self.port)
    }

    /// Address that Tor connects to for each connection to the service: any free port of this machine.
    pub(crate) fn listener() -> Address {
        Address::tcp(Ipv4Addr::LOCALHOST.into(), 0)
    }

    /// Has Tor serve it on a listener of its own.
    pub(crate) async fn start(
        self,
        transport: &Transport,
        entropy: &SharedEntropy,
        tasks: &Tasks,
    ) -> io::Result<watch::Receiver<OnionState>> {
        let group = SourceGroup::ONION_SERVICE;
        let local = transport.listen_as(&Self::listener(), group).await?;
        let Some(Host::Ip(ip, port)) = local.host() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let config = OnionConfig {
            authentication: self.authentication,
            port: self.port,
            target: (ip, port).into(),
        };
        let service = OnionService::new(self.control, config, self.key, Arc::clone(entropy));
        let state = service.state();
        tasks.spawn("onion service", async move { match service.run().await {} });
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use dht_core::{Entropy as _, PeerAddress, SecretKey, SeededEntropy};
    use dht_peers::NetGroup;

    use super::*;
    use crate::{Config, Event, Node};

    async fn start(home: &Path, control: SocketAddr) -> Node {
        let secret = SecretKey::random(&mut SeededEntropy::new(1).rng());
        let mut config = Config {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            ..Config::default()
        };
        config.tor.control = Some(control);
        let builder = Node::builder(secret).config(config).home(home);
        builder.start().await.unwrap()
    }

    /// The claim names the onion service first, whether or not Tor runs, and not the listener that Tor connects to.
    #[tokio::test]
    async fn claims_name_the_onion() {
        let home = tempfile::tempdir().unwrap();
        let mut claims = Vec::new();
        for _ in 0..2 {
            let node = start(home.path(), ([127, 0, 0, 1], 1).into()).await;
            let claim = node.claim();
            assert_eq!(claim.addresses.len(), 2, "{:?}", claim.addresses);
            assert!(claim.addresses[0].to_string().starts_with("/onion3/"));
            assert_eq!(claim.addresses[1], node.listen_addresses()[0]);
            assert!(node.onion_problem().is_some());
            node.shutdown().await;
            claims.push(claim.addresses[0].clone());
        }
        assert_eq!(claims[0], claims[1]);
    }

    /// Whoever comes through the service is of one network, for the directory and for shares; who connects from this machine
    /// otherwise is of none.
    #[tokio::test]
    async fn onion_clients_are_one_network() {
        let home = tempfile::tempdir().unwrap();
        let node = start(home.path(), ([127, 0, 0, 1], 1).into()).await;
        let mut events = node.events();
        let own = node.listen_addresses();
        let (onion, none) = (Some(SourceGroup::ONION_SERVICE), None);
        for (seed, address, group, network) in [
            (2, &own[0], none, NetGroup::Unknown),
            (3, &own[1], onion, NetGroup::OnionService),
            (4, &own[1], onion, NetGroup::OnionService),
        ] {
            let secret = SecretKey::random(&mut SeededEntropy::new(seed).rng());
            let client = Node::builder(secret).start().await.unwrap();
            let peer = PeerAddress {
                public_key: *node.public_key(),
                addresses: vec![address.clone()],
            };
            client.connect(&peer).await.unwrap();
            let connected = loop {
                if let Event::Connected(peer) = events.recv().await.unwrap() {
                    break peer;
                }
            };
            assert_eq!(connected.source, group);
            let known = node.directory().find(&connected.node_id).unwrap();
            assert_eq!(known.network(), network);
            client.shutdown().await;
        }
        node.shutdown().await;
    }

    #[test]
    fn settings_of_tor_are_read() {
        let config: Config = toml::from_str("[tor]\ncontrol = '127.0.0.1:9051'").unwrap();
        assert_eq!(config.tor.control, Some(([127, 0, 0, 1], 9051).into()));
        assert_eq!(config.tor.authentication(None), Authentication::Auto);
        let back = toml::to_string(&config).unwrap();
        assert!(back.contains("control = \"127.0.0.1:9051\""), "{back}");
        assert!(toml::from_str::<Config>("[tor]\ncontrol = 'tor'").is_err());
        let config: Config = toml::from_str("[tor]\npassword_file = 'p'\nport = 0").unwrap();
        let home = Path::new("/home");
        let named = config.tor.authentication(Some(home));
        assert_eq!(named, Authentication::Password("/home/p".into()));
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("tor.port is 0"), "{error}");
    }

    #[test]
    fn unsafe_settings_are_refused() {
        let check = |text: &str| toml::from_str::<Config>(text).unwrap().validate();
        for control in [
            "10.0.0.1:9051",
            "[2001:db8::1]:9051",
            "0.0.0.0:9051",
            "127.0.0.1:0",
        ] {
            let error = check(&format!("[tor]\ncontrol = '{control}'")).unwrap_err();
            let expected = format!("tor.control is {control}, which is no port on this machine");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        for control in ["127.0.0.2:9051", "[::1]:9051", "[::ffff:127.0.0.1]:9051"] {
            assert_eq!(check(&format!("[tor]\ncontrol = '{control}'")), Ok(()));
        }
        let error = check("[tor]\ncookie_file = 'c'\npassword_file = 'p'").unwrap_err();
        assert_eq!(error, ConfigError::CookieAndPassword);
    }
}
