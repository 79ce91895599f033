//! Opens the files of a home, or what a node without one has in their place.

#[cfg(feature = "spool")]
use std::path::Path;
use std::path::PathBuf;

#[cfg(feature = "spool")]
use dht_core::Clock as _;
use dht_core::UnixSeconds;
use dht_spool::{Outbox, SpoolError};
use dht_stack::off_thread;

use crate::{builder::StartError, outbox};
#[cfg(feature = "spool")]
use crate::{
    config::Config,
    context::NodeContext,
    durable_inbox::{DurableInbox, inbox_file},
    home::Home,
    tasks::Tasks,
};

/// The snapshot of the dedup table in the home, read into the table.
#[cfg(feature = "spool")]
pub(super) async fn open_snapshot(
    home: Option<&Path>,
    shared: &NodeContext,
    tasks: &Tasks,
) -> Option<dht_dedup::SnapshotFile> {
    let now = shared.clock.now();
    let snapshot = dht_dedup::SnapshotFile::open(home?, &shared.dedup, now).await?;
    tasks.spawn("dedup snapshot", snapshot.clone().keep());
    Some(snapshot)
}

/// The durable inbox in the home.
#[cfg(feature = "spool")]
pub(super) async fn open_durable_inbox(
    home: Option<&Home>,
    config: &Config,
    shared: &NodeContext,
    tasks: &Tasks,
) -> Result<Option<DurableInbox>, StartError> {
    let Some(home) = home else {
        return Ok(None);
    };
    let opened = DurableInbox::open(home, config.inbox.clone(), shared).await;
    let durable_inbox = opened.map_err(|source| StartError::Inbox {
        path: home.folder().map(inbox_file).unwrap_or_default(),
        source,
    })?;
    tasks.spawn("inbox expiry", durable_inbox.clone().expire());
    tasks.spawn("inbox file", durable_inbox.inbox.failed());
    Ok(Some(durable_inbox))
}

/// The outbox in the home, or one in memory.
pub(super) async fn open_outbox(
    home: Option<PathBuf>,
    bytes: usize,
    now: UnixSeconds,
) -> Result<Outbox, StartError> {
    let path = home.clone().unwrap_or_default();
    let blocks = home.is_some();
    let opened = off_thread(blocks, move || outbox::open(home.as_deref(), bytes, now)).await;
    opened
        .unwrap_or(Err(SpoolError::Closed))
        .map_err(|source| StartError::Outbox { path, source })
}
