//! Peers and bans.

use std::{collections::BTreeSet, io::ErrorKind, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};
use dht_core::{
    ClaimError, Features, MAX_CLAIM_SKEW_SECONDS, NodeId, PeerAddress, PublicKey, Severity,
    error_chain,
};
use dht_node::{PingError, SearchError};
use dht_peers::{Ban, BanOutcome, BanTarget, FOREVER, PeerFilter, PeerRecord};
use dht_transport::{DialError, IdentityError, StreamError, UpgradeError};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    super::{
        error::{ApiError, json},
        extract::{JsonBody, Name, Parameters, in_range},
        memory,
        state::Api,
    },
    messages::page,
};
use crate::types::{
    AllowList, AllowedPeer, BanEntry, BanList, DiscoverPeer, Done, ErrorBody, ErrorCode,
    MAX_BAN_SECONDS, NewBan, PeerEntry, PeerFound, PeerList, PingPeer, Pong, Version,
};

/// Kinds of addresses that a node dials.
const DIALLED: &str = "a node dials /ip4/IP/tcp/PORT, /ip6/IP/tcp/PORT and /dns4/NAME/tcp/PORT";

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ListQuery {
    /// Whether to list every known peer, not only those connected. Defaults to false.
    #[serde(default)]
    all: bool,
    /// Node id of the last peer of the page before; peers are listed by node id, from the next one.
    after: Option<String>,
    /// Most peers, 1 to 1 000. Defaults to 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Peers that are connected, or all that are known.
#[utoipa::path(
    get, path = "/v1/peers", tag = "peers", operation_id = "peers",
    params(ListQuery),
    responses(
        (status = 200, description = "Peers", body = PeerList),
        (status = "default", description = "No list", body = ErrorBody),
    )
)]
pub(in super::super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, now) = (page(query.limit)?, api.now());
    let after = query.after.map(|id| id.parse::<NodeId>()).transpose();
    let after = after.map_err(|_| ApiError::bad_request("`after` is no node id"))?;
    let memory = api.list_memory(limit).await;
    let directory = api.parts.node.directory();
    let connected = connected(&api);
    let everybody = PeerFilter::everybody(now);
    let records: Vec<_> = match (query.all, after) {
        (true, None) => directory.list(limit, &everybody),
        (true, Some(after)) => directory.list_after(&after, limit, &everybody),
        (false, after) => {
            let follows = |id: &&NodeId| after.is_none_or(|after| **id > after);
            let ids = connected.iter().filter(follows);
            let records = ids.filter_map(|id| directory.find(id));
            records.take(limit).collect()
        }
    };
    let peers = records
        .iter()
        .map(|record| entry(&api, record, connected.contains(record.node_id())))
        .collect();
    let list = PeerList {
        version: Version,
        peers,
        known: directory.len() as u64,
    };
    Ok(memory::list(memory, &list))
}

fn connected(api: &Api) -> BTreeSet<NodeId> {
    let peers = api.parts.node.peers();
    peers.iter().map(|peer| peer.node_id).collect()
}

fn entry(api: &Api, record: &PeerRecord, is_connected: bool) -> PeerEntry {
    let now = api.now();
    let order = record.dial_order(now);
    let last_failure = order
        .iter()
        .filter(|address| address.has_failed())
        .max_by_key(|address| address.last_attempt())
        .and_then(|address| address.last_failure());
    PeerEntry {
        node_id: *record.node_id(),
        public_key: *record.public_key(),
        is_connected,
        features: features(record.features()),
        addresses: order
            .iter()
            .map(|address| address.address.to_string())
            .collect(),
        user_agent: record.user_agent().to_owned(),
        last_seen_at: record.last_seen().map(|at| at.0),
        last_failure: last_failure.map(str::to_owned),
        is_seed: record.is_seed(),
        is_proven: record.is_proven(),
        is_anchor: api.parts.node.directory().is_anchor(record.node_id()),
        is_banned: record.is_banned(now),
        is_allowed: api.parts.node.directory().is_allowed(record.node_id()),
    }
}

fn features(features: Features) -> Vec<String> {
    features
        .iter_names()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect()
}

/// Record of one peer.
#[utoipa::path(
    get, path = "/v1/peers/{peer}", tag = "peers", operation_id = "peer",
    params(("peer" = String, Path, description = "Public key or node id of the peer")),
    responses(
        (status = 200, description = "The peer", body = PeerFound),
        (status = "default", description = "No such peer", body = ErrorBody),
    )
)]
pub(in super::super) async fn get(
    State(api): State<Arc<Api>>,
    Name(peer): Name,
) -> Result<Response, ApiError> {
    let record = record(&api, &peer)?;
    let is_connected = connected(&api).contains(record.node_id());
    let found = PeerFound {
        version: Version,
        peer: entry(&api, &record, is_connected),
    };
    Ok(json(StatusCode::OK, &found))
}

