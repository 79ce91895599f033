//! `saf`: messages that a home stores for offline peers, and fetching those that other nodes store for it.

use std::time::Duration;

use clap::{Args, Subcommand};
use dht_core::{Clock as _, PeerAddress, PublicKey, UnixSeconds};
use dht_mailbox::{Account, Recipient, Retention, RowInfo, Store, StoreError};
use dht_node::{FetchSummary, Node, SafEvent, SystemClock, saf_folder};
use dht_saf::Ledger;
use serde_json::{Value, json};

use crate::{
    exit::{Failure, chain},
    home::Home,
    listen,
    lock::Lock,
    log,
    output::{print, say},
    signals,
};

/// `dht-node saf`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dht-node saf stats --home a\n  \
        dht-node saf list --home a                      one line for each mailbox\n  \
        dht-node saf list --home a --recipient KEY      one line for each message\n  \
        dht-node saf purge --home a --expired\n  \
        dht-node saf fetch --home a --peer KEY::ADDR    messages that others store for it\n\n\
        Stop the node of the home first: while it runs, it has the files open and fetches and deletes by itself.\n\
        Messages stored for others are encrypted; no command shows their contents.")]
pub(crate) struct Saf {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print how many messages are stored for others.
    Stats(Stats),
    /// Print all mailboxes, or the messages of one mailbox: sizes, ages and priorities.
    List(List),
    /// Delete messages stored for others.
    Purge(Purge),
    /// Fetch the messages that other nodes store for this home, and print them as `listen` does.
    Fetch(Fetch),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node saf stats --home a\n  dht-node saf stats --home a --json"
)]
struct Stats {
    #[command(flatten)]
    home: Home,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node saf list --home a\n  dht-node saf list --home a --recipient KEY --limit 10"
)]
struct List {
    #[command(flatten)]
    home: Home,
    /// Print the messages of this mailbox instead of all mailboxes.
    #[arg(long, value_name = "KEY")]
    recipient: Option<PublicKey>,
    /// Most lines to print.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Print one JSON object for each line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dht-node saf purge --home a --expired\n  \
        dht-node saf purge --home a --recipient KEY\n  dht-node saf purge --home a --all")]
struct Purge {
    #[command(flatten)]
    home: Home,
    #[command(flatten)]
    what: What,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Delete every message.
    #[arg(long)]
    all: bool,
    /// Delete messages whose lifetime is over.
    #[arg(long)]
    expired: bool,
    /// Delete the messages of one mailbox.
    #[arg(long, value_name = "KEY")]
    recipient: Option<PublicKey>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dht-node saf fetch --home a\n  \
        dht-node saf fetch --home a --peer KEY::ADDR --json\n\n\
        A message is delivered once: what this command prints, the node of this home does not receive again.")]
struct Fetch {
    #[command(flatten)]
    home: Home,
    /// Node to ask in addition to the configured peers, as KEY::ADDR.
    #[arg(long, value_name = "PEER")]
    peer: Vec<PeerAddress>,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// Print one JSON object for each message, then one with counts.
    #[arg(long)]
    json: bool,
}

impl Saf {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Stats(stats) => signals::or_interrupted(stats.run()).await,
            Command::List(list) => signals::or_interrupted(list.run()).await,
            Command::Purge(purge) => signals::or_interrupted(purge.run()).await,
            Command::Fetch(fetch) => fetch.run().await,
        }
    }
}

