//! A node in a process of its own, so that its memory is its own: `cargo xtask load` and `cargo xtask attack`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    net::IpAddr,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use dht_core::{
    Address, Clock, Destination, Entropy as _, Host, PeerAddress, PublicKey, SecretKey,
    SeededEntropy, SendParams, SystemClock, UnixSeconds,
};
use dht_node::{Acceptance, Config, Node, Received, SendOptions, Subscription};
use dht_spool::Start;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::loopback::{Dials, Loopback};

/// The hidden flag that makes a program the node.
pub const FLAG: &str = "--target";

/// Start of the payloads that the application of the node sends back.
pub const ECHO: &[u8] = b"echo ";

/// Start of the payloads that the application of the node counts.
pub const COUNT: &[u8] = b"count ";

/// Content of the gossip on which the application's validator panics.
pub const PANIC: &[u8] = b"panic";

/// How the node is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Settings of the node.
    pub config: Config,
    /// Seed of its key.
    pub seed: u64,
    /// Folder of its files; `None` for none.
    pub home: Option<PathBuf>,
    /// Whether it is on the [`Loopback`] network instead of TCP.
    pub on_loopback: bool,
    /// Whether a second consumer of its inbox reads nothing, so that every message stays in it.
    pub keeps_messages: bool,
    /// Whether it has a validator for gossip, which accepts everything but [`PANIC`].
    pub validates: bool,
}

impl Setup {
    /// A node on TCP without files, whose key has this seed.
    #[must_use]
    pub const fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            seed,
            home: None,
            on_loopback: false,
            keeps_messages: false,
            validates: false,
        }
    }
}

/// Question to the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Question {
    /// Counters.
    Status,
    /// Dial a peer, as an operator does.
    Connect(String),
    /// Send gossip to all peers.
    Gossip(String),
    /// Ask peers for stored messages.
    Fetch,
    /// Look a key up in the directory.
    Knows(String),
    /// Addresses of a key in the directory.
    Addresses(String),
}

/// Counters of the node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Messages received.
    pub received: u64,
    /// Messages delivered to the application.
    pub delivered: u64,
    /// Messages forwarded.
    pub forwarded: u64,
    /// Protocol messages answered.
    pub answered: u64,
    /// Messages dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Messages that were not sent.
    pub unsent: u64,
    /// Bytes of messages received and not disposed of.
    pub held_bytes: usize,
    /// Bytes waiting to be sent.
    pub queued_bytes: usize,
    /// Bytes of the tables of messages seen, of exact copies and of messages received.
    pub remembered_bytes: usize,
    /// Bytes of memory that messages stored for others take.
    pub stored_bytes: u64,
    /// Connections now.
    pub connections: usize,
    /// Messages that start with [`COUNT`].
    pub counted: u64,
    /// Peers in the directory.
    pub known: usize,
    /// Ids of the connected peers that the overlay chose.
    pub pools: BTreeSet<String>,
    /// Messages stored for others now.
    pub rows: u64,
    /// Messages that the inbox refused, and those that it holds.
    pub inbox: (u64, u64),
    /// Banned keys, with the reason.
    pub bans: BTreeMap<String, String>,
    /// Parts of the node that have stopped.
    pub failures: BTreeMap<String, String>,
    /// Dials on the [`Loopback`] network.
    pub dials: Dials,
}

impl Status {
    /// Messages that were of use to somebody.
    #[must_use]
    pub const fn useful(&self) -> u64 {
        self.delivered + self.forwarded
    }

    /// Messages dropped for the reason with this name.
    #[must_use]
    pub fn dropped(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or_default()
    }
}

/// The system's clock, ahead by a number of seconds.
#[derive(Clone, Copy, Debug)]
pub struct ShiftedClock(pub i64);

impl Clock for ShiftedClock {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(SystemClock.now().0.saturating_add_signed(self.0))
    }
}

/// The key of seed `seed`.
#[must_use]
pub fn secret(seed: u64) -> SecretKey {
    SecretKey::random(&mut SeededEntropy::new(seed).rng())
}

