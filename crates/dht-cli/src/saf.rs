//! `saf`: messages that a home stores for offline peers, and fetching those that other nodes store for it.

use clap::{Args, Subcommand};
use dht_api::{
    Client, Mailboxes,
    types::{
        Mailbox, MailboxList, Purge as Purging, Purged, StoreReport, StoreUsage, StoredMessage,
        StoredMessages, Version,
    },
};
use dht_core::{Clock as _, PublicKey, UnixSeconds, error_chain};
use dht_mailbox::{Store, StoreError};
use dht_node::{SystemClock, saf_folder};
use dht_saf::Ledger;

use crate::{
    exit::Failure,
    home::{DialingHome, Home},
    inbox::Ask,
    lock::Lock,
    number::number,
    output::{self, print},
    session::{Session, refused, running_or_lock},
    signals,
};

/// `dht-node saf`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dht-node saf stats --home a\n  \
        dht-node saf list --home a                      one line for each mailbox\n  \
        dht-node saf list --home a --recipient KEY      one line for each message\n  \
        dht-node saf purge --home a --expired\n  \
        dht-node saf fetch --home a --peer KEY::ADDR    messages that others store for it\n\n\
        If a node runs on the home, it answers; if none does, the command reads the files. Messages \
        stored for others are encrypted; no command shows their contents.")]
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
    /// Most lines to print, at least 1; a running node prints at most 1000.
    #[arg(long, default_value_t = 1000, allow_negative_numbers = true, value_parser = number::<u64>(1..=u64::from(u32::MAX)))]
    limit: u64,
    /// Print one JSON object with all of them.
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
        As `dht-node inbox fetch --ack`: a message is printed once.")]
struct Fetch {
    #[command(flatten)]
    home: DialingHome,
    #[command(flatten)]
    ask: Ask,
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
        let report = Stored::open(&self.home, "saf stats")
            .await?
            .report()
            .await?;
        let received = report.remembered.unwrap_or_default();
        let StoreUsage {
            messages,
            bytes,
            low_priority,
            mailboxes,
            disk_bytes,
            damaged,
        } = report.store.unwrap_or_default();
        print(if self.json {
            output::json(&report)?
        } else {
            format!(
                "messages      {messages}\nbytes         {bytes}\nlow priority  {low_priority}\n\
                mailboxes     {mailboxes}\ndisk bytes    {disk_bytes}\ndamaged       {damaged}\n\
                received      {received}"
            )
        })
        .await
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let stored = Stored::open(&self.home, "saf list").await?;
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let now = SystemClock.now();
        if let Some(key) = &self.recipient {
            let list = stored.messages(key, limit).await?;
            if self.json {
                return print(output::json(&list)?).await;
            }
            for row in list.messages {
                print(message(row, now)).await?;
            }
            return Ok(());
        }
        let list = stored.mailboxes(limit).await?;
        if self.json {
            return print(output::json(&list)?).await;
        }
        for row in &list.mailboxes {
            print(mailbox(row, now)).await?;
        }
        Ok(())
    }
}

impl Purge {
    async fn run(self) -> Result<(), Failure> {
        let What {
            all,
            expired,
            recipient,
        } = self.what;
        let what = Purging {
            all,
            expired,
            recipient,
        };
        let stored = Stored::open(&self.home, "saf purge").await?;
        let purged = stored.purge(&what).await?;
        print(if self.json {
            output::json(&purged)?
        } else {
            format!("purged {} messages", purged.purged)
        })
        .await
    }
}

impl Fetch {
    async fn run(self) -> Result<(), Failure> {
        let home = self.home.home();
        Session::with(&home, "saf fetch", Home::key, async |session| {
            self.ask.fetch_and_take(&home, session, self.json).await
        })
        .await
    }
}

/// Messages that a home stores for offline peers: asked of its node, or read from its files while none runs.
enum Stored<'a> {
    Running(Client),
    Files {
        home: &'a Home,
        store: Store,
        _lock: Lock,
    },
}

