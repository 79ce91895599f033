//! Two connections of one peer, of which one is to stay.

use std::{future::pending, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::time::timeout;

use super::{handle::Connection, table::Table};

/// Keeps the connection that lost the tie-break until the other one has shown that it works: the peer may have given that
/// one up, or be long gone.
pub(super) struct Contest {
    pub(super) winner: Arc<Connection>,
    pub(super) loser: Arc<Connection>,
    /// Time that the winner has to answer.
    pub(super) limit: Duration,
}

impl Contest {
    /// Lets the loser go once the winner has answered; closes the winner if only the loser answers in time, and returns the
    /// loser, which counts then. When the winner ends, the table decides.
    pub(super) async fn run(self, table: &Table) -> Option<Arc<Connection>> {
        let Self {
            winner,
            loser,
            limit,
        } = self;
        let mut is_loser_alive = false;
        let answer = async {
            let loser_answers = async {
                loser.probe().await;
                is_loser_alive = true;
            };
            tokio::select! {
                biased;
                () = winner.probe() => {}
                () = loser_answers.then(|()| pending()) => {}
            }
        };
        let answered = tokio::select! {
            biased;
            () = winner.closed() => return None,
            answered = timeout(limit, answer) => answered.is_ok(),
        };
        if answered || !is_loser_alive {
            table.retire_standby(&winner);
            return None;
        }
        table.take_over(&loser).then(|| {
            tracing::debug!(peer = %winner.node_id(), "connection is silent, another takes its place");
            winner.close(false);
            loser
        })
    }
}
