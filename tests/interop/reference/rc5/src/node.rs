//! A node as an application of the reference implementation makes one.

use std::{path::Path, sync::Arc, time::Duration};

use prost::Message as _;
use serde_json::{Value, json};
use tari_comms::{
    CommsBuilder, CommsNode,
    connectivity::{ConnectivityEvent, ConnectivityEventRx},
    net_address::{MultiaddressesWithStats, PeerAddressSource},
    peer_manager::{NodeId, NodeIdentity, Peer, PeerFeatures, PeerFlags},
    pipeline::{self, SinkService},
    protocol::{
        NodeNetworkInfo, ProtocolId, messaging::MessagingProtocolExtension, rpc::RpcServer,
    },
    transports::TcpTransport,
    types::{CommsDatabase, CommsPublicKey, CommsSecretKey},
};
use tari_comms_dht::{
    DbConnectionUrl, Dht, DhtConfig,
    domain_message::MessageHeader,
    envelope::NodeDestination,
    event::DhtEventReceiver,
    inbound::DecryptedDhtMessage,
    outbound::{OutboundMessageRequester, SendMessageParams},
};
use tari_shutdown::Shutdown;
use tari_storage::{
    LMDBWrapper,
    lmdb_store::{LMDBBuilder, LMDBConfig},
};
use tari_utilities::hex::Hex as _;
use tokio::sync::{broadcast, mpsc};
use tower::ServiceBuilder;

use crate::{
    Result,
    control::{hash, print},
};

/// Messages between the node and this program.
const QUEUE: usize = 1_000;

pub struct Stock {
    pub comms: CommsNode,
    pub dht: Dht,
    shutdown: Shutdown,
}

impl Stock {
    /// Starts a node. Settings: `key`, `home`, `listen` (optional), `network` (a byte), `client`, `relay`,
    /// `discovery` (whether it asks peers for peers), `seeds` (`key`, `addresses`).
    pub async fn start(setup: &Value) -> Result<Self> {
        let home = Path::new(setup["home"].as_str().ok_or("no home")?);
        let listen = setup["listen"].as_str();
        let addresses = match &setup["claims"] {
            Value::Array(claims) => claims.iter().filter_map(Value::as_str).collect(),
            _ => Vec::from_iter(listen),
        };
        let addresses = addresses
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let features = match setup["client"].as_bool().unwrap_or(false) {
            true => PeerFeatures::COMMUNICATION_CLIENT,
            false => PeerFeatures::COMMUNICATION_NODE,
        };
        let secret = CommsSecretKey::from_hex(setup["key"].as_str().ok_or("no key")?)
            .map_err(|error| format!("{error:?}"))?;
        let identity = Arc::new(NodeIdentity::new(secret, addresses, features));
        identity.sign();

        let shutdown = Shutdown::new();
        let mut builder = CommsBuilder::new()
            .allow_test_addresses()
            .with_node_identity(Arc::clone(&identity))
            .with_node_info(NodeNetworkInfo {
                major_version: 0,
                minor_version: 0,
                network_byte: u8::try_from(setup["network"].as_u64().ok_or("no network")?)?,
                user_agent: setup["user_agent"]
                    .as_str()
                    .unwrap_or("stock/1.0.0-rc.5")
                    .into(),
            })
            .with_peer_storage(peer_storage(home)?, None)
            .with_shutdown_signal(shutdown.to_signal());
        if let Some(listen) = listen {
            builder = builder.with_listener_address(listen.parse()?);
        }
        let comms = builder.build()?;
        for seed in setup["seeds"].as_array().into_iter().flatten() {
            comms.peer_manager().add_peer(peer(seed)?).await?;
        }

        let mut config = DhtConfig::default_local_test();
        config.saf.auto_request = true;
        config.database_url = DbConnectionUrl::File(home.join("dht.sqlite"));
        config.network_discovery.enabled = setup["discovery"].as_bool().unwrap_or(false);
        config.discovery_request_timeout = Duration::from_secs(20);
        let (outbound, requests) = mpsc::channel(QUEUE);
        let dht = Dht::builder()
            .with_config(config)
            .with_outbound_sender(outbound)
            .build(
                identity,
                comms.peer_manager(),
                comms.connectivity(),
                shutdown.to_signal(),
            )
            .await?;
        let (inbox, messages) = mpsc::channel(QUEUE);
        let pipeline = pipeline::Builder::new()
            .max_concurrent_inbound_tasks(10)
            .with_outbound_pipeline(requests, {
                let dht = dht.clone();
                move |sink| {
                    ServiceBuilder::new()
                        .layer(dht.outbound_middleware_layer())
                        .service(sink)
                }
            })
            .with_inbound_pipeline(
                ServiceBuilder::new()
                    .layer(dht.inbound_middleware_layer())
                    .service(SinkService::new(inbox)),
            )
            .build();
        let (events, _) = broadcast::channel(QUEUE);
        let messaging = MessagingProtocolExtension::new(
            ProtocolId::from_static(b"t/msg/0.1"),
            events,
            pipeline,
        );
        let rpc = RpcServer::builder()
            .with_unlimited_simultaneous_sessions()
            .finish();
        let mut comms = comms
            .add_rpc_server(rpc.add_service(dht.rpc_service()))
            .add_protocol_extension(messaging)
            .spawn_with_transport(TcpTransport::new())
            .await?;
        if listen.is_some() {
            comms
                .connection_manager_requester()
                .wait_until_listening()
                .await?;
        }

        let relay = setup["relay"]
            .as_bool()
            .unwrap_or(false)
            .then(|| dht.outbound_requester());
        tokio::spawn(receive(messages, relay));
        tokio::spawn(connectivity(comms.subscribe_connectivity_events()));
        tokio::spawn(protocol(dht.subscribe_dht_events()));
        Ok(Self {
            comms,
            dht,
            shutdown,
        })
    }

