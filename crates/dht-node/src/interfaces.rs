//! The IP addresses of this machine, and what follows when others come.

use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc, time::Duration};

use dht_stack::off_thread;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::{config::Config, connection_mirror::ConnectionMirror, own_addresses::OwnAddresses};

/// Reads the IP addresses of this machine.
pub(crate) type Interfaces = Arc<dyn Fn() -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// IP addresses of the interfaces of this machine that are in operation, for
/// [`Builder::interfaces`](crate::Builder::interfaces).
///
/// # Errors
/// An error of the operating system.
#[cfg(feature = "interfaces")]
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = if_addrs::get_if_addrs()?.into_iter();
    let running = interfaces.filter(if_addrs::Interface::is_oper_up);
    Ok(running.map(|interface| interface.ip()).collect())
}

/// The addresses of this machine that mean something to others; `None`, with an entry in the log, if they cannot be read.
pub(crate) async fn read(interfaces: &Interfaces, blocks: bool) -> Option<BTreeSet<IpAddr>> {
    let interfaces = Arc::clone(interfaces);
    let read = off_thread(blocks, move || interfaces()).await?;
    match read {
        Ok(addresses) => Some(addresses.into_iter().filter(is_of_network).collect()),
        Err(error) => {
            tracing::debug!(%error, "the addresses of this machine are not read");
            None
        }
    }
}

/// Not of this machine alone, nor chosen anew whenever an interface comes up.
fn is_of_network(ip: &IpAddr) -> bool {
    !(ip.is_loopback() || ip.is_unspecified())
        && match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        }
}

/// Looks now and then which addresses this machine has.
pub(crate) struct InterfaceWatch {
    pub(crate) interfaces: Interfaces,
    /// Whether reading them may block.
    pub(crate) blocks: bool,
    pub(crate) own_addresses: Arc<OwnAddresses>,
    /// Settings in force.
    pub(crate) config: Arc<Mutex<Config>>,
    pub(crate) peers: ConnectionMirror,
}

impl InterfaceWatch {
    /// Whenever an address comes that was not there before, signs a claim if the node claims others now, and joins again. An address
    /// that goes changes nothing until one comes: without any there is nobody to tell, and the same one may return. Never returns.
    pub(crate) async fn run(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(now) = read(&self.interfaces, self.blocks).await
                && self.own_addresses.set_machine(now)
            {
                tracing::info!("this machine has other addresses");
                let config = self.config.lock();
                self.own_addresses.sign(&config, &self.peers.shared);
                #[cfg(feature = "overlay")]
                self.peers.overlay.address_changed();
            }
        }
    }
}
