//! `inbox`: the received messages of a home.

mod printer;

use std::time::Duration;

use clap::{Args, Subcommand};
use dht_api::{
    Client,
    types::{DEFAULT_CONSUMER, FetchReport, NewConsumer, StartAt},
};
use dht_core::PeerAddress;
use tokio::time::timeout;

use self::printer::Printer;
pub(crate) use self::printer::{Print, follow};
use crate::{
    exit::Failure,
    home::{DialingHome, Home},
    number::number,
    output::{self, print, say},
    progress::shown,
    session::{Session, refused},
    settings::has_no_bootstrap,
    signals,
    target::dialled,
};

/// Messages of one page.
const PAGE: usize = 100;

/// `dht-node inbox`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  dht-node inbox --home a                   # what waits; it stays\n  \
    dht-node inbox --home a --ack --json      # takes what waits\n  \
    dht-node inbox --home a --follow --ack    # and what comes later\n  \
    dht-node inbox fetch --home a --peer KEY::ADDR    # asks other nodes first\n\n\
    With --ack, a message is acked once the reader of standard output has read its line: other messages come again, and \
    a closed standard output (1>&-) is refused. A node \
    need not run: without one, the command opens the inbox itself."
)]
pub(crate) struct Inbox {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the messages that wait, as `inbox` alone does.
    List(List),
    /// Ask other nodes for the messages that they store for this home, then print what waits.
    Fetch(Fetch),
    /// Print the consumers with the number of messages that each has not acked; add or remove one.
    Consumers(Consumers),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node inbox list --home a\n  dht-node inbox list --home a --consumer archive --ack --json"
)]
struct List {
    #[command(flatten)]
    home: Home,
    #[command(flatten)]
    read: Read,
    /// Wait for messages that come later, as well.
    #[arg(long)]
    follow: bool,
}

#[derive(Clone, Debug, Args)]
struct Read {
    /// Reader whose messages are printed: a message leaves the inbox once every consumer has acked it.
    #[arg(long, default_value = DEFAULT_CONSUMER, value_name = "NAME")]
    consumer: String,
    /// Ack each message once its line was read.
    #[arg(long)]
    ack: bool,
    #[command(flatten)]
    print: Print,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dht-node inbox fetch --home a --peer KEY::ADDR --ack")]
struct Fetch {
    #[command(flatten)]
    home: DialingHome,
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    read: Read,
}

/// Peers to ask for stored messages.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ask {
    /// Node to ask in addition to the configured peers.
    #[arg(long, value_name = "KEY::ADDR", value_parser = dialled)]
    peer: Vec<PeerAddress>,
    /// Give up after this many seconds, 1 to 300.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", allow_negative_numbers = true, value_parser = number::<u64>(1..=300))]
    timeout: u64,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dht-node inbox consumers --home a\n  dht-node inbox consumers --home a --add archive"
)]
struct Consumers {
    #[command(flatten)]
    home: Home,
    /// Add a consumer that begins with the oldest message.
    #[arg(long, value_name = "NAME", conflicts_with = "remove")]
    add: Option<String>,
    /// Remove a consumer, and the messages that only it had not acked.
    #[arg(long, value_name = "NAME")]
    remove: Option<String>,
    /// Print one JSON object with all of them.
    #[arg(long)]
    json: bool,
}

impl Inbox {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.command {
            None => self.list.run().await,
            Some(Command::List(list)) => list.run().await,
            Some(Command::Fetch(fetch)) => fetch.run().await,
            Some(Command::Consumers(consumers)) => consumers.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let read = &self.read;
        let reading = Session::with(&self.home, "inbox", Home::key, async |session| {
            if self.follow {
                follow(&session.client, &read.consumer, read.ack, &read.print).await
            } else {
                read.waiting(&session.client).await
            }
        });
        match reading.await {
            // That is how following ends.
            Err(failure) if self.follow && failure.is_interrupted() => Ok(()),
            outcome => outcome,
        }
    }
}

