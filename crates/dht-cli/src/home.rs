//! The folder of a node's files: `secret_key`, `config.toml`, `addresses`.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;
use dht_core::{Address, Entropy as _, PeerAddress, SecretKey};
use dht_node::{Config, OsEntropy};
use serde_json::json;

use crate::exit::Failure;

/// Flags that name a home, and settings that override its configuration.
#[derive(Debug, Args)]
pub(crate) struct Home {
    /// Folder with the key and the configuration; created if it does not exist.
    #[arg(long = "home", env = "DHT_NODE_HOME", value_name = "DIR", default_value_os_t = default_home())]
    path: PathBuf,
    /// Network to use instead of the configured one.
    #[arg(long, env = "DHT_NODE_NETWORK", value_name = "NAME")]
    network: Option<dht_core::Network>,
    /// Address to listen on instead of the configured ones, as in /ip4/0.0.0.0/tcp/18189; port 0 takes any
    /// free port.
    #[arg(long, env = "DHT_NODE_LISTEN", value_name = "ADDR")]
    listen: Vec<Address>,
}

/// `dht-node init`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dht-node init --home a --listen /ip4/0.0.0.0/tcp/18189")]
pub(crate) struct Init {
    #[command(flatten)]
    home: Home,
}

/// `dht-node id`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node id --home a\n  dht-node id --home a --address   # what to give to others"
)]
pub(crate) struct Id {
    #[command(flatten)]
    home: Home,
    /// Print only KEY::ADDR, which a sender needs.
    #[arg(long, conflicts_with = "json")]
    address: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// `dht-node config`
#[derive(Debug, Args)]
pub(crate) struct ShowConfig {
    #[command(flatten)]
    home: Home,
}

impl Init {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let fresh = !self.home.key_path().exists();
        let secret = self.home.secret_key()?;
        let config = self.home.config()?;
        let path = self.home.config_path();
        if !path.exists() {
            let text = toml::to_string(&config).map_err(|error| {
                Failure::config(format!("cannot write the configuration: {error}"))
            })?;
            fs::write(&path, text).map_err(|error| cannot("write", &path, &error))?;
        }
        print(&format!(
            "{} {}\npublic key {}",
            if fresh { "made" } else { "kept" },
            self.home.path.display(),
            secret.public_key()
        ));
        Ok(())
    }
}

impl Id {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let public_key = self.home.secret_key()?.public_key();
        let addresses = self.home.addresses()?;
        let node_id = public_key.node_id();
        let peer = PeerAddress {
            public_key,
            addresses: addresses.clone(),
        };
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if self.json {
            print(
                &json!({
                    "public_key": public_key.to_string(), "node_id": node_id.to_string(),
                    "addresses": addresses, "address": peer.to_string(),
                })
                .to_string(),
            );
        } else if self.address {
            print(&peer.to_string());
        } else {
            print(&format!(
                "public key  {public_key}\nnode id     {node_id}\naddresses   {}\naddress     {peer}",
                addresses.join(" ")
            ));
        }
        Ok(())
    }
}

impl ShowConfig {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let text = toml::to_string(&self.home.config()?)
            .map_err(|error| Failure::config(format!("cannot show the configuration: {error}")))?;
        print(text.trim_end());
        Ok(())
    }
}

