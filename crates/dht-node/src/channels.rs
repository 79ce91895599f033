//! The channels of a node as data: senders, receiver, capacity, and what happens when they are full (law 2).

use dht_stack::{Channel, WhenFull};

/// Messages of one deliverer queued for one subscriber. A full queue holds back the peers that send: the inbound worker waits
/// with the message's memory, and without memory the reader of a peer's stream stops (law 2).
pub const INBOX_CAPACITY: usize = 256;

/// Events queued for one subscriber. A slower subscriber loses the oldest and is told how many.
pub const EVENT_CAPACITY: usize = 1_024;

/// Requests for the outbound pipeline: no channel but the room of [`dht_outbound::Outbound`]. Parts of the node are refused,
/// the least important first; the application waits.
const REQUESTS: Channel = Channel {
    name: "send requests",
    from: &[
        ("stacks", WhenFull::Shed),
        ("searches", WhenFull::Shed),
        ("application", WhenFull::Wait),
    ],
    to: "pipeline",
    capacity: dht_outbound::MAX_REQUESTS,
};

/// Messages of the application that are in the outbox since a moment. Each sender holds one of its places.
pub(crate) const SENDS: Channel = Channel {
    name: "sends",
    from: &[("application", WhenFull::Wait)],
    to: "outbox",
    capacity: 64,
};

/// Messages for one subscriber: no channel but the queue of `inbox/queue.rs`. A stack that waits here holds the message's memory,
/// which holds back the peer that sent it.
pub(crate) const INBOX: Channel = Channel {
    name: "inbox",
    from: &[("stacks", WhenFull::Wait)],
    to: "application",
    capacity: INBOX_CAPACITY,
};

/// Events for the application.
pub(crate) const EVENTS: Channel = Channel {
    name: "events",
    from: &[
        ("stacks", WhenFull::DropOldest),
        ("peer queues", WhenFull::DropOldest),
    ],
    to: "application",
    capacity: EVENT_CAPACITY,
};

/// Streams on which peers ask for receipts; the transport resets further ones.
#[cfg(feature = "saf")]
pub(crate) const RECEIPT_STREAMS: Channel = Channel {
    name: "receipt streams",
    from: &[("readers", WhenFull::Shed)],
    to: "receipts",
    capacity: 64,
};

/// Streams on which peers ask for peers; the transport resets further ones.
#[cfg(feature = "overlay")]
pub(crate) const SYNC_STREAMS: Channel = Channel {
    name: "peer-sync streams",
    from: &[("readers", WhenFull::Shed)],
    to: "peer-sync service",
    capacity: 64,
};

/// Peers that connect and disconnect. What is lost is seen when the overlay next looks.
#[cfg(feature = "overlay")]
pub(crate) const OVERLAY_EVENTS: Channel = Channel {
    name: "overlay events",
    from: &[("watcher", WhenFull::Shed), ("stacks", WhenFull::Shed)],
    to: "overlay",
    capacity: 256,
};

/// Every channel of a node, for a program that adds channels of its own to look for [circles](dht_stack::waiting_cycle). Its
/// stage `application` is the program.
#[must_use]
pub fn channels() -> Vec<&'static Channel> {
    let mut all = vec![&REQUESTS, &SENDS, &INBOX, &EVENTS];
    #[cfg(feature = "saf")]
    all.extend([&RECEIPT_STREAMS, &dht_saf::RECEIPT_QUESTIONS]);
    #[cfg(feature = "overlay")]
    all.extend([&SYNC_STREAMS, &OVERLAY_EVENTS]);
    all.extend(dht_transport::CHANNELS);
    all
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use dht_stack::waiting_cycle;

    use super::*;

    /// With every channel full, some task can still move.
    #[test]
    fn channels_have_no_waiting_cycle() {
        assert_eq!(waiting_cycle(&channels()), None);
        // The test would notice: a pipeline that waited for the stacks would close the circle.
        const ECHO: Channel = Channel {
            name: "echo",
            from: &[("pipeline", WhenFull::Wait)],
            to: "readers",
            capacity: 1,
        };
        let mut with_echo = channels();
        with_echo.push(&ECHO);
        let cycle = waiting_cycle(&with_echo).unwrap();
        assert_eq!(cycle, ["application", "pipeline", "readers", "stacks"]);
    }

    /// Sources of every crate, without their tests.
    fn sources() -> Vec<(String, String)> {
        fn collect(folder: &Path, into: &mut Vec<(String, String)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() && name != "tests" {
                    collect(&path, into);
                } else if name.ends_with(".rs") && !name.contains("test") {
                    let text = fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
                    into.push((path.display().to_string(), code.to_owned()));
                }
            }
        }
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir(crates).unwrap() {
            collect(&entry.unwrap().path().join("src"), &mut found);
        }
        found
    }

    /// The declarations are all there is: no code makes a channel by itself, and each declaration is used.
    #[test]
    fn every_channel_is_declared() {
        let sources = sources();
        assert!(sources.len() > 100, "the sources are not where they were");
        let raw = [
            "mpsc::channel",
            "broadcast::channel",
            "unbounded_channel",
            "sync_channel(",
        ];
        for (path, code) in &sources {
            let code = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let makes = code.filter(|line| raw.iter().any(|call| line.contains(call)));
            let allowed = path.ends_with("dht-stack/src/channel.rs");
            let found: Vec<_> = makes.collect();
            assert!(
                found.is_empty() || allowed,
                "{path} makes a channel nobody declared: {found:?}"
            );
        }
        let opened = |name: &str| {
            let call = format!("{name}.open");
            sources.iter().any(|(_, code)| code.contains(&call))
        };
        for name in [" LINES", " LOG_LINES"] {
            assert!(opened(name), "{name} is not used");
        }
        for name in [
            "SENDS",
            "EVENTS",
            "RECEIPT_STREAMS",
            "SYNC_STREAMS",
            "OVERLAY_EVENTS",
        ] {
            assert!(opened(&format!("channels::{name}")), "{name} is not used");
        }
        for name in ["MESSAGES", "EVENTS", "OPEN_REQUESTS", "BACKLOG"] {
            assert!(opened(&format!("channels::{name}")), "{name} is not used");
        }
    }
}