    pub fn key(&self) -> String {
        self.comms.node_identity_ref().public_key().to_hex()
    }

    pub async fn stop(mut self) {
        self.shutdown.trigger();
        self.comms.wait_until_shutdown().await;
    }
}

/// A peer from its `key` and `addresses`.
pub fn peer(value: &Value) -> Result<Peer> {
    let key = key(&value["key"])?;
    let addresses = value["addresses"].as_array().into_iter().flatten();
    let addresses = addresses
        .filter_map(Value::as_str)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(Peer::new(
        key.clone(),
        NodeId::from_public_key(&key),
        MultiaddressesWithStats::from_addresses_with_source(addresses, &PeerAddressSource::Config),
        PeerFlags::NONE,
        PeerFeatures::COMMUNICATION_NODE,
        vec![],
        String::new(),
    ))
}

/// A public key in hexadecimal digits.
pub fn key(value: &Value) -> Result<CommsPublicKey> {
    let text = value.as_str().ok_or("no public key")?;
    CommsPublicKey::from_hex(text).map_err(|error| format!("{error:?}").into())
}

fn peer_storage(home: &Path) -> Result<CommsDatabase> {
    let store = LMDBBuilder::new()
        .set_path(home)
        .set_env_config(LMDBConfig::default())
        .set_max_number_of_databases(1)
        .add_database("peers", lmdb_zero::db::CREATE)
        .build()?;
    let peers = store.get_handle("peers").ok_or("no database of peers")?;
    Ok(LMDBWrapper::new(Arc::new(peers)))
}

/// Prints every message, and passes gossip on, byte for byte, as applications do.
async fn receive(
    mut messages: mpsc::Receiver<DecryptedDhtMessage>,
    relay: Option<OutboundMessageRequester>,
) {
    while let Some(message) = messages.recv().await {
        let Ok(body) = &message.decryption_result else {
            print(json!({ "event": "unreadable", "via": message.source_peer.public_key.to_hex() }));
            continue;
        };
        let header = body
            .decode_part::<MessageHeader>(0)
            .ok()
            .flatten()
            .unwrap_or_default();
        let payload = body.parts.get(1).cloned().unwrap_or_default();
        print(json!({
            "event": "message",
            "from": message.authenticated_origin.as_ref().map(|key| key.to_hex()),
            "via": message.source_peer.public_key.to_hex(),
            "type": header.message_type,
            "bytes": payload.len(),
            "hash": hash(&payload),
            "stored": message.is_saf_message,
        }));
        let is_gossip = message.dht_header.destination.is_unknown() && !message.is_encrypted();
        if let (Some(mut relay), true) = (relay.clone(), is_gossip) {
            let from = message.source_peer.node_id.clone();
            let params = SendMessageParams::new()
                .propagate(NodeDestination::Unknown, vec![from])
                .finish();
            let body = body.encode_to_vec();
            tokio::spawn(async move { relay.send_raw(params, body[..].into()).await.map(drop) });
        }
    }
}

async fn connectivity(mut events: ConnectivityEventRx) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        print(match event {
            ConnectivityEvent::PeerConnected(connection) => json!({
                "event": "connected",
                "peer": connection.peer_node_id().to_hex(),
                "direction": connection.direction().to_string(),
            }),
            ConnectivityEvent::PeerDisconnected(peer) => {
                json!({ "event": "disconnected", "peer": peer.to_hex() })
            }
            ConnectivityEvent::PeerConnectFailed(peer) => {
                json!({ "event": "dial_failed", "peer": peer.to_hex() })
            }
            ConnectivityEvent::PeerBanned(peer) => {
                json!({ "event": "banned", "peer": peer.to_hex() })
            }
            other => json!({ "event": "connectivity", "state": other.to_string() }),
        });
    }
}

async fn protocol(mut events: DhtEventReceiver) {
    loop {
        match events.recv().await {
            Ok(event) => print(json!({ "event": "dht", "what": format!("{event:?}") })),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