impl Read {
    /// Prints what waits.
    async fn waiting(&self, client: &Client) -> Result<(), Failure> {
        let mut printer = Printer::new(client, &self.consumer, self.ack, &self.print)?;
        let mut after = None;
        loop {
            let page = usize::try_from(printer.left)
                .unwrap_or(usize::MAX)
                .min(PAGE);
            if page == 0 {
                break;
            }
            let page = client.inbox(&self.consumer, after, Some(page)).await;
            let page = page.map_err(|error| refused(&error))?;
            for message in &page.messages {
                printer.take(message).await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        printer.finish().await
    }
}

impl Fetch {
    async fn run(self) -> Result<(), Failure> {
        let home = self.home.home();
        Session::with(&home, "inbox fetch", Home::key, async |session| {
            let report = self.ask.fetch(&home, session).await?;
            self.read.waiting(&session.client).await?;
            told(&report);
            Ok(())
        })
        .await
    }
}

impl Ask {
    /// Asks for stored messages, and waits until they are in the inbox.
    pub(crate) async fn fetch(
        &self,
        home: &Home,
        session: &Session,
    ) -> Result<FetchReport, Failure> {
        let limit = Duration::from_secs(self.timeout);
        let fetching = async {
            let config = home.config()?;
            if session.own.is_some() && has_no_bootstrap(&config) && self.peer.is_empty() {
                return Err(Failure::config(
                    "no node to ask; name one with --peer, or set peers or seeds in the configuration"
                        .to_owned(),
                ));
            }
            session.reach_configured(&config, &self.peer).await?;
            let fetched = session.client.fetch().await;
            fetched.map_err(|error| refused(&error))
        };
        let report = shown("asking for stored messages", timeout(limit, fetching)).await;
        let report = report.map_err(|_late| {
            Failure::unreachable(format!("not finished within {limit:?}; see --timeout"))
        })??;
        if report.answered == 0 {
            return Err(Failure::unreachable("no peer answered".to_owned()));
        }
        Ok(report)
    }

    /// Prints and acks what waits, then the counts, as `saf fetch` does.
    pub(crate) async fn fetch_and_take(
        &self,
        home: &Home,
        session: &Session,
        json: bool,
    ) -> Result<(), Failure> {
        let report = self.fetch(home, session).await?;
        let read = Read {
            consumer: DEFAULT_CONSUMER.to_owned(),
            ack: true,
            print: Print { json, count: None },
        };
        read.waiting(&session.client).await?;
        if json {
            return print(output::json(&report)?).await;
        }
        told(&report);
        Ok(())
    }
}

/// Messages go to standard output, the summary to standard error.
fn told(report: &FetchReport) {
    let FetchReport {
        asked,
        answered,
        new,
        known,
        ..
    } = report;
    let text = format!(
        "{new} new messages; {answered} of {asked} peers answered, {known} copies were known"
    );
    say(&text, signals::STOP_LIMIT);
}

impl Consumers {
    async fn run(self) -> Result<(), Failure> {
        Session::with(&self.home, "inbox consumers", Home::key, async |session| {
            let client = &session.client;
            let changed = match (&self.add, &self.remove) {
                (Some(name), _) => {
                    let consumer = NewConsumer {
                        name: name.clone(),
                        start: StartAt::Oldest,
                    };
                    client.add_consumer(&consumer).await.map(drop)
                }
                (None, Some(name)) => client.remove_consumer(name).await.map(drop),
                (None, None) => Ok(()),
            };
            changed.map_err(|error| refused(&error))?;
            let list = client.consumers().await;
            let list = list.map_err(|error| refused(&error))?;
            if self.json {
                return print(output::json(&list)?).await;
            }
            for consumer in &list.consumers {
                print(format!("{} {}", consumer.name, consumer.pending)).await?;
            }
            Ok(())
        })
        .await
    }
}