impl Stats {
    async fn run(self) -> Result<(), Failure> {
        let (_lock, store) = open(&self.home, "saf stats")?;
        let (stats, received) = (store.stats(), received(&self.home)?);
        print(if self.json {
            json!({
                "messages": stats.rows, "bytes": stats.bytes, "low_priority": stats.low_rows,
                "mailboxes": stats.mailboxes, "disk_bytes": stats.disk_bytes, "damaged": stats.damaged, "received": received,
            })
            .to_string()
        } else {
            format!(
                "messages      {}\nbytes         {}\nlow priority  {}\nmailboxes     {}\ndisk bytes    {}\n\
                damaged       {}\nreceived      {received}",
                stats.rows,
                stats.bytes,
                stats.low_rows,
                stats.mailboxes,
                stats.disk_bytes,
                stats.damaged
            )
        })
        .await
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let (_lock, store) = open(&self.home, "saf list")?;
        let now = SystemClock.now();
        if let Some(key) = &self.recipient {
            let rows = store.list(Recipient::from(key), self.limit);
            for row in rows.map_err(|error| failed(&error))? {
                print(message(&row, now, self.json)).await?;
            }
            return Ok(());
        }
        let mailboxes = store.mailboxes(None, self.limit);
        for (recipient, account) in mailboxes.map_err(|error| failed(&error))? {
            let rows = usize::try_from(account.rows).unwrap_or(usize::MAX);
            let rows = store
                .list(recipient, rows)
                .map_err(|error| failed(&error))?;
            print(mailbox(recipient, &account, &rows, now, self.json)).await?;
        }
        Ok(())
    }
}

impl Purge {
    async fn run(self) -> Result<(), Failure> {
        let (_lock, store) = open(&self.home, "saf purge")?;
        let purged = self.what.purge(&store).await;
        // The deletion is durable before the command reports it.
        let closed = store.checkpoint().await;
        store.close();
        let purged = purged.and_then(|purged| closed.map(|()| purged));
        let purged = purged.map_err(|error| failed(&error))?;
        print(if self.json {
            json!({ "purged": purged }).to_string()
        } else {
            format!("purged {purged} messages")
        })
        .await
    }
}

impl What {
    async fn purge(&self, store: &Store) -> Result<u64, StoreError> {
        if self.expired {
            return store.expire(SystemClock.now()).await;
        }
        if let Some(key) = &self.recipient {
            return store.purge(Recipient::from(key)).await;
        }
        let mut purged = 0_u64;
        loop {
            let mailboxes = store.mailboxes(None, 256)?;
            if mailboxes.is_empty() {
                return Ok(purged);
            }
            for (recipient, _) in mailboxes {
                purged = purged.saturating_add(store.purge(recipient).await?);
            }
        }
    }
}

impl Fetch {
    async fn run(self) -> Result<(), Failure> {
        let settings = self.home.settings()?;
        log::set(settings.log.as_ref());
        let mut config = settings.node;
        let peers = std::mem::take(&mut config.peers);
        // This node only dials.
        config.listen.clear();
        if peers.is_empty() && self.peer.is_empty() {
            return Err(Failure::config(
                "no node to ask; name one with --peer, or set peers in the configuration"
                    .to_owned(),
            ));
        }
        let _lock = self.home.lock("saf fetch")?;
        let node = Node::builder(self.home.key_or_new()?)
            .config(config)
            .home(self.home.path())
            .start()
            .await
            .map_err(|error| listen::not_started(&error))?;
        let fetching = self.fetch(&node, peers.iter().chain(&self.peer));
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(Duration::from_secs(self.timeout), fetching) => {
                outcome.unwrap_or_else(|_| {
                    Err(Failure::unreachable("not finished in time; see --timeout".to_owned()))
                })
            }
            () = signals::stopped() => Err(Failure::interrupted()),
        };
        node.shutdown().await;
        let (summary, messages) = outcome?;
        signals::or_interrupted(self.report(&summary, messages)).await?;
        if summary.answered == 0 {
            return Err(Failure::unreachable("no peer answered".to_owned()));
        }
        Ok(())
    }

    async fn fetch(
        &self,
        node: &Node,
        peers: impl Iterator<Item = &PeerAddress>,
    ) -> Result<(FetchSummary, u64), Failure> {
        // From before the first connection, on which the node asks at once.
        let events = node.saf_events();
        let mut reached = 0_u32;
        for peer in peers {
            match node.connect(peer).await {
                Ok(()) => reached += 1,
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(peer = %peer.public_key.short(), error, "not reached");
                }
            }
        }
        let Some(mut events) = events.filter(|_| reached > 0) else {
            return Err(Failure::unreachable(
                "no peer was reached, or saf.enabled is off".to_owned(),
            ));
        };
        // The node requests from every peer that connects, into its inbox.
        let mut inbox = node.subscribe();
        let mut messages = 0;
        let mut summary = None;
        while summary.is_none_or(|summary: FetchSummary| messages < summary.new) {
            tokio::select! {
                received = inbox.recv() => match received {
                    Some(received) => {
                        print(listen::line(&received, self.json)).await?;
                        messages += 1;
                    }
                    None => break,
                },
                event = events.recv(), if summary.is_none() => match event {
                    Ok(SafEvent::CaughtUp(ended)) => summary = Some(ended),
                    Ok(_) => {}
                    Err(_) => break,
                },
            }
        }
        inbox.ack().await;
        summary
            .map(|summary| (summary, messages))
            .ok_or_else(|| Failure::other("the node stopped unexpectedly".to_owned()))
    }

    async fn report(&self, summary: &FetchSummary, messages: u64) -> Result<(), Failure> {
        if self.json {
            let counts = json!({
                "asked": summary.asked, "answered": summary.answered, "silent": summary.silent,
                "new": summary.new, "known": summary.known, "refused": summary.refused,
            });
            return print(json!({ "fetched": counts }).to_string()).await;
        }
        // Messages go to standard output, the summary to standard error.
        let text = format!(
            "{messages} messages; {} of {} peers answered, {} copies were known",
            summary.answered, summary.asked, summary.known
        );
        say(&text, signals::STOP_LIMIT);
        Ok(())
    }
}

