//! Flags of commands that start a node on a home: they override settings of it.

use clap::Args;
use dht_core::{Address, Network, PeerAddress};

use super::Home;
use crate::{settings::check_listen, target::dialled};

/// A home, and a flag for the node that dials from it.
#[derive(Debug, Args)]
pub(crate) struct DialingHome {
    #[command(flatten)]
    home: Home,
    /// Network to use instead of the configured one.
    #[arg(long, value_name = "NAME")]
    network: Option<Network>,
}

/// A home, and flags for the node that listens on it.
#[derive(Debug, Args)]
pub(crate) struct ListeningHome {
    #[command(flatten)]
    home: DialingHome,
    /// Address to listen on instead of the configured ones, as in /ip4/0.0.0.0/tcp/18189; port 0 takes any
    /// free port.
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    listen: Vec<Address>,
    /// Node to begin at when no other is known, instead of the configured ones; may be given several times.
    #[arg(long, value_name = "KEY::ADDR", value_parser = dialled)]
    seed: Vec<PeerAddress>,
}

impl Home {
    /// Overrides a setting that is a list, unless there is nothing to put in it.
    fn set_list(&mut self, key: &str, values: &[impl ToString]) {
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            self.flags.insert(key.to_owned(), values.into());
        }
    }
}

impl DialingHome {
    /// The home with the settings that the flags override.
    pub(crate) fn home(&self) -> Home {
        let mut home = self.home.clone();
        if let Some(network) = self.network {
            let network = network.to_string().into();
            home.flags.insert("network".to_owned(), network);
        }
        home
    }
}

impl ListeningHome {
    /// The home with the settings that the flags override.
    pub(crate) fn home(&self) -> Home {
        let mut home = self.home.home();
        home.set_list("listen", &self.listen);
        home.set_list("seeds", &self.seed);
        home
    }
}

fn listen_address(text: &str) -> Result<Address, String> {
    let address = text
        .parse()
        .map_err(|error: dht_core::ParseError| error.to_string())?;
    check_listen(&address)?;
    Ok(address)
}