impl Home {
    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the configuration file and applies the flags.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let path = self.config_path();
        let mut config: Config = match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| Failure::config(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Config::default(),
            Err(error) => return Err(cannot("read", &path, &error)),
        };
        if let Some(network) = self.network {
            config.network = network;
        }
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        config
            .validate()
            .map_err(|error| Failure::config(format!("{}: {error}", path.display())))?;
        Ok(config)
    }

    /// Reads the secret key, which is created on first use. A key file that other users can read is refused.
    pub(crate) fn secret_key(&self) -> Result<SecretKey, Failure> {
        let path = self.key_path();
        match fs::read_to_string(&path) {
            Ok(text) => {
                check_private(&path)?;
                text.parse().map_err(|error| {
                    Failure::key(format!("{} is not a secret key: {error}", path.display()))
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_key(&path),
            Err(error) => Err(cannot("read", &path, &error)),
        }
    }

    fn make_key(&self, path: &Path) -> Result<SecretKey, Failure> {
        fs::create_dir_all(&self.path).map_err(|error| cannot("make", &self.path, &error))?;
        let secret = SecretKey::random(&mut OsEntropy.rng());
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let text = data_encoding::HEXLOWER.encode(&*secret.to_bytes());
        options
            .open(path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .map_err(|error| cannot("write", path, &error))?;
        tracing::info!(path = %path.display(), "made a secret key");
        Ok(secret)
    }

    /// Addresses at which this node can be reached: those it listens on while it runs, else the configured ones.
    fn addresses(&self) -> Result<Vec<Address>, Failure> {
        let config = self.config()?;
        if !config.public_addresses.is_empty() {
            return Ok(config.public_addresses);
        }
        let running = fs::read_to_string(self.addresses_path()).unwrap_or_default();
        let running: Vec<Address> = running
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect();
        Ok(if running.is_empty() {
            config.listen
        } else {
            running
        })
    }

    /// Writes the addresses that the running node listens on to a file, which `id` reads.
    pub(crate) fn write_addresses(&self, addresses: &[Address]) -> Result<(), Failure> {
        let lines: String = addresses
            .iter()
            .map(|address| format!("{address}\n"))
            .collect();
        let path = self.addresses_path();
        fs::create_dir_all(&self.path).map_err(|error| cannot("make", &self.path, &error))?;
        fs::write(&path, lines).map_err(|error| cannot("write", &path, &error))
    }

    /// Removes the file that [`Home::write_addresses`] wrote.
    pub(crate) fn remove_addresses(&self) {
        // A file that stays does no harm: the next run overwrites it.
        let _ = fs::remove_file(self.addresses_path());
    }

    fn key_path(&self) -> PathBuf {
        self.path.join("secret_key")
    }

    fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    fn addresses_path(&self) -> PathBuf {
        self.path.join("addresses")
    }
}

/// Prints to standard output. Exits if its reader has closed it, as in `… | head -1`.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = fs::metadata(path)
        .map_err(|error| cannot("read", path, &error))?
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::key(format!(
        "other users can read {}; run: chmod 600 {0}",
        path.display()
    )))
}

#[cfg(not(unix))]
fn check_private(_path: &Path) -> Result<(), Failure> {
    Ok(())
}

fn default_home() -> PathBuf {
    use etcetera::BaseStrategy as _;
    etcetera::choose_base_strategy().map_or_else(
        |_| PathBuf::from(".dht-node"),
        |base| base.data_dir().join("dht-node"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(path: &Path) -> Home {
        Home {
            path: path.to_owned(),
            network: None,
            listen: Vec::new(),
        }
    }

    #[test]
    fn flags_override_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let text = "network = 'esmeralda'\nlisten = []\nmemory_mib = 7";
        fs::write(folder.path().join("config.toml"), text).unwrap();
        let mut home = home(folder.path());
        let config = home.config().unwrap();
        assert_eq!(config.network, dht_core::Network::Esmeralda);
        assert!(config.listen.is_empty());
        home.network = Some(dht_core::Network::LocalNet);
        home.listen = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
        let config = home.config().unwrap();
        assert_eq!(config.network, dht_core::Network::LocalNet);
        assert_eq!((config.listen, config.memory_mib), (home.listen, 7));
    }

    #[test]
    fn a_running_node_names_its_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let configured = home.addresses().unwrap();
        let listening = vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()];
        home.write_addresses(&listening).unwrap();
        assert_eq!(home.addresses().unwrap(), listening);
        home.remove_addresses();
        assert_eq!(home.addresses().unwrap(), configured);
    }

    #[test]
    fn the_key_is_created_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder.path().join("new"));
        let key = home.secret_key().unwrap().public_key();
        assert_eq!(home.secret_key().unwrap().public_key(), key);
    }
}