/// The node: the first line of standard input is its [`Setup`], each further one a question, answered by a line.
///
/// # Errors
/// That it does not start, or standard input is no question.
#[expect(clippy::print_stdout, reason = "the answers")]
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut lines = std::io::stdin().lines();
    let setup: Setup = serde_json::from_str(&lines.next().context("no setup")??)?;
    let medium = loopback(&setup.config);
    let mut builder = Node::builder(secret(setup.seed)).config(setup.config);
    let in_memory = setup.home.is_none();
    if let Some(home) = setup.home {
        builder = builder.home(home);
    }
    if setup.on_loopback {
        let names = medium.clone();
        let lookup = move |name: &str| names.look_up(name);
        builder = builder.medium(medium.clone()).lookup(lookup);
    }
    if setup.validates {
        builder = builder.gossip_validator(validate);
    }
    let node = Arc::new(runtime.block_on(builder.start())?);
    if let (Some(inbox), true) = (node.inbox(), setup.keeps_messages) {
        inbox.add_consumer("idle", Start::Oldest).wait()?;
    }
    let counted = Arc::<AtomicU64>::default();
    let application = runtime.spawn(read(
        Arc::clone(&node),
        node.subscribe(),
        Arc::clone(&counted),
    ));
    println!("{}", node.peer_address());
    for line in lines {
        let answer = match serde_json::from_str(&line?)? {
            Question::Status => {
                let counted = counted.load(Relaxed);
                let status = status(&node, in_memory, medium.dials());
                serde_json::to_string(&Status { counted, ..status })?
            }
            Question::Addresses(key) => {
                let key: PublicKey = key.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
                let known = node.directory().find_by_key(&key);
                let known = known.iter().flat_map(|known| known.addresses().iter());
                let addresses: Vec<_> = known.map(|known| known.address.to_string()).collect();
                serde_json::to_string(&addresses)?
            }
            other => serde_json::to_string(&act(&runtime, &node, other))?,
        };
        println!("{answer}");
    }
    application.abort();
    Ok(())
}

/// A medium that dials from the address the node listens on.
fn loopback(config: &Config) -> Loopback {
    match config.listen.first().and_then(Address::host) {
        Some(Host::Ip(IpAddr::V4(ip), _)) => Loopback::new(ip),
        _ => Loopback::new(std::net::Ipv4Addr::LOCALHOST),
    }
}

#[expect(clippy::panic, reason = "what an application may do")]
async fn validate(gossip: Received) -> Acceptance {
    if gossip.message.payload == PANIC {
        panic!("the application's validator panics");
    }
    Acceptance::Accept
}

/// Clear, signed, to every peer.
pub(crate) fn gossip_to_all() -> SendParams {
    SendParams::builder()
        .with_destination(Destination::Unknown)
        .force_origin()
        .flood(Vec::new())
        .finish()
}

/// Sends back, or counts, what asks for it.
async fn read(node: Arc<Node>, mut inbox: Subscription, counted: Arc<AtomicU64>) {
    while let Some(received) = inbox.recv().await {
        if received.message.payload.starts_with(COUNT) {
            counted.fetch_add(1, Relaxed);
        }
        if let Some(sender) = received.sender
            && received.message.payload.starts_with(ECHO)
        {
            // Refused only if the outbox is full: then the echo is missed by whoever counts them.
            let _refused = node
                .send(&sender, received.message, SendOptions::default())
                .await;
        }
        // The next call acks it, without waiting for the disk.
    }
}

fn act(runtime: &Runtime, node: &Node, question: Question) -> Result<(), String> {
    match question {
        Question::Status | Question::Addresses(_) => Ok(()),
        Question::Knows(key) => {
            let key: PublicKey = key.parse().map_err(|error| format!("{error}"))?;
            let known = node.directory().find_by_key(&key);
            known.map(drop).ok_or_else(|| "not known".to_owned())
        }
        Question::Connect(address) => {
            let address: PeerAddress = address.parse().map_err(|error| format!("{error}"))?;
            let done = runtime.block_on(node.connect(&address));
            done.map_err(|error| error.to_string())
        }
        Question::Gossip(text) => {
            let message = dht_node::Message {
                message_type: 7,
                payload: text.into_bytes().into(),
            };
            let done = runtime.block_on(node.request(gossip_to_all(), message));
            done.map(drop).map_err(|error| error.to_string())
        }
        Question::Fetch => {
            let done = runtime.block_on(node.fetch_stored());
            done.map(drop).map_err(|error| error.to_string())
        }
    }
}

