//! The process of a node, seen from the other side.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command as Process, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use dht_core::{NodeId, PeerAddress, PublicKey};
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use super::control::{
    Command, Event, Form, Known, Line, Message, Numbered, Reply, Role, Send, Sent, Setup,
    fingerprint, payload,
};

/// Events of a scenario that fail none, but should be known.
pub(super) type Notes = Mutex<Vec<String>>;

/// Time for anything that a node is told to do, and for what follows from it at others.
const LIMIT: Duration = Duration::from_secs(30);

/// More time for each message of many.
const LIMIT_EACH: Duration = Duration::from_millis(30);

/// Time between questions.
const AGAIN: Duration = Duration::from_millis(100);

/// A program that is a node.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub file: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// A running node.
#[derive(Debug)]
pub struct Peer {
    role: Role,
    notes: Arc<Notes>,
    child: Child,
    stdin: Mutex<Option<ChildStdin>>,
    log: Arc<Log>,
    setup: Setup,
    key: PublicKey,
    next: AtomicU64,
}

/// Output of a node.
#[derive(Debug, Default)]
struct Log {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    key: Option<String>,
    events: Vec<Event>,
    replies: HashMap<u64, Reply>,
    ended: bool,
}

impl Peer {
    /// Starts a node and waits until it listens.
    ///
    /// # Errors
    /// That it does not start.
    pub(super) fn start(
        role: Role,
        program: &Program,
        setup: Setup,
        notes: Arc<Notes>,
    ) -> anyhow::Result<Self> {
        let mut child = Process::new(&program.file)
            .args(&program.arguments)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", program.file.display()))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let log = Arc::<Log>::default();
        let reader = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                reader.add(&line);
            }
            reader.said.lock().ended = true;
            reader.more.notify_all();
        });
        writeln!(stdin, "{}", serde_json::to_string(&setup)?)?;
        let key = log
            .wait("to start", LIMIT, |said| said.key.clone())?
            .parse()?;
        Ok(Self {
            role,
            notes,
            child,
            stdin: Mutex::new(Some(stdin)),
            log,
            setup,
            key,
            next: AtomicU64::new(1),
        })
    }

    /// Which implementation it is of.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Its public key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Its node id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    /// How it was started.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Key and address of it, as others are told.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            key: self.key.to_string(),
            addresses: self.setup.listen.iter().cloned().collect(),
        }
    }

    /// Key and address of it.
    ///
    /// # Errors
    /// That it listens nowhere.
    pub fn address(&self) -> anyhow::Result<PeerAddress> {
        let address = self.setup.listen.as_ref().context("it listens nowhere")?;
        Ok(PeerAddress {
            public_key: self.key,
            addresses: vec![address.parse()?],
        })
    }

    /// Tells it to do something; the number is for [`answer`](Self::answer).
    ///
    /// # Errors
    /// That it has ended.
    pub fn tell(&self, command: Command) -> anyhow::Result<u64> {
        let id = self.next.fetch_add(1, Relaxed);
        let line = serde_json::to_string(&Numbered { id, command })?;
        let mut stdin = self.stdin.lock();
        let stdin = stdin.as_mut().context("it was told to stop")?;
        writeln!(stdin, "{line}").context("it has ended")?;
        Ok(id)
    }

    /// The answer to a command.
    ///
    /// # Errors
    /// That the command failed, or it does not answer.
    pub fn answer(&self, id: u64) -> anyhow::Result<Value> {
        self.answer_within(id, LIMIT)
    }

    fn answer_within(&self, id: u64, limit: Duration) -> anyhow::Result<Value> {
        let answered = |said: &mut Said| said.replies.remove(&id);
        let reply = self.log.wait("to answer", limit, answered)?;
        match reply.err {
            None => Ok(reply.ok),
            Some(error) => bail!("it answers: {error}"),
        }
    }

    /// Whether it has answered a command.
    #[must_use]
    pub fn has_answered(&self, id: u64) -> bool {
        self.log.said.lock().replies.contains_key(&id)
    }

    /// Tells it to do something and waits for the answer.
    ///
    /// # Errors
    /// That the command failed, or it does not answer.
    pub fn ask(&self, command: Command) -> anyhow::Result<Value> {
        let shown = format!("{command:?}");
        let answer = self.tell(command).and_then(|id| self.answer(id));
        answer.with_context(|| format!("{}: {shown}", self.key.short()))
    }

    /// Tells it where another node is, and has it dial that. Our node must do so at once. A stock node may dial a second time, as one
    /// that dials a node it remembers at the same moment gives up one of the dials, and now and then both; it is noted.
    ///
    /// # Errors
    /// That there is no connection.
    pub fn dial(&self, other: &Self) -> anyhow::Result<()> {
        self.ask(Command::Add(other.known()))?;
        let dial = || {
            let key = other.key.to_string();
            self.ask(Command::Dial { key })
        };
        let dialled = dial().or_else(|error| match self.role {
            Role::Ours => Err(error),
            Role::Stock => {
                let note = format!("a stock node dialled again: {error:#}");
                self.notes.lock().push(note);
                dial()
            }
        });
        if self.role == Role::Ours {
            dialled.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        }
        let connected = other
            .wait_connected(self)
            .and_then(|()| self.wait_connected(other));
        connected.with_context(|| match dialled {
            Ok(_) => "dialled".to_owned(),
            Err(error) => format!("{error:#}"),
        })
    }

    /// Waits until it is connected to another node.
    ///
    /// # Errors
    /// That it is not.
    pub fn wait_connected(&self, other: &Self) -> anyhow::Result<()> {
        self.wait_connected_to(&other.id().to_string())
    }

    /// Waits until it is connected to the node with this id.
    ///
    /// # Errors
    /// That it is not.
    pub fn wait_connected_to(&self, peer: &str) -> anyhow::Result<()> {
        self.wait("to be connected", |events| is_connected(events, peer))
    }

    /// Asks again and again until the answer fulfils a condition.
    ///
    /// # Errors
    /// That it does not.
    pub fn wait_answer(
        &self,
        command: Command,
        enough: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let mut answer = Value::Null;
        for _ in 0..LIMIT.as_millis() / AGAIN.as_millis() {
            answer = self.ask(command.clone())?;
            if enough(&answer) {
                return Ok(());
            }
            std::thread::sleep(AGAIN);
        }
        bail!(
            "{}: {command:?}: {answer} for {} s",
            self.key.short(),
            LIMIT.as_secs()
        )
    }

    /// Waits until it is not connected to the node with this id.
    ///
    /// # Errors
    /// That it is.
    pub fn wait_disconnected(&self, peer: &str) -> anyhow::Result<()> {
        self.wait("to be disconnected", |events| !is_connected(events, peer))
    }

    /// Sends messages, all of which must be sent. Of the nodes closest to a recipient, some may be offline.
    ///
    /// # Errors
    /// That one failed.
    pub fn send(&self, send: Send) -> anyhow::Result<()> {
        let (shown, count) = (format!("{send:?}"), send.count);
        let may_fail = send.form == Form::Closest;
        let limit = limit(count);
        let answer = self
            .tell(Command::Send(send))
            .and_then(|id| self.answer_within(id, limit));
        let answer = answer.with_context(|| format!("{}: {shown}", self.key.short()))?;
        let Sent {
            sent,
            failed,
            errors,
        } = serde_json::from_value(answer)?;
        ensure!(
            (may_fail || failed == 0) && sent >= count,
            "{}: {shown}: {sent} sent, {failed} failed {errors:?}",
            self.key.short()
        );
        Ok(())
    }

    /// Waits until it has received each of these messages, with the right sender, and checks that each came once.
    ///
    /// # Errors
    /// That one is missing, came twice, or is from somebody else.
    pub fn received(&self, send: &Send, sender: &Self) -> anyhow::Result<()> {
        self.received_from(send, &sender.key)
    }

    /// As [`received`](Self::received), from a node that may have ended.
    ///
    /// # Errors
    /// That one is missing, came twice, or is from somebody else.
    pub fn received_from(&self, send: &Send, sender: &PublicKey) -> anyhow::Result<()> {
        let is_signed = !matches!(send.form, Form::Clear | Form::Broadcast | Form::Propagate);
        let from = is_signed.then(|| sender.to_string());
        let expected: Vec<String> = (0..send.count)
            .map(|number| fingerprint(&payload(&format!("{}{number}", send.label), send.bytes)))
            .collect();
        let arrived = |events: &[Event]| -> HashMap<String, usize> {
            let mut arrived = HashMap::new();
            for message in messages(events) {
                if message.from == from && message.bytes == send.bytes {
                    *arrived.entry(message.hash.clone()).or_default() += 1;
                }
            }
            arrived
        };
        let all = |events: &[Event]| {
            let arrived = arrived(events);
            expected.iter().all(|hash| arrived.contains_key(hash))
        };
        let waited = self.wait_within("to receive", limit(send.count), all);
        let arrived = self.events(|events| arrived(events));
        let missing = expected
            .iter()
            .filter(|hash| !arrived.contains_key(*hash))
            .count();
        waited.with_context(|| {
            format!(
                "{missing} of {} are missing at {:?}: {send:?}",
                send.count, self.role
            )
        })?;
        let twice = expected
            .iter()
            .filter(|hash| arrived.get(*hash) != Some(&1))
            .count();
        ensure!(twice == 0, "{twice} came more than once: {send:?}");
        Ok(())
    }

    /// Checks that it has received no message.
    ///
    /// # Errors
    /// That it has.
    pub fn received_nothing(&self) -> anyhow::Result<()> {
        let received = self.events(|events| messages(events).count());
        ensure!(
            received == 0,
            "{}: {received} messages are not for it",
            self.key.short()
        );
        Ok(())
    }

    /// Waits until its events fulfil a condition.
    ///
    /// # Errors
    /// That they do not.
    pub fn wait(&self, what: &str, until: impl Fn(&[Event]) -> bool) -> anyhow::Result<()> {
        self.wait_within(what, LIMIT, until)
    }

    fn wait_within(
        &self,
        what: &str,
        limit: Duration,
        until: impl Fn(&[Event]) -> bool,
    ) -> anyhow::Result<()> {
        let met = |said: &mut Said| until(&said.events).then_some(());
        let found = self.log.wait(what, limit, met);
        found.with_context(|| self.key.short())
    }

    /// Looks at its events so far.
    pub fn events<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.log.said.lock().events)
    }

    /// The reasons of its bans.
    ///
    /// # Errors
    /// That it does not answer.
    pub fn bans(&self) -> anyhow::Result<Vec<Value>> {
        let bans = self.ask(Command::Bans)?;
        Ok(bans.as_array().cloned().unwrap_or_default())
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// That it does not end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.tell(Command::Stop)?;
        *self.stdin.lock() = None;
        self.log
            .wait("to stop", LIMIT, |said| said.ended.then_some(()))?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{}: {status}", self.key.short());
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It has ended already, or there is nothing more to be done.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Log {
    fn add(&self, line: &str) {
        let mut said = self.said.lock();
        match serde_json::from_str(line) {
            Ok(Line::Ready { ready }) => said.key = Some(ready.key),
            Ok(Line::Event(event)) => said.events.push(event),
            Ok(Line::Reply(reply)) => {
                said.replies.insert(reply.id, reply);
            }
            // Output of a library.
            Err(_) => {}
        }
        self.more.notify_all();
    }

    /// Waits until something is found in what the node has said.
    fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        find: impl Fn(&mut Said) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut said = self.said.lock();
        let mut found = None;
        let nothing = |said: &mut Said| {
            found = find(said);
            found.is_none() && !said.ended
        };
        self.more.wait_while_for(&mut said, nothing, limit);
        found.with_context(|| match said.ended {
            true => format!("it ended, and was {what}"),
            false => format!("waited {} s for it {what}", limit.as_secs()),
        })
    }
}

/// Time for this many messages.
fn limit(messages: u64) -> Duration {
    LIMIT + LIMIT_EACH * u32::try_from(messages).unwrap_or(u32::MAX)
}

/// The messages among events.
pub(super) fn messages(events: &[Event]) -> impl Iterator<Item = &Message> {
    events.iter().filter_map(|event| match event {
        Event::Message(message) => Some(message),
        _ => None,
    })
}

/// Whether the last that was heard of a peer is that it is connected.
fn is_connected(events: &[Event], peer: &str) -> bool {
    let changes = events.iter().rev().filter_map(|event| match event {
        Event::Connected { peer } => Some((peer, true)),
        Event::Disconnected { peer } => Some((peer, false)),
        _ => None,
    });
    let mut of_peer = changes.filter(|(of, _)| *of == peer);
    of_peer.next().is_some_and(|(_, connected)| connected)
}
