//! Conversations with stock nodes, frame by frame, for machines that have none: `cargo xtask interop --record`.
//!
//! The handshakes are all that either node wrote until its identity was read. Each frame is one envelope as the messaging protocol carries it, inside of Noise. Those of a stock node are as it sent them;
//! those of ours were sent to a stock node, which reported the message named beside it.

use std::path::Path;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use data_encoding::BASE64;
use dht_core::{Clock as _, MessageType, SecretKey, SystemClock};
use serde::{Deserialize, Serialize};

use super::{
    control::{Command, Form, Role, Send, Setup, fingerprint, payload},
    exchange::Streams,
    handshake::Handshake,
    peer::Peer,
    tap::Tap,
    world::{Version, World},
};
use crate::frames;

/// Conversation of a stock node and one of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// Version of the reference implementation.
    pub version: String,
    /// Time of the recording, in seconds since 1970.
    pub at: u64,
    /// Secret key of the stock node, in hexadecimal digits.
    pub stock: String,
    /// Secret key of our node, in hexadecimal digits.
    pub ours: String,
    /// Starts of connections, of either node.
    pub handshakes: Vec<Handshake>,
    /// The frames, in the order in which they were sent.
    pub frames: Vec<Frame>,
    /// Bytes of negotiation and of the peer-sync service, of the stock node.
    pub streams: Streams,
}

/// One frame, and what must come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Which node sent it.
    pub by: Role,
    /// Description, in words.
    pub what: String,
    /// The envelope, in base 64.
    envelope: String,
    /// The message that the application of the other node gets of it.
    pub message: Option<Content>,
}

impl Frame {
    /// The envelope.
    ///
    /// # Errors
    /// That it is no base 64.
    pub fn envelope(&self) -> anyhow::Result<Bytes> {
        Ok(BASE64.decode(self.envelope.as_bytes())?.into())
    }
}

/// A message that an application gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Whether the sender is authenticated.
    pub signed: bool,
    /// Length of the payload.
    pub bytes: usize,
    /// [`fingerprint`] of the payload.
    pub hash: String,
}

/// Forms and sizes that are recorded.
const FORMS: [(Form, &str); 5] = [
    (Form::Clear, "clear"),
    (Form::Signed, "signed"),
    (Form::Encrypted, "encrypted"),
    (Form::Broadcast, "broadcast"),
    (Form::Propagate, "propagate"),
];
const SIZES: [usize; 3] = [1, 100, 6_001];

impl Recording {
    /// Plays the conversation with a stock node and writes it down.
    ///
    /// # Errors
    /// That a node does not behave, or does not take a frame of ours.
    pub fn make(world: &World, version: &Version) -> anyhow::Result<Self> {
        let stores = version.is_v1();
        let (stock, ours) = (world.passive_setup(), world.passive_setup());
        let mut recording = Self {
            version: version.name.clone(),
            at: SystemClock.now().0,
            stock: stock.key.clone(),
            ours: ours.key.clone(),
            handshakes: Handshake::record(world, &stock, &ours)?,
            frames: Vec::new(),
            streams: Streams::of(&world.passive_node(Role::Stock)?, stores)?,
        };
        recording.hear_stock(world, &stock, &ours, stores)?;
        if stores {
            recording.ask_stock(world, &stock, &ours)?;
        }
        recording.tell_stock(world, &stock, &ours)?;
        Ok(recording)
    }

    /// Reads the recording in this file.
    ///
    /// # Errors
    /// That there is none.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(file).with_context(|| file.display().to_string())?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Writes the recording to a file.
    ///
    /// # Errors
    /// That it cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// Messages, a join and a discovery of a stock node, as our node gets them.
    fn hear_stock(
        &mut self,
        world: &World,
        stock: &Setup,
        ours: &Setup,
        stores: bool,
    ) -> anyhow::Result<()> {
        let stock = world.start(Role::Stock, stock.clone())?;
        let mut tap = Tap::start(ours.key.parse()?)?;
        tap.dial(&stock)?;
        let to = tap.identity().public_key().to_string();
        for (send, what) in sends(Role::Stock, &to) {
            stock.send(send.clone())?;
            let content = content(&send);
            self.add(Role::Stock, &what, &tap.next_but_saf()?, Some(content));
        }
        stock.ask(Command::Join)?;
        self.add(Role::Stock, "join", &tap.next_but_saf()?, None);
        let stranger = SecretKey::from_uniform_bytes(&[9; 64])?.public_key();
        stock.tell(Command::Discover {
            key: stranger.to_string(),
        })?;
        self.add(
            Role::Stock,
            "discovery of a third node",
            &tap.next_but_saf()?,
            None,
        );
        if stores {
            stock.ask(Command::Fetch)?;
            self.add(
                Role::Stock,
                "request for stored messages",
                &tap.frame()?,
                None,
            );
        }
        stock.stop()
    }