fn status(node: &Node, in_memory: bool, dials: Dials) -> Status {
    let stats = node.stats();
    let store = node.saf_stats().unwrap_or_default();
    let files = if in_memory { store.disk_bytes } else { 0 };
    let bans = node.directory().banned(SystemClock.now());
    let drops = stats.drops.iter();
    Status {
        received: stats.messages_received,
        delivered: stats.delivered,
        forwarded: stats.forwarded,
        answered: stats.answered,
        drops: drops
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect(),
        unsent: stats.unsent,
        held_bytes: stats.memory_used_bytes,
        queued_bytes: stats.queued_bytes,
        remembered_bytes: stats.remembered_bytes,
        stored_bytes: store.index_bytes + files,
        connections: stats.connections,
        known: stats.known_peers,
        pools: node.overlay().map(pools).unwrap_or_default(),
        inbox: node
            .inbox()
            .map(|inbox| inbox.stats())
            .map_or((0, 0), |stats| (stats.refused, stats.rows)),
        rows: store.rows,
        bans: bans
            .iter()
            .map(|ban| (ban.node_id.to_string(), ban.reason.to_string()))
            .collect(),
        failures: node
            .failures()
            .into_iter()
            .map(|(part, reason)| (part.to_owned(), reason))
            .collect(),
        counted: 0,
        dials,
    }
}

fn pools(summary: dht_overlay::Summary) -> BTreeSet<String> {
    let ids = summary.neighbours.into_iter().chain(summary.random);
    ids.map(|id| id.to_string()).collect()
}

/// The process of the node, seen from the other side.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: PeerAddress,
}

impl Process {
    /// Starts this program again as the node; with no more than `descriptors` open files, if there is a number.
    ///
    /// # Errors
    /// That it does not start.
    pub fn start(setup: &Setup, descriptors: Option<u32>) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = match descriptors {
            None => Command::new(program),
            Some(most) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script]).arg(program);
                shell
            }
        };
        let mut child = command
            .arg(FLAG)
            // The symbols of a backtrace would be the memory that is measured.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the process of the node does not start")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        writeln!(stdin, "{}", serde_json::to_string(setup)?)?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().parse().context("the node did not start")?;
        Ok(Self {
            child,
            stdin,
            stdout,
            address,
        })
    }

    /// Key and address of the node.
    #[must_use]
    pub const fn address(&self) -> &PeerAddress {
        &self.address
    }

    /// Key of the node.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.address.public_key
    }

    /// Counters of the node; it answers from outside its runtime, so this works while that is busy.
    ///
    /// # Errors
    /// That it has died.
    pub fn status(&mut self) -> anyhow::Result<Status> {
        self.ask(&Question::Status)
    }

    /// Dials a peer, as the operator of the node does. The inner error is that of the dial.
    ///
    /// # Errors
    /// That the node has died.
    pub fn connect(&mut self, peer: &PeerAddress) -> anyhow::Result<Result<(), String>> {
        self.ask(&Question::Connect(peer.to_string()))
    }

    /// Sends gossip to all peers of the node. The inner error is why it was not sent.
    ///
    /// # Errors
    /// That the node has died.
    pub fn gossip(&mut self, text: &str) -> anyhow::Result<Result<(), String>> {
        self.ask(&Question::Gossip(text.to_owned()))
    }

    /// Asks the peers of the node for stored messages. The inner error is why none was asked.
    ///
    /// # Errors
    /// That the node has died.
    pub fn fetch(&mut self) -> anyhow::Result<Result<(), String>> {
        self.ask(&Question::Fetch)
    }

    /// Whether the node has a key in its directory.
    ///
    /// # Errors
    /// That the node has died.
    pub fn knows(&mut self, key: &PublicKey) -> anyhow::Result<bool> {
        let found: Result<(), String> = self.ask(&Question::Knows(key.to_string()))?;
        Ok(found.is_ok())
    }

    /// Addresses that the node has of a key.
    ///
    /// # Errors
    /// That the node has died.
    pub fn addresses(&mut self, key: &PublicKey) -> anyhow::Result<Vec<String>> {
        self.ask(&Question::Addresses(key.to_string()))
    }

    fn ask<T: for<'de> Deserialize<'de>>(&mut self, question: &Question) -> anyhow::Result<T> {
        let line = serde_json::to_string(question)?;
        writeln!(self.stdin, "{line}").context("the node has died")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).context("the node has died")
    }

    /// Descriptors that the node has open. Zero where there is no /proc.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Memory in MiB as the kernel counts it: now, and the most so far. Zero where there is no /proc.
    #[must_use]
    pub fn resident_mb(&self) -> (f64, f64) {
        let path: PathBuf = format!("/proc/{}/status", self.child.id()).into();
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib / 1_024.0)
        };
        let of = |name| field(name).unwrap_or_default();
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It also ends by itself when its standard input closes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
