//! Commands: each an object with `id`, `do` and arguments, answered by one with the same `id`.

use std::{fmt, io::Write as _};

use prost::{
    DecodeError,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType},
};
use serde_json::{Value, json};
use tari_comms::{
    Minimized,
    connection_manager::RefKind,
    connectivity::ConnectivityRequester,
    peer_manager::{NodeId, PeerManager},
    types::CommsPublicKey,
};
use tari_comms_dht::{
    DhtDiscoveryRequester, DhtRequester,
    domain_message::OutboundDomainMessage,
    envelope::NodeDestination,
    outbound::{OutboundEncryption, OutboundMessageRequester, SendMessageParams},
};
use tari_utilities::hex::Hex as _;

use crate::{
    Result,
    node::{Stock, key, peer},
};

#[derive(Clone)]
pub struct Control {
    connectivity: ConnectivityRequester,
    peers: std::sync::Arc<PeerManager>,
    outbound: OutboundMessageRequester,
    dht: DhtRequester,
    discovery: DhtDiscoveryRequester,
}

impl Control {
    pub fn new(node: &Stock) -> Self {
        Self {
            connectivity: node.comms.connectivity(),
            peers: node.comms.peer_manager(),
            outbound: node.dht.outbound_requester(),
            dht: node.dht.dht_requester(),
            discovery: node.dht.discovery_service_requester(),
        }
    }

    pub async fn act(&mut self, command: &Value) -> Result<Value> {
        match command["do"].as_str().unwrap_or_default() {
            "add" => {
                self.peers.add_or_update_peer(peer(command)?).await?;
                Ok(Value::Null)
            }
            "dial" => {
                let connection = self
                    .connectivity
                    .dial_peer(node_id(&key(&command["key"])?), RefKind::Strong)
                    .await?;
                Ok(json!({ "direction": connection.direction().to_string() }))
            }
            "disconnect" => {
                let found = self
                    .connectivity
                    .get_connection(node_id(&key(&command["key"])?), RefKind::Weak)
                    .await?;
                found
                    .ok_or("not connected")?
                    .disconnect(Minimized::No, "driver")
                    .await?;
                Ok(Value::Null)
            }
            "join" => {
                self.dht.send_join().await?;
                Ok(Value::Null)
            }
            "discover" => {
                let key = key(&command["key"])?;
                let found = self
                    .discovery
                    .discover_peer(key.clone(), key.into())
                    .await?;
                let addresses = found.addresses.address_iter().map(ToString::to_string);
                Ok(json!({ "addresses": Vec::from_iter(addresses) }))
            }
            "fetch" => Err("this version has no stored messages".into()),
            "peers" => {
                let all = self.peers.all(None).await?;
                Ok(Vec::from_iter(all.iter().map(|peer| peer.public_key.to_hex())).into())
            }
            "connections" => {
                let active = self.connectivity.get_active_connections().await?;
                Ok(Vec::from_iter(
                    active
                        .iter()
                        .map(|connection| connection.peer_node_id().to_hex()),
                )
                .into())
            }
            "bans" => {
                let all = self.peers.all(None).await?;
                let banned = all.iter().filter(|peer| peer.is_banned());
                let banned = banned.map(|peer| json!({ "key": peer.public_key.to_hex(), "reason": peer.reason_banned() }));
                Ok(Vec::from_iter(banned).into())
            }
            "send" => self.send(command).await,
            other => Err(format!("no command is called {other:?}").into()),
        }
    }

    /// Sends `count` messages of `bytes` each and waits until the node knows what became of them.
    async fn send(&mut self, command: &Value) -> Result<Value> {
        let bytes = usize::try_from(command["bytes"].as_u64().unwrap_or(16))?;
        let label = command["label"].as_str().unwrap_or("x");
        let form = command["form"].as_str().unwrap_or_default();
        let (mut sent, mut failed, mut waiting) = (0, 0, Vec::new());
        for number in 0..command["count"].as_u64().unwrap_or(1) {
            let payload = Raw(payload(&format!("{label}{number}"), bytes));
            let message = OutboundDomainMessage::new(&7, payload);
            let params = recipients(form, command)?.finish();
            match self
                .outbound
                .send_message(params, message)
                .await?
                .resolve()
                .await
            {
                Ok(states) => waiting.push(states),
                Err(_) => failed += 1,
            }
        }
        for states in waiting {
            let (succeeded, lost) = states.wait_all().await;
            sent += succeeded.len();
            failed += lost.len();
        }
        Ok(json!({ "sent": sent, "failed": failed }))
    }
}

/// Which peers a message goes to, and in which form.
fn recipients(form: &str, command: &Value) -> Result<SendMessageParams> {
    let to = key(&command["to"]);
    let mut params = SendMessageParams::new();
    match form {
        "broadcast" => params.broadcast(vec![]),
        "propagate" => {
            let to = to.map_or(NodeDestination::Unknown, Into::into);
            params.propagate(to.clone(), vec![]).with_destination(to)
        }
        "clear" | "signed" | "encrypted" => params
            .direct_public_key(to?)
            .with_discovery(command["discover"] == true),
        "carried" => params.broadcast(vec![]),
        other => return Err(format!("no form is called {other:?}").into()),
    };
    match form {
        "signed" => {
            params.force_origin();
        }
        "encrypted" | "carried" => {
            let to = key(&command["to"])?;
            let encryption = OutboundEncryption::encrypt_for(to.clone());
            params
                .with_encryption(encryption)
                .with_destination(to.into());
        }
        _ => {}
    }
    Ok(params)
}

fn node_id(key: &CommsPublicKey) -> NodeId {
    NodeId::from_public_key(key)
}

/// Prints one line.
#[allow(clippy::needless_pass_by_value)]
pub fn print(value: Value) {
    let mut out = std::io::stdout().lock();
    // Nobody reads once the other side has ended.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// The content of a message: the label again and again, its bytes shifted by the round.
fn payload(label: &str, bytes: usize) -> Vec<u8> {
    let label = label.as_bytes();
    (0..bytes)
        .map(|at| label[at % label.len()].wrapping_add((at / label.len()) as u8))
        .collect()
}

/// FNV-1a of a payload.
pub fn hash(payload: &[u8]) -> String {
    let hash = payload
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

/// A payload that is no protobuf message.
#[derive(Default)]
struct Raw(Vec<u8>);

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl prost::Message for Raw {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _tag: u32,
        _wire_type: WireType,
        _buf: &mut impl Buf,
        _context: DecodeContext,
    ) -> Result<(), DecodeError> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
