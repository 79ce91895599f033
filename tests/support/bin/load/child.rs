//! The node under load, in a process of its own.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::Context as _;
use dht_core::{Address, Entropy as _, PeerAddress, SecretKey};
use dht_node::{Config, Node, OsEntropy};
use serde::{Deserialize, Serialize};

/// The hidden flag that makes this program the node.
pub(crate) const FLAG: &str = "--node-under-load";

/// Counters that the node reports when asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) delivered: u64,
    pub(crate) forwarded: u64,
    pub(crate) answered: u64,
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) unsent: u64,
    pub(crate) held_bytes: usize,
    pub(crate) queued_bytes: usize,
    pub(crate) connections: usize,
}

impl Counts {
    /// Messages that were of use to somebody.
    pub(crate) const fn useful(&self) -> u64 {
        self.delivered + self.forwarded
    }
}

/// Answers each line with [`Counts`] until there are no more.
#[expect(clippy::print_stdout, reason = "the answer")]
pub(crate) fn run(memory_mib: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let config = Config {
        listen: vec![Address::tcp([127, 0, 0, 1].into(), 0)],
        memory_mib,
        ..Config::default()
    };
    let secret = SecretKey::random(&mut OsEntropy.rng());
    let node = runtime.block_on(Node::builder(secret).config(config).start())?;
    let mut inbox = node.subscribe();
    let _application = runtime.spawn(async move { while inbox.recv().await.is_some() {} });
    println!("{}", node.peer_address());
    for line in std::io::stdin().lines() {
        line?;
        println!("{}", serde_json::to_string(&counts(&node))?);
    }
    Ok(())
}

fn counts(node: &Node) -> Counts {
    let stats = node.stats();
    Counts {
        received: stats.messages_received,
        delivered: stats.delivered,
        forwarded: stats.forwarded,
        answered: stats.answered,
        drops: stats
            .drops
            .iter()
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect(),
        unsent: stats.unsent,
        held_bytes: stats.memory_used_bytes,
        queued_bytes: stats.queued_bytes,
        connections: stats.connections,
    }
}

/// The node's process, seen from the other side.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) address: PeerAddress,
}

impl Process {
    pub(crate) fn start(memory_mib: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([FLAG, &memory_mib.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the node's process does not start")?;
        let stdin = child.stdin.take().context("no standard input")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
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

    /// Asks the node; it answers from outside its runtime, so this works while that is busy.
    pub(crate) fn counts(&mut self) -> anyhow::Result<Counts> {
        writeln!(self.stdin, "counts").context("the node has died")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).context("the node has died")
    }

    /// Memory in MiB as the kernel counts it: now, and the most so far. Zero where there is no /proc.
    pub(crate) fn resident_mb(&self) -> (f64, f64) {
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
