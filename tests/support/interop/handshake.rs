//! How a connection begins: the handshake of Noise and the identity messages, byte by byte.
//! docs/protocol/02-transport-and-connectivity.md section 4.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use data_encoding::BASE64;
use dht_core::{
    Address, Clock as _, Entropy as _, Features, Network, NodeIdentity, OsEntropy, PublicKey,
    SecretKey, SeededEntropy, SystemClock,
};
use dht_transport::{
    Medium as _, Socket, Tcp, encode_identity,
    noise::{self, NoiseStream},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    time::timeout,
};

use super::{
    control::{Command, Known, Role, Setup},
    peer::Peer,
    wire::Wire,
    world::World,
};

/// Seed of what the other side chooses at random: with it, what the node wrote can be decrypted again.
const SEED: u64 = 1;

/// Time for a handshake.
const LIMIT: Duration = Duration::from_secs(20);

/// Bytes that are on their way between the two sides.
const IN_FLIGHT: usize = 64 * 1024;

/// The start of a connection, as a node wrote it to a peer with the key of the other node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// Which node wrote it.
    pub by: Role,
    /// Whether the node dialled.
    pub dials: bool,
    /// All that it wrote, in base 64: the first byte if it dialled, its messages of Noise, and what is encrypted after them.
    written: String,
    /// Its identity message with the three bytes before it, decrypted, in base 64.
    identity: String,
}

impl Handshake {
    /// Has a stock node and one of ours dial, and be dialled. A stock node is connected to a peer with the identity of ours.
    ///
    /// # Errors
    /// That a node does not do it, or a stock node does not take the identity.
    pub(super) fn record(world: &World, stock: &Setup, ours: &Setup) -> anyhow::Result<Vec<Self>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        // Each node with a home of its own: none knows what another has heard.
        let start = |role, setup: &Setup| {
            let Setup { home, listen, .. } = world.setup();
            let setup = setup.clone();
            world.start(
                role,
                Setup {
                    home,
                    listen,
                    ..setup
                },
            )
        };
        let mut recorded = Vec::new();
        for (by, setup, other) in [(Role::Stock, stock, ours), (Role::Ours, ours, stock)] {
            let other: SecretKey = other.key.parse()?;
            for dials in [true, false] {
                let node = start(by, setup)?;
                let address = world.setup().listen.context("no address")?;
                let address: Address = address.parse()?;
                let handshake = Self::of(&node, dials, &other, &address);
                let handshake = runtime.block_on(async { timeout(LIMIT, handshake).await });
                let (handshake, channel) = handshake.context("no handshake")??;
                recorded.push(handshake);
                node.wait_connected_to(&other.public_key().node_id().to_string())?;
                drop(channel);
                node.stop()?;
            }
        }
        for handshake in recorded
            .iter()
            .filter(|handshake| handshake.by == Role::Ours)
        {
            let node = start(Role::Stock, stock)?;
            let identity = identity(ours.key.parse()?, Vec::new());
            let (address, frame) = (node.address()?, handshake.identity()?);
            let wire = runtime.block_on(Wire::introduce(&address, &identity, &frame))?;
            node.wait_connected_to(&identity.node_id().to_string())?;
            drop(wire);
            node.stop()?;
        }
        Ok(recorded)
    }

    async fn of(
        node: &Peer,
        dials: bool,
        other: &SecretKey,
        address: &Address,
    ) -> anyhow::Result<(Self, NoiseStream<DuplexStream>)> {
        let own = identity(other.clone(), vec![address.clone()]);
        let frame = encode_identity(0, &own.claim(), "wire/1", &[])?;
        let socket = if dials {
            let mut listener = Tcp.listen(address).await?;
            let key = own.public_key().to_string();
            node.ask(Command::Add(Known {
                key: key.clone(),
                addresses: vec![address.to_string()],
            }))?;
            node.tell(Command::Dial { key })?;
            listener.accept().await?.socket
        } else {
            let known = node.address()?;
            let address = known.addresses.first().context("the node has no address")?;
            Tcp.dial(address).await?
        };
        let written = Arc::new(Mutex::new(Vec::new()));
        let socket = copied(socket, Arc::clone(&written));
        let (channel, key, identity) = converse(socket, other, dials, &frame).await?;
        ensure!(key == *node.key(), "the node has another key");
        let written = BASE64.encode(&written.lock());
        let handshake = Self {
            by: node.role(),
            dials,
            written,
            identity: BASE64.encode(&identity),
        };
        Ok((handshake, channel))
    }

    /// The identity message with the three bytes before it.
    ///
    /// # Errors
    /// That it is no base 64.
    pub fn identity(&self) -> anyhow::Result<Vec<u8>> {
        Ok(BASE64.decode(self.identity.as_bytes())?)
    }

    /// Plays the other side again, with its secret key: the key of the node, and its identity message with the three bytes before it.
    ///
    /// # Errors
    /// That the other side does not understand the node.
    pub async fn replay(&self, other: &SecretKey) -> anyhow::Result<(PublicKey, Vec<u8>)> {
        let written = BASE64.decode(self.written.as_bytes())?;
        let socket = tokio::io::join(&*written, tokio::io::sink());
        let (_channel, key, identity) = converse(socket, other, self.dials, &[]).await?;
        Ok((key, identity))
    }
}

/// The side of the peer: writes this identity, and returns the channel, the key and the identity of the node.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    secret: &SecretKey,
    node_dials: bool,
    identity: &[u8],
) -> anyhow::Result<(NoiseStream<S>, PublicKey, Vec<u8>)> {
    let (entropy, byte) = (
        Arc::new(SeededEntropy::new(SEED)),
        Network::LocalNet.wire_byte(),
    );
    let (mut channel, key) = if node_dials {
        let first = socket.read_u8().await?;
        ensure!(first == byte, "the first byte is {first}");
        noise::respond(socket, secret, entropy).await?
    } else {
        noise::initiate(socket, secret, entropy, byte).await?
    };
    channel.write_all(identity).await?;
    channel.flush().await?;
    let mut frame = vec![0; 3];
    channel.read_exact(&mut frame).await?;
    let [_, low, high] = *frame.first_chunk().context("no length")?;
    let length = usize::from(u16::from_le_bytes([low, high]));
    frame.resize(3 + length, 0);
    let message = frame.get_mut(3..).context("no message")?;
    channel.read_exact(message).await?;
    Ok((channel, key, frame))
}

/// The other end of a socket, of which all that comes is kept as well.
fn copied(socket: Socket, kept: Arc<Mutex<Vec<u8>>>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(IN_FLIGHT);
    let (mut from_near, mut to_near) = tokio::io::split(far);
    let (mut from_socket, mut to_socket) = tokio::io::split(socket);
    tokio::spawn(async move {
        // Either side may hang up.
        let _ended = tokio::io::copy(&mut from_near, &mut to_socket).await;
        let _closed = to_socket.shutdown().await;
    });
    tokio::spawn(async move {
        let mut bytes = vec![0; IN_FLIGHT];
        while let Ok(read @ 1..) = from_socket.read(&mut bytes).await {
            let read = bytes.get(..read).unwrap_or_default();
            kept.lock().extend_from_slice(read);
            if to_near.write_all(read).await.is_err() {
                break;
            }
        }
    });
    near
}

fn identity(secret: SecretKey, claimed: Vec<Address>) -> NodeIdentity {
    let rng = &mut OsEntropy.rng();
    NodeIdentity::new(secret, Features::NODE, claimed, SystemClock.now(), rng)
}
