//! The nodes of one scenario.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use anyhow::ensure;
use dht_core::Network;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    control::{Role, Setup},
    peer::{Notes, Peer, Program},
};

/// One conversation of our nodes and stock ones.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Course of events, and its required outcome.
    pub about: &'static str,
    /// Whether only stock nodes of version 1 can play it: they store messages.
    pub only_v1: bool,
    /// Whether it belongs to the short run.
    pub quick: bool,
    /// Plays it.
    pub play: fn(&World) -> anyhow::Result<()>,
}

impl Scenario {
    /// Whether stock nodes of this version can play it.
    #[must_use]
    pub fn is_for(&self, version: &str) -> bool {
        is_v1(version) || !self.only_v1
    }
}

/// Whether this is the name of a version 1.
fn is_v1(version: &str) -> bool {
    version.starts_with("1.")
}

/// A version of the reference implementation.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Its program.
    pub program: Program,
}

impl Version {
    /// Whether it is version 1.
    #[must_use]
    pub fn is_v1(&self) -> bool {
        is_v1(&self.name)
    }
}

/// Starts the nodes of one scenario, each on a loopback address of its own.
#[derive(Debug)]
pub struct World {
    ours: Program,
    version: Version,
    /// Whether it is a short run.
    pub quick: bool,
    homes: TempDir,
    /// Middle of the addresses.
    net: (u8, u8),
    next: AtomicU8,
    notes: Arc<Notes>,
}

impl World {
    /// Nodes whose addresses are in `127.net.net.0/24`.
    ///
    /// # Errors
    /// That there is no temporary folder.
    pub fn new(
        version: &Version,
        ours: &Program,
        net: (u8, u8),
        quick: bool,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            version: version.clone(),
            ours: ours.clone(),
            quick,
            homes: TempDir::new()?,
            net,
            next: AtomicU8::new(1),
            notes: Arc::default(),
        })
    }

    /// Settings of a full node on the local network, with a key, a home and an address of its own.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let number = self.next.fetch_add(1, Relaxed);
        let home = self.homes.path().join(number.to_string());
        let key = format!("{number:02x}").repeat(31) + "00";
        Setup {
            key,
            home: home.to_string_lossy().into_owned(),
            listen: Some(format!(
                "/ip4/127.{}.{}.{number}/tcp/18189",
                self.net.0, self.net.1
            )),
            claims: None,
            network: Network::LocalNet.wire_byte(),
            client: false,
            relay: false,
            discovery: false,
            overlay: true,
            user_agent: None,
            liveness_sessions: 0,
            seeds: Vec::new(),
        }
    }

    /// As [`setup`](Self::setup), for a node of ours that looks for no peers: the topology stays as the scenario makes it.
    #[must_use]
    pub fn passive_setup(&self) -> Setup {
        Setup {
            overlay: false,
            ..self.setup()
        }
    }

    /// Whether the stock nodes are of version 1.
    #[must_use]
    pub fn is_v1(&self) -> bool {
        self.version.is_v1()
    }

    /// Version of the stock nodes.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version.name
    }

    /// Events that fail no scenario, but should be known.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().clone()
    }

    /// Notes what fails no scenario, but should be known.
    pub(super) fn note(&self, note: impl Into<String>) {
        self.notes.lock().push(note.into());
    }

    /// Fails if one of the nodes has banned anybody, but for stock nodes that ban stock ones, which is noted: version 1 bans a peer
    /// that it asks for peers when their connection ends, as one of two does that they dial at once.
    ///
    /// # Errors
    /// The bans.
    pub(super) fn no_bans_of_ours(&self, nodes: &[Peer]) -> anyhow::Result<()> {
        let is_of_stock = |ban: &Value| {
            let key = ban.get("key").and_then(Value::as_str);
            let mut stock = nodes.iter().filter(|node| node.role() == Role::Stock);
            stock.any(|node| key == Some(&*node.key().to_string()))
        };
        for node in nodes {
            for ban in node.bans()? {
                ensure!(
                    node.role() == Role::Stock && is_of_stock(&ban),
                    "{} has banned: {ban}",
                    node.key().short()
                );
                self.note(format!("a stock node banned another: {ban}"));
            }
        }
        Ok(())
    }

    /// Starts a node with these settings.
    ///
    /// # Errors
    /// That it does not start.
    pub fn start(&self, role: Role, setup: Setup) -> anyhow::Result<Peer> {
        std::fs::create_dir_all(&setup.home)?;
        let program = match role {
            Role::Stock => &self.version.program,
            Role::Ours => &self.ours,
        };
        Peer::start(role, program, setup, Arc::clone(&self.notes))
    }

    /// Starts a node as most are.
    ///
    /// # Errors
    /// That it does not start.
    pub fn node(&self, role: Role) -> anyhow::Result<Peer> {
        self.start(role, self.setup())
    }

    /// Starts a node that looks for no peers.
    ///
    /// # Errors
    /// That it does not start.
    pub fn passive_node(&self, role: Role) -> anyhow::Result<Peer> {
        self.start(role, self.passive_setup())
    }

    /// A stock node and one of ours, of which the given one has dialled the other.
    ///
    /// # Errors
    /// That they do not connect.
    pub fn pair(&self, dialler: Role) -> anyhow::Result<(Peer, Peer)> {
        let (stock, ours) = (self.node(Role::Stock)?, self.node(Role::Ours)?);
        match dialler {
            Role::Stock => stock.dial(&ours)?,
            Role::Ours => ours.dial(&stock)?,
        }
        Ok((stock, ours))
    }
}

/// Fails if one of the nodes has banned anybody.
///
/// # Errors
/// The bans.
pub(super) fn no_bans<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> anyhow::Result<()> {
    for peer in peers {
        let bans = peer.bans()?;
        ensure!(
            bans.is_empty(),
            "{} has banned: {bans:?}",
            peer.key().short()
        );
    }
    Ok(())
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