    /// The response of a stock node that stores messages for our node.
    fn ask_stock(&mut self, world: &World, stock: &Setup, ours: &Setup) -> anyhow::Result<()> {
        let holder = world.start(Role::Stock, stock.clone())?;
        let sender = world.passive_node(Role::Stock)?;
        let secret: SecretKey = ours.key.parse()?;
        let key = secret.public_key().to_string();
        {
            let away = Tap::start(secret)?;
            away.dial(&holder)?;
        }
        holder.wait_disconnected(
            &ours
                .key
                .parse::<SecretKey>()?
                .public_key()
                .node_id()
                .to_string(),
        )?;
        sender.dial(&holder)?;
        sender.ask(Command::Add(super::control::Known {
            key: key.clone(),
            addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
        }))?;
        sender.send(Send {
            form: Form::Closest,
            ..message(&key, Form::Encrypted, "stored ", 100)
        })?;
        let secret: SecretKey = ours.key.parse()?;
        let mut back = Tap::start(ours.key.parse()?)?;
        back.dial(&holder)?;
        // Whatever the node asks of us comes first.
        let request = dht_proto::encode(&dht_proto::store_forward::StoredMessagesRequest {
            since: 0,
            request_id: 77,
            limit: 50,
            continued: false,
        });
        let request = frames::clear_protocol(&secret, MessageType::SafRequestMessages, request)?;
        self.add(Role::Ours, "request for stored messages", &request, None);
        back.send(&holder, request)?;
        loop {
            let frame = back.frame()?;
            if frames::message_type(&frame) == Some(MessageType::SafStoredMessages) {
                self.add(Role::Stock, "response with stored messages", &frame, None);
                return Ok(());
            }
        }
    }

    /// Messages and a join of our node, which a stock node then takes.
    fn tell_stock(&mut self, world: &World, stock: &Setup, ours: &Setup) -> anyhow::Result<()> {
        let mut frames = Vec::new();
        {
            let mut tap = Tap::start(stock.key.parse()?)?;
            let node = world.start(Role::Ours, ours.clone())?;
            tap.dial(&node)?;
            let to = tap.identity().public_key().to_string();
            for (send, what) in sends(Role::Ours, &to) {
                node.send(send.clone())?;
                frames.push((what, tap.next_but_saf()?, Some(content(&send))));
            }
            node.ask(Command::Join)?;
            frames.push(("join".to_owned(), tap.next_but_saf()?, None));
        }
        let node = world.start(Role::Stock, stock.clone())?;
        let tap = Tap::start(ours.key.parse()?)?;
        tap.dial(&node)?;
        for (what, frame, content) in frames {
            tap.send(&node, frame.clone())?;
            if let Some(content) = &content {
                taken(&node, content, &tap.identity().public_key().to_string())
                    .with_context(|| what.clone())?;
            }
            self.add(Role::Ours, &what, &frame, content);
        }
        let bans = node.bans()?;
        ensure!(bans.is_empty(), "banned: {bans:?}");
        Ok(())
    }

    fn add(&mut self, by: Role, what: &str, envelope: &[u8], message: Option<Content>) {
        self.frames.push(Frame {
            by,
            what: what.to_owned(),
            envelope: BASE64.encode(envelope),
            message,
        });
    }
}

/// Waits until a node reports this message.
fn taken(node: &Peer, content: &Content, sender: &str) -> anyhow::Result<()> {
    let from = content.signed.then_some(sender);
    node.wait("to take the message", |events| {
        super::peer::messages(events)
            .any(|message| message.hash == content.hash && message.from.as_deref() == from)
    })
}

/// Payload that each of the two sends. Equal gossip of both would be one message.
fn sends(by: Role, to: &str) -> impl Iterator<Item = (Send, String)> {
    FORMS.into_iter().flat_map(move |(form, name)| {
        let label = match by {
            Role::Stock => name.to_owned(),
            Role::Ours => name.to_uppercase(),
        };
        SIZES.map(|bytes| {
            (
                message(to, form, &label, bytes),
                format!("{name}, {bytes} bytes"),
            )
        })
    })
}

fn message(to: &str, form: Form, label: &str, bytes: usize) -> Send {
    let is_gossip = matches!(form, Form::Broadcast | Form::Propagate);
    Send {
        form,
        to: (!is_gossip).then(|| to.to_owned()),
        label: label.to_owned(),
        bytes,
        count: 1,
        discover: false,
    }
}

fn content(send: &Send) -> Content {
    Content {
        signed: matches!(send.form, Form::Signed | Form::Encrypted),
        bytes: send.bytes,
        hash: fingerprint(&payload(&format!("{}0", send.label), send.bytes)),
    }
}