/// Forget a peer and close its connection. A ban of it stays; it is known again once it connects.
#[utoipa::path(
    delete, path = "/v1/peers/{peer}", tag = "peers", operation_id = "remove_peer",
    params(("peer" = String, Path, description = "Public key or node id of the peer")),
    responses(
        (status = 200, description = "The peer is not known any more", body = Done),
        (status = "default", description = "Not removed", body = ErrorBody),
    )
)]
pub(in super::super) async fn remove(
    State(api): State<Arc<Api>>,
    Name(peer): Name,
) -> Result<Response, ApiError> {
    let changed = match record(&api, &peer) {
        Ok(record) => api.parts.node.remove_peer(record.node_id()),
        Err(error) if error.body().error.code == ErrorCode::UnknownPeer => false,
        Err(error) => return Err(error),
    };
    let done = Done {
        version: Version,
        changed,
    };
    Ok(json(StatusCode::OK, &done))
}

fn record(api: &Api, peer: &str) -> Result<Arc<PeerRecord>, ApiError> {
    let id = target(peer)?.node_id();
    let record = api.parts.node.directory().find(&id);
    record.ok_or_else(|| ApiError::new(ErrorCode::UnknownPeer, "the peer is not known"))
}

/// Bans in force.
#[utoipa::path(
    get, path = "/v1/bans", tag = "peers", operation_id = "bans",
    responses(
        (status = 200, description = "Bans", body = BanList),
        (status = "default", description = "No list", body = ErrorBody),
    )
)]
pub(in super::super) async fn bans(State(api): State<Arc<Api>>) -> Response {
    let bans = api.parts.node.directory().banned(api.now());
    let memory = api.list_memory(bans.len()).await;
    memory::list(memory, &ban_list(bans.iter().map(|ban| &**ban)))
}

fn ban_list<'a>(bans: impl Iterator<Item = &'a Ban>) -> BanList {
    BanList {
        version: Version,
        bans: bans.map(ban_entry).collect(),
    }
}

pub(super) fn ban_entry(ban: &Ban) -> BanEntry {
    BanEntry {
        node_id: ban.node_id,
        public_key: ban.public_key,
        until: (ban.until != FOREVER).then_some(ban.until.0),
        offence: ban.offence.map(|offence| offence.rule().name.to_owned()),
        reason: ban.reason.to_string(),
    }
}

fn target(text: &str) -> Result<BanTarget, ApiError> {
    let parsed = match text.trim().len() {
        26 => text.parse::<NodeId>().map(BanTarget::from),
        _ => text.parse::<PublicKey>().map(BanTarget::from),
    };
    parsed.map_err(|error| {
        let cause = error_chain(&error);
        ApiError::bad_request(format!(
            "neither a public key of 64 nor a node id of 26 hexadecimal digits: {cause}"
        ))
    })
}

/// Ban a peer: its connection is closed, and none is made or taken while the ban is in force.
#[utoipa::path(
    post, path = "/v1/bans", tag = "peers", operation_id = "ban",
    request_body = NewBan,
    responses(
        (status = 200, description = "The ban in force, which ends later if an earlier one does", body = BanList),
        (status = "default", description = "Not banned", body = ErrorBody),
    )
)]
pub(in super::super) async fn ban(
    State(api): State<Arc<Api>>,
    JsonBody(ban, _memory): JsonBody<NewBan>,
) -> Result<Response, ApiError> {
    let (target, now) = (target(&ban.peer)?, api.now());
    let until = match ban.seconds {
        Some(seconds) => now.saturating_add(in_range("seconds", seconds, 1..=MAX_BAN_SECONDS)?),
        None => FOREVER,
    };
    let reason = ban.reason.as_deref().unwrap_or("banned by the operator");
    let directory = api.parts.node.directory();
    let conflict = |message| Err(ApiError::new(ErrorCode::Conflict, message));
    match directory.ban(target, until, Severity::High, reason, now) {
        BanOutcome::Banned(ban) => Ok(json(StatusCode::OK, &ban_list(std::iter::once(&*ban)))),
        BanOutcome::AllowListed => conflict("the peer is on the allow list"),
        BanOutcome::Ourselves => conflict("the peer is this node"),
        BanOutcome::AlreadyOver => conflict("the ban is over already"),
    }
}

