//! Accepting sockets.
//! docs/protocol/02-transport-and-connectivity.md sections 9.2 and 9.3.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dht_core::{Address, SourceGroup};
use dht_peers::Direction;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};

use super::{
    admission::{HandshakeSlot, Refusal},
    handle::Origin,
    liveness,
    upgrade::{Failed, Upgraded, WireMode},
};
use crate::{
    error::UpgradeError,
    event::ConnectionEvent,
    medium::{Accepted, Acceptor},
    metrics,
    state::State,
};

/// Pause after a failed accept: usually the process is out of file descriptors, and some are given back soon.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Panics in a row that a listener survives.
const MAX_ACCEPT_PANICS: u32 = 10;

/// Accepts until the transport stops. Never waits for a handshake. With a `group`, every connection counts for that one.
async fn accept(state: Arc<State>, mut acceptor: Box<dyn Acceptor>, group: Option<SourceGroup>) {
    let address = acceptor.local_address();
    let mut panics = 0;
    loop {
        let socket = accept_one(&state, &mut *acceptor, group);
        match state.tasks.panics().catch(socket).await {
            Some(true) => panics = 0,
            Some(false) => return,
            None if panics < MAX_ACCEPT_PANICS => {
                panics += 1;
                sleep(ACCEPT_BACKOFF).await;
            }
            None => {
                state
                    .announce(ConnectionEvent::ListenerFailed { address })
                    .await;
                return;
            }
        }
    }
}

/// False when the transport stops.
async fn accept_one(
    state: &Arc<State>,
    acceptor: &mut dyn Acceptor,
    group: Option<SourceGroup>,
) -> bool {
    let accepted = tokio::select! {
        biased;
        () = state.stopping.cancelled() => return false,
        accepted = acceptor.accept() => accepted,
    };
    match accepted {
        Ok(accepted) => match state
            .admission
            .admit(accepted.source, |most| state.may_make_room(most))
        {
            Ok(slot) => state
                .tasks
                .spawn(welcome(Arc::clone(state), accepted, slot, group)),
            Err(refusal) => state.refused(refusal),
        },
        Err(error) => {
            // Peers can cause it by connecting; the log has one such line in ten seconds.
            tracing::warn!(%error, "a socket was not accepted; is the limit of open files too low?");
            sleep(ACCEPT_BACKOFF).await;
        }
    }
    true
}

impl State {
    fn refused(&self, refusal: Refusal) {
        tracing::debug!(?refusal, "socket refused");
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        metrics::refused(refusal.name());
    }
}

/// One inbound socket, up to the connection or the end of it.
async fn welcome(
    state: Arc<State>,
    accepted: Accepted,
    slot: HandshakeSlot,
    group: Option<SourceGroup>,
) {
    let Accepted {
        socket,
        remote,
        source: from,
    } = accepted;
    let started = Instant::now();
    let deadline = started + state.config.upgrade_timeout;
    let evicted = slot.evicted.clone();
    let mut socket = socket.counted(Arc::clone(&state.wire));
    let upgrade = async {
        let limit = state.config.wire_byte_timeout;
        let limit = limit.min(state.config.upgrade_timeout);
        let mode = match state.upgrade.wire_mode(&mut socket, limit).await {
            Ok(mode) => mode,
            Err(error) => {
                if matches!(error, UpgradeError::WireByte(_)) {
                    // The end of our side first: what was not read would otherwise make a reset of it.
                    let _gone = timeout(limit, socket.shutdown()).await;
                }
                return Err(Failed { error, key: None });
            }
        };
        match mode {
            WireMode::Network => state
                .upgrade
                .inbound(socket, deadline)
                .await
                .map(Box::new)
                .map(Welcome::Peer),
            WireMode::Liveness { longest } => Ok(Welcome::Liveness(socket, longest)),
        }
    };
    let result = tokio::select! {
        biased;
        () = state.stopping.cancelled() => return,
        () = evicted.cancelled() => Err(Failed { error: UpgradeError::Timeout, key: None }),
        result = upgrade => result,
    };
    match result {
        Ok(Welcome::Peer(upgraded)) => {
            let of_address = || state.admission.group_of(&Address::tcp(from, 0));
            let group = group.or_else(of_address);
            let slot = match slot.promote(|most| state.can_make_room(most)) {
                Ok(slot) => slot,
                Err(refusal) => return state.refused(refusal),
            };
            let took = started.elapsed();
            let winner = state.adopt(*upgraded, Origin::Accepted, remote, group, slot, took);
            state.dials.on_inbound(&winner);
        }
        Ok(Welcome::Liveness(socket, longest)) => {
            drop(slot);
            let ranges = &state.config.liveness_sources;
            if !ranges
                .iter()
                .any(|range| range.contains(&from.to_canonical()))
            {
                return state.refused(Refusal::Liveness);
            }
            let Ok(_session) = Arc::clone(&state.liveness).try_acquire_owned() else {
                return state.refused(Refusal::Liveness);
            };
            tokio::select! {
                biased;
                () = state.stopping.cancelled() => {}
                _ended = liveness::echo(socket, longest) => {}
            }
        }
        Err(failed) => {
            metrics::upgrade_failed(Direction::Inbound);
            state
                .counters
                .inbound_failed
                .fetch_add(1, Ordering::Relaxed);
            state.upgrade.report(&failed, false);
            let Failed { error, key } = failed;
            state.tell(ConnectionEvent::InboundFailed {
                address: remote,
                public_key: key,
                error,
            });
        }
    }
}

enum Welcome {
    Peer(Box<Upgraded>),
    Liveness(crate::Socket, usize),
}

/// Binds and starts accepting. Returns the address with the real port.
pub(crate) async fn listen(
    state: &Arc<State>,
    address: &Address,
    group: Option<SourceGroup>,
) -> std::io::Result<Address> {
    let bind = timeout(state.config.connect_timeout, state.media.listen(address));
    let acceptor = bind.await.map_err(|_| std::io::ErrorKind::TimedOut)??;
    let local = acceptor.local_address();
    state
        .tasks
        .spawn(accept(Arc::clone(state), acceptor, group));
    Ok(local)
}
