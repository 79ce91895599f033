//! Memory of a node in a process of its own, as the kernel counts it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::Context as _;
use dht_core::{Address, Entropy as _, Features, PeerAddress, SecretKey};
use dht_node::{Node, OsEntropy};

use crate::{
    report::{Report, Row},
    sample::{Effort, median},
};

/// The hidden flag that makes this program the measured node.
pub(crate) const CHILD_FLAG: &str = "--measured-node";

const PEERS: usize = 100;

pub(crate) fn run(report: &mut Report, effort: Effort) -> anyhow::Result<()> {
    // The kernel's figure is only to be had where /proc is.
    if !report.wants("node.") || resident_kib().is_none() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (mut idle, mut per_peer) = (Vec::new(), Vec::new());
    for _ in 0..effort.samples {
        let mut child = Measured::start()?;
        let before = child.resident_kib()?;
        idle.push(before / 1024.0);
        let peers = runtime.block_on(connect(&child.address))?;
        let after = child.resident_kib()?;
        per_peer.push((after - before) / PEERS as f64);
        runtime.block_on(async {
            for peer in peers {
                peer.shutdown().await;
            }
        });
    }
    let idle_row = Row::new(
        "node.idle_rss",
        "MiB",
        "resident memory of a node without peers",
    );
    report.row(idle_row, || median(idle));
    let peer_row = Row::new(
        "node.rss_per_peer",
        "KiB",
        "what one connected peer adds to it",
    );
    report.row(peer_row, || median(per_peer));
    Ok(())
}

async fn connect(to: &PeerAddress) -> anyhow::Result<Vec<Node>> {
    let mut peers = Vec::with_capacity(PEERS);
    for _ in 0..PEERS {
        let peer = Node::builder(SecretKey::random(&mut OsEntropy.rng()))
            .overlay(false)
            .features(Features::NODE)
            .start()
            .await?;
        peer.connect(to).await?;
        peers.push(peer);
    }
    Ok(peers)
}

/// A node in a process of its own, which says how large it is when asked.
struct Measured {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: PeerAddress,
}

impl Measured {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CHILD_FLAG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().parse()?;
        Ok(Self {
            child,
            stdin,
            stdout,
            address,
        })
    }

    fn resident_kib(&mut self) -> anyhow::Result<f64> {
        writeln!(self.stdin, "size")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // It also ends by itself when its standard input closes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The measured node: answers each line with its size until there are no more.
pub(crate) fn child() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let node = runtime.block_on(
        Node::builder(SecretKey::random(&mut OsEntropy.rng()))
            .overlay(false)
            .listen(Address::tcp([127, 0, 0, 1].into(), 0))
            .start(),
    )?;
    println!("{}", node.peer_address());
    for line in std::io::stdin().lines() {
        line?;
        println!("{}", resident_kib().unwrap_or(f64::NAN));
    }
    Ok(())
}

/// Resident memory of this process; `None` without /proc.
pub(crate) fn resident_kib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