/// Lift a ban.
#[utoipa::path(
    delete, path = "/v1/bans/{peer}", tag = "peers", operation_id = "lift_ban",
    params(("peer" = String, Path, description = "Public key or node id of the peer")),
    responses(
        (status = 200, description = "No ban is in force any more", body = Done),
        (status = "default", description = "Not lifted", body = ErrorBody),
    )
)]
pub(in super::super) async fn lift_ban(
    State(api): State<Arc<Api>>,
    Name(peer): Name,
) -> Result<Response, ApiError> {
    let changed = api.parts.node.directory().unban(target(&peer)?);
    let done = Done {
        version: Version,
        changed,
    };
    Ok(json(StatusCode::OK, &done))
}

/// The allow list.
#[utoipa::path(
    get, path = "/v1/allowed", tag = "peers", operation_id = "allowed",
    responses(
        (status = 200, description = "The allow list", body = AllowList),
        (status = "default", description = "No list", body = ErrorBody),
    )
)]
pub(in super::super) async fn allowed(State(api): State<Arc<Api>>) -> Response {
    let ids = api.parts.node.directory().allowed();
    let memory = api.list_memory(ids.len()).await;
    let allowed = ids.iter().map(|id| AllowedPeer {
        peer: id.to_string(),
    });
    let list = AllowList {
        version: Version,
        allowed: allowed.collect(),
    };
    memory::list(memory, &list)
}

/// Put a peer on the allow list, which the home keeps: a ban of it is lifted, and it is never banned. The list has at most 1 000 peers.
#[utoipa::path(
    post, path = "/v1/allowed", tag = "peers", operation_id = "allow",
    request_body = AllowedPeer,
    responses(
        (status = 200, description = "The peer is on the list", body = Done),
        (status = "default", description = "Not on the list", body = ErrorBody),
    )
)]
pub(in super::super) async fn allow(
    State(api): State<Arc<Api>>,
    JsonBody(AllowedPeer { peer }, _memory): JsonBody<AllowedPeer>,
) -> Result<Response, ApiError> {
    let done = Done {
        version: Version,
        changed: api.parts.node.allow(target(&peer)?.node_id()).await?,
    };
    Ok(json(StatusCode::OK, &done))
}

/// Take a peer off the allow list.
#[utoipa::path(
    delete, path = "/v1/allowed/{peer}", tag = "peers", operation_id = "disallow",
    params(("peer" = String, Path, description = "Public key or node id of the peer")),
    responses(
        (status = 200, description = "The peer is not on the list any more", body = Done),
        (status = "default", description = "Not taken off", body = ErrorBody),
    )
)]
pub(in super::super) async fn disallow(
    State(api): State<Arc<Api>>,
    Name(peer): Name,
) -> Result<Response, ApiError> {
    let done = Done {
        version: Version,
        changed: api.parts.node.disallow(&target(&peer)?.node_id()).await?,
    };
    Ok(json(StatusCode::OK, &done))
}

/// Search the network for a peer. Answers when it is found, or after the node's `discovery_seconds`.
#[utoipa::path(
    post, path = "/v1/discover", tag = "peers", operation_id = "discover",
    request_body = DiscoverPeer,
    responses(
        (status = 200, description = "Found", body = PeerFound),
        (status = "default", description = "Not found", body = ErrorBody),
    )
)]
pub(in super::super) async fn discover(
    State(api): State<Arc<Api>>,
    JsonBody(DiscoverPeer { public_key }, _memory): JsonBody<DiscoverPeer>,
) -> Result<Response, ApiError> {
    let node = &api.parts.node;
    let unknown = |message: String| ApiError::new(ErrorCode::UnknownPeer, message);
    node.discover(&public_key)
        .await
        .map_err(|error| search_failed(&api, &error, ErrorCode::UnknownPeer))?;
    let record = node.directory().find_by_key(&public_key);
    let record = record.ok_or_else(|| unknown("the peer was found and forgotten".to_owned()))?;
    let is_connected = connected(&api).contains(record.node_id());
    let found = PeerFound {
        version: Version,
        peer: entry(&api, &record, is_connected),
    };
    Ok(json(StatusCode::OK, &found))
}