/// Opens the store of a home whose node is not running.
fn open(home: &Home, command: &str) -> Result<(Lock, Store), Failure> {
    let folder = saf_folder(home.path());
    if !folder.exists() {
        return Err(Failure::config(format!(
            "nothing is stored in {}; has a node run with this --home?",
            home.path().display()
        )));
    }
    let config = home.config()?;
    let lock = home.lock(command)?;
    let store = Store::open(folder, config.saf.store()).map_err(|error| failed(&error))?;
    Ok((lock, store))
}

/// Number of messages remembered as received.
fn received(home: &Home) -> Result<usize, Failure> {
    let path = dht_node::ledger_file(home.path());
    if !path.exists() {
        return Ok(0);
    }
    let ledger = Ledger::open(path).map_err(|error| failed(&error))?;
    Ok(ledger.received())
}

fn failed(error: &StoreError) -> Failure {
    Failure::other(chain(error))
}

fn mailbox(
    recipient: Recipient,
    account: &Account,
    rows: &[RowInfo],
    now: UnixSeconds,
    as_json: bool,
) -> String {
    let age = |row: Option<&RowInfo>| row.map(|row| now.saturating_since(row.position.stored_at));
    let (oldest, newest) = (age(rows.first()), age(rows.last()));
    let name = (recipient != Recipient::ANONYMOUS).then(|| recipient.to_string());
    let high = account.rows.saturating_sub(account.low_rows);
    if as_json {
        return json!({
            "recipient": name, "messages": account.rows, "bytes": account.bytes,
            "low": account.low_rows, "high": high,
            "oldest_seconds": oldest, "newest_seconds": newest,
        })
        .to_string();
    }
    format!(
        "{} messages {} bytes {} low {} high {high} oldest {} newest {}",
        name.unwrap_or_else(|| "(nobody)".to_owned()),
        account.rows,
        account.bytes,
        account.low_rows,
        seconds(oldest),
        seconds(newest),
    )
}

fn message(row: &RowInfo, now: UnixSeconds, as_json: bool) -> String {
    let age = now.saturating_since(row.position.stored_at);
    let left = row.keep_until.saturating_since(now);
    let priority = match row.retention {
        Retention::Low => "low",
        Retention::High => "high",
    };
    let value: Value = json!({
        "id": row.position.id.0, "age_seconds": age, "left_seconds": left,
        "priority": priority, "bytes": row.bytes,
    });
    if as_json {
        return value.to_string();
    }
    format!(
        "{} age {age}s left {left}s {priority} {} bytes",
        row.position.id.0, row.bytes
    )
}

fn seconds(age: Option<u64>) -> String {
    age.map_or_else(|| "-".to_owned(), |age| format!("{age}s"))
}
