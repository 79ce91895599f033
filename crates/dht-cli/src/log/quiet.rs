//! Limits warnings: what peers cause does not fill the log.

use std::{collections::HashMap, fmt, io::Write as _, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::{Layer, layer::Context};

use crate::output::LogWriter;

/// Interval in which one line of a kind is written.
const INTERVAL: Duration = Duration::from_secs(10);
/// Targets of lines that no peer causes. Lines of this binary name theirs, as its crate is called `dht_node` like
/// the library.
const UNLIMITED: [&str; 4] = [
    "dht_cli",
    "dht_node::configured",
    "dht_datafile",
    "dht_spool::disk",
];

/// Lets one warning or error of a kind pass every 10 s. A kind is a place in the code; what it leaves out is counted, and
/// reported with the next line of the kind. Lines below `warn` are those that the operator asked for, and pass.
#[derive(Default)]
pub(super) struct Quiet {
    /// One entry for each place in the code that has warned.
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

struct Kind {
    /// When the last line was written.
    written: Instant,
    /// Lines left out since then.
    left_out: u64,
}

impl Quiet {
    /// Lines of the kind that were left out before this one; `None` if this one is left out, too.
    fn admit(&self, kind: Identifier, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        let Some(kind) = kinds.get_mut(&kind) else {
            let first = Kind {
                written: now,
                left_out: 0,
            };
            kinds.insert(kind, first);
            return Some(0);
        };
        if now.saturating_duration_since(kind.written) < INTERVAL {
            kind.left_out = kind.left_out.saturating_add(1);
            return None;
        }
        kind.written = now;
        Some(std::mem::take(&mut kind.left_out))
    }
}

impl<S: Subscriber> Layer<S> for Quiet {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if !is_limited(metadata) {
            return true;
        }
        let admitted = self.admit(metadata.callsite(), Instant::now());
        if let Some(left_out @ 1..) = admitted {
            let _ = writeln!(LogWriter, "{left_out} lines as the next were left out");
        }
        admitted.is_some()
    }
}

fn is_limited(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of = |root: &&str| {
        let rest = target.strip_prefix(*root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    *metadata.level() <= Level::WARN && !UNLIMITED.iter().any(is_of)
}

impl fmt::Debug for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quiet")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Counts the events that arrive.
    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU32>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn peer_misbehaves() {
        tracing::warn!(target: "dht_saf", "one kind");
    }

    /// Lines written while `cause` happens ten times, and once more after the interval.
    async fn lines(cause: impl Fn()) -> (u32, u32) {
        let count = Count::default();
        let log = tracing_subscriber::registry()
            .with(Quiet::default())
            .with(count.clone());
        let _guard = tracing::subscriber::set_default(log);
        (0..10).for_each(|_| cause());
        let first = count.0.load(Ordering::Relaxed);
        tokio::time::advance(INTERVAL).await;
        cause();
        (first, count.0.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn warnings_are_written_every_interval() {
        assert_eq!(lines(peer_misbehaves).await, (1, 2));
        let two = || {
            peer_misbehaves();
            tracing::error!(target: "yamux", "another kind");
        };
        assert_eq!(lines(two).await, (2, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn other_lines_are_not_limited() {
        assert_eq!(
            lines(|| tracing::info!(target: "dht_saf", "asked for")).await,
            (10, 11)
        );
        assert_eq!(
            lines(|| tracing::warn!(target: "dht_cli::run", "operator's")).await,
            (10, 11)
        );
        let configured = || tracing::warn!(target: "dht_node::configured", "not reached");
        assert_eq!(lines(configured).await, (10, 11));
    }

    #[test]
    fn left_out_lines_are_counted() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let kind = || {
            static CALLSITE: tracing::callsite::DefaultCallsite =
                tracing::callsite::DefaultCallsite::new(&METADATA);
            static METADATA: Metadata<'static> = tracing::metadata! {
                name: "kind",
                target: "dht_saf",
                level: Level::WARN,
                fields: &[],
                callsite: &CALLSITE,
                kind: tracing::metadata::Kind::EVENT,
            };
            METADATA.callsite()
        };
        assert_eq!(quiet.admit(kind(), start), Some(0));
        assert_eq!(quiet.admit(kind(), start + INTERVAL / 2), None);
        assert_eq!(quiet.admit(kind(), start + INTERVAL / 2), None);
        assert_eq!(quiet.admit(kind(), start + INTERVAL), Some(2));
    }
}