impl<'a> Stored<'a> {
    async fn open(home: &'a Home, command: &str) -> Result<Self, Failure> {
        if !home.exists() {
            home.key()?;
        }
        let folder = saf_folder(home.path());
        match running_or_lock(home, command).await? {
            Ok(client) => Ok(Self::Running(client)),
            Err(lock) => {
                let config = home.config()?.saf.store();
                let store = Store::open(folder, config).map_err(|error| failed(&error))?;
                Ok(Self::Files {
                    home,
                    store,
                    _lock: lock,
                })
            }
        }
    }

    /// Sizes, and the number of messages remembered as received.
    async fn report(&self) -> Result<StoreReport, Failure> {
        match self {
            Self::Running(client) => client.store().await.map_err(|error| refused(&error)),
            Self::Files { home, store, .. } => Ok(StoreReport {
                version: Version,
                store: Some(Mailboxes::new(store).usage()),
                inbox: None,
                outbox: None,
                remembered: Some(received(home)?),
            }),
        }
    }

    async fn mailboxes(&self, limit: usize) -> Result<MailboxList, Failure> {
        match self {
            Self::Running(client) => {
                let list = client.mailboxes(Some(limit.min(MAX_LINES))).await;
                list.map_err(|error| refused(&error))
            }
            Self::Files { store, .. } => {
                let list = Mailboxes::new(store).list(limit);
                list.map_err(|error| failed(&error))
            }
        }
    }

    async fn messages(&self, key: &PublicKey, limit: usize) -> Result<StoredMessages, Failure> {
        match self {
            Self::Running(client) => {
                let list = client.mailbox(key, Some(limit.min(MAX_LINES))).await;
                list.map_err(|error| refused(&error))
            }
            Self::Files { store, .. } => {
                let list = Mailboxes::new(store).messages(key, limit);
                list.map_err(|error| failed(&error))
            }
        }
    }

    /// Deletes messages for good.
    async fn purge(&self, what: &Purging) -> Result<Purged, Failure> {
        match self {
            Self::Running(client) => {
                let purged = client.purge(what).await;
                purged.map_err(|error| refused(&error))
            }
            Self::Files { store, .. } => {
                let purged = Mailboxes::new(store).purge(what, SystemClock.now()).await;
                store.close();
                purged.map_err(|error| failed(&error))
            }
        }
    }
}

/// Most lines that a running node answers with.
const MAX_LINES: usize = 1000;

/// Number of messages remembered as received.
fn received(home: &Home) -> Result<u64, Failure> {
    let path = dht_node::ledger_file(home.path());
    if !path.exists() {
        return Ok(0);
    }
    let ledger = Ledger::open(path).map_err(|error| failed(&error))?;
    Ok(ledger.received() as u64)
}

fn failed(error: &StoreError) -> Failure {
    Failure::other(error_chain(error))
}

fn mailbox(mailbox: &Mailbox, now: UnixSeconds) -> String {
    let Mailbox {
        recipient,
        messages,
        bytes,
        low_priority: low,
        ..
    } = mailbox;
    let age = |at: Option<u64>| at.map(|at| now.saturating_since(UnixSeconds(at)));
    let (oldest, newest) = (age(mailbox.oldest_at), age(mailbox.newest_at));
    let high = messages.saturating_sub(*low);
    format!(
        "{} messages {messages} bytes {bytes} low {low} high {high} oldest {} newest {}",
        recipient.as_deref().unwrap_or("(nobody)"),
        seconds(oldest),
        seconds(newest),
    )
}

fn message(row: StoredMessage, now: UnixSeconds) -> String {
    let (id, bytes) = (row.id, row.bytes);
    let age = now.saturating_since(UnixSeconds(row.stored_at));
    let left = UnixSeconds(row.keep_until).saturating_since(now);
    let priority = if row.low_priority { "low" } else { "high" };
    format!("{id} age {age}s left {left}s {priority} {bytes} bytes")
}

fn seconds(age: Option<u64>) -> String {
    age.map_or_else(|| "-".to_owned(), |age| format!("{age}s"))
}
