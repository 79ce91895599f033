//! `init`, `id` and `config`: makes a home, and prints what it is.

use clap::Args;
use dht_api::types::API_VERSION;
use dht_core::{Address, Host, PeerAddress};
use serde_json::json;

use crate::{
    exit::Failure,
    home::{Home, ListeningHome},
    output::print,
};

/// `dht-node init`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dht-node init --home a --listen /ip4/0.0.0.0/tcp/18189")]
pub(crate) struct Init {
    #[command(flatten)]
    home: ListeningHome,
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
#[command(after_help = "Examples:\n  dht-node config --home a\n  \
    DHT_NODE_SAF_CAPACITY_ROWS=5000 dht-node config   # every setting has such a variable")]
pub(crate) struct ShowConfig {
    #[command(flatten)]
    home: ListeningHome,
}

impl Init {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let home = self.home.home();
        let fresh = !home.key_path().exists();
        let secret = home.make()?;
        print(format!(
            "{} {}\npublic key {}",
            if fresh { "made" } else { "kept" },
            home.path().display(),
            secret.public_key()
        ))
        .await
    }
}

impl Id {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let addresses = self.home.addresses()?;
        let is_open = |address: &Address| matches!(address.host(), Some(Host::Ip(_, 0)));
        let undialled = (addresses.is_empty() || addresses.iter().any(is_open)).then(|| {
            let why = match addresses.first() {
                Some(_) => format!(
                    "it listens on port 0, and takes a port when it runs: start it with: dht-node run {}",
                    self.home.flag()
                ),
                None => "it listens nowhere".to_owned(),
            };
            let config = self.home.config_path();
            format!("nobody can dial this node: {why}; or set `listen` in {}", config.display())
        });
        if self.address
            && let Some(why) = undialled
        {
            return Err(Failure::config(why));
        }
        let public_key = self.home.key_or_new()?.public_key();
        let node_id = public_key.node_id();
        let peer = PeerAddress {
            public_key,
            addresses: addresses.clone(),
        };
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        print(if self.json {
            json!({
                "version": API_VERSION, "public_key": public_key.to_string(),
                "node_id": node_id.to_string(), "addresses": addresses,
                "peer_address": peer.to_string(),
            })
            .to_string()
        } else if self.address {
            peer.to_string()
        } else {
            let address = undialled.unwrap_or_else(|| peer.to_string());
            format!(
                "public key  {public_key}\nnode id     {node_id}\naddresses   {}\naddress     {address}",
                addresses.join(" ")
            )
        })
        .await
    }
}

impl ShowConfig {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        print(self.home.home().settings()?.to_text()?.trim_end()).await
    }
}