/// Connect to a peer unless it is connected, and measure a round trip.
#[utoipa::path(
    post, path = "/v1/ping", tag = "peers", operation_id = "ping",
    request_body = PingPeer,
    responses(
        (status = 200, description = "Connected", body = Pong),
        (status = "default", description = "Not connected", body = ErrorBody),
    )
)]
pub(in super::super) async fn ping(
    State(api): State<Arc<Api>>,
    JsonBody(PingPeer { peer }, _memory): JsonBody<PingPeer>,
) -> Result<Response, ApiError> {
    let malformed = |error: dht_core::ParseError| ApiError::bad_request(error_chain(&error));
    let address: PeerAddress = if peer.contains("::") {
        let address = peer.parse().map_err(malformed)?;
        check_dialled(&address)?;
        address
    } else {
        PeerAddress {
            public_key: peer.parse().map_err(malformed)?,
            addresses: Vec::new(),
        }
    };
    let node_id = address.public_key.node_id();
    let pinged = api.parts.node.ping(&address).await;
    let measured = pinged.map_err(|error| ping_failed(&api, &node_id, &error))?;
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let pong = Pong {
        version: Version,
        node_id,
        was_connected: measured.dialled.is_none(),
        dial_micros: measured.dialled.map(micros),
        round_trip_micros: micros(measured.round_trip),
    };
    Ok(json(StatusCode::OK, &pong))
}

fn ping_failed(api: &Api, peer: &NodeId, error: &PingError) -> ApiError {
    let failed = ApiError::new(ErrorCode::PeerFailed, error_chain(error));
    let hint = match error {
        PingError::Search(error) => return search_failed(api, error, ErrorCode::PeerFailed),
        PingError::Dial(error) => advice(error).map(ToOwned::to_owned),
        PingError::Stream(StreamError::Refused) => skew(api, peer),
        _ => None,
    };
    match hint {
        Some(hint) => failed.with_hint(hint),
        None => failed,
    }
}

/// Refuses addresses that no node dials. Those in memory are for nodes of one process.
fn check_dialled(peer: &PeerAddress) -> Result<(), ApiError> {
    for address in &peer.addresses {
        match address.check_dialled() {
            Ok(()) | Err(ClaimError::AddressTestOnly) => {}
            Err(error) => {
                let message = format!("`peer` is at {address}, which nobody can dial: {error}");
                return Err(ApiError::bad_request(message).with_hint(DIALLED));
            }
        }
    }
    Ok(())
}

/// The error of a search; it says if there was nobody to ask.
fn search_failed(api: &Api, error: &SearchError, code: ErrorCode) -> ApiError {
    let is_unasked = matches!(error, SearchError::NotSent(_) | SearchError::NotFound(_));
    if is_unasked && api.parts.node.stats().connections == 0 {
        return ApiError::nobody_connected("no node is connected that could be asked");
    }
    ApiError::new(code, error_chain(error))
}

/// Skew of the clocks by the claim of a peer that refused this node. The peer signed it by its own clock before now.
fn skew(api: &Api, peer: &NodeId) -> Option<String> {
    let record = api.parts.node.directory().find(peer)?;
    let signed_at = u64::try_from(record.claim()?.signature.updated_at()).ok()?;
    let age = api.now().0.saturating_sub(signed_at);
    Some(if age > MAX_CLAIM_SKEW_SECONDS {
        let hours = age / (60 * 60);
        format!(
            "by the clock of this machine the peer signed its addresses {hours} hours ago: is the clock right, or ahead?"
        )
    } else {
        // An old claim does not prove that the peer's clock is still as it was.
        "by its last known claim the peer's clock is right: it may ban this node, or a clock has changed since"
            .to_owned()
    })
}

/// Advice on a dial that failed.
const fn advice(error: &DialError) -> Option<&'static str> {
    match error {
        DialError::Connect(ErrorKind::ConnectionRefused) => {
            Some("is the peer running, and is the port right?")
        }
        DialError::NoAddresses => Some(DIALLED),
        DialError::Upgrade(UpgradeError::WrongKey) => {
            Some("ask the peer for its address, as printed by: dht-node id --address")
        }
        DialError::Upgrade(
            UpgradeError::Noise(_) | UpgradeError::WireByte(_) | UpgradeError::Io(_),
        ) => Some("the other side ended the handshake: is it on the same network?"),
        DialError::Upgrade(UpgradeError::Identity(IdentityError::Io(_))) => {
            Some("the peer refused this node: it bans it, or the clock of this machine is wrong")
        }
        DialError::Upgrade(UpgradeError::Identity(IdentityError::Claim(
            ClaimError::NegativeTime | ClaimError::FromTheFuture | ClaimError::BadSignature,
        ))) => Some("are the clocks of both machines right?"),
        _ => None,
    }
}
