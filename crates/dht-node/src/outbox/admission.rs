//! How a message gets into the spool: callers wait while there is no room.

use dht_core::NodeId;
use dht_spool::{NewEntry, Outbox, Put, SpoolError};
use tokio::time::{Instant, timeout_at};

use super::{
    reachability::{ByReachability, Reachability, ReachabilityTracker},
    send_budget::SendBudget,
};

/// Puts an entry. While there is no room, waits until then; the callers of one recipient try again in turn: each
/// commit wakes the first of them.
///
/// # Cancel safety
/// Dropping the future may leave the entry in the spool, from where the worker takes it up.
pub(super) async fn put(
    spool: &Outbox,
    budgets: &ByReachability<SendBudget>,
    reachability: &ReachabilityTracker,
    entry: &NewEntry,
    until: Instant,
) -> Result<Put, SpoolError> {
    let recipient: NodeId = entry.recipient.node_id();
    let mut changes = spool.changes();
    let mut turn = None;
    loop {
        changes.mark_unchanged();
        let reachability = reachability.of(&recipient);
        let put = match reachability {
            Reachability::Reachable => spool.put(entry.clone()),
            Reachability::Unreachable => spool.put_for_absent(entry.clone()),
        };
        let refused = match put.await {
            Err(refused @ (SpoolError::Full | SpoolError::RecipientFull)) => refused,
            put => return put,
        };
        if turn.is_some() {
            let changed = timeout_at(until, changes.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(refused);
            }
        } else {
            turn = budgets
                .of(reachability)
                .acquire_retry(&recipient, until)
                .await;
            if turn.is_none() {
                return Err(refused);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use dht_core::test_util::{NOW, public_key};
    use dht_peers::Connections;
    use dht_spool::{EntryFilter, EntryOptions, OutboxConfig, Transition};

    use super::*;

    fn entry(number: u64) -> NewEntry {
        NewEntry {
            key: None,
            recipient: public_key(1),
            message_type: i32::try_from(number).unwrap(),
            payload: Bytes::new(),
            options: EntryOptions::default(),
            created_at: NOW,
            frame: None,
        }
    }

    /// Ten thousand callers wait for one recipient: each commit wakes one of them, and the first come first.
    #[tokio::test(start_paused = true)]
    async fn waiting_callers_try_in_turn() {
        const CALLERS: u64 = 10_000;
        let spool = Outbox::in_memory(OutboxConfig {
            max_rows: 64,
            ended_rows: 10_000,
            ..OutboxConfig::default()
        });
        let budgets = Arc::new(ByReachability::new(|| SendBudget::new(1 << 20)));
        let reachability = Arc::new(ReachabilityTracker::new(Connections::new()));
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..CALLERS {
            let (spool, budgets) = (spool.clone(), Arc::clone(&budgets));
            let reachability = Arc::clone(&reachability);
            callers.spawn(async move {
                let entry = entry(number);
                let recipient = entry.recipient.node_id();
                let _permit = budgets.unreachable.acquire(&recipient, 0).await.unwrap();
                let until = Instant::now() + Duration::from_secs(10);
                put(&spool, &budgets, &reachability, &entry, until).await
            });
        }
        let mut ended = 0;
        while ended < CALLERS {
            tokio::task::yield_now().await;
            let mut next = spool.list(EntryFilter::default(), Some(ended), 1).unwrap();
            let Some(entry) = next.pop() else {
                continue;
            };
            let ending = spool.update(entry.id, Transition::Received, NOW);
            ending.await.unwrap();
            ended = entry.id;
            let behind = u64::try_from(entry.message_type)
                .unwrap()
                .abs_diff(entry.id - 1);
            assert!(behind < 256, "{behind} behind");
        }
        while let Some(outcome) = callers.join_next().await {
            outcome.unwrap().unwrap();
        }
        let refused = spool.stats().refused;
        assert!(refused <= 4 * CALLERS, "{refused} refused");
    }
}
