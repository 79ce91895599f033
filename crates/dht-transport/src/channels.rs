//! The channels of the transport, as data.

use dht_stack::{Channel, WhenFull};

use crate::limits::{EVENT_CHANNEL_EVENTS, INBOUND_CHANNEL_MESSAGES};

/// Received messages. A reader that waits here stops reading, and the peer feels it.
pub(crate) const MESSAGES: Channel = Channel {
    name: "received messages",
    from: &[("readers", WhenFull::Wait)],
    to: "stacks",
    capacity: INBOUND_CHANNEL_MESSAGES,
};

/// Events of connections. Beginnings and ends wait for room, the others are shed.
pub(crate) const EVENTS: Channel = Channel {
    name: "connection events",
    from: &[("readers", WhenFull::Wait), ("dials", WhenFull::Wait)],
    to: "watcher",
    capacity: EVENT_CHANNEL_EVENTS,
};

/// Streams wanted on a connection. The task waits only for its socket.
pub(crate) const OPEN_REQUESTS: Channel = Channel {
    name: "streams to open",
    from: &[("peer queues", WhenFull::Wait)],
    to: "connections",
    capacity: 16,
};

/// Connections inside the process that wait for `accept`; further dials are refused, as a full TCP backlog does.
pub(crate) const BACKLOG: Channel = Channel {
    name: "memory connections",
    from: &[("dials", WhenFull::Shed)],
    to: "listeners",
    capacity: 128,
};

/// Every channel this crate makes. Streams of other protocols go to channels of their owners, and are shed there.
pub const CHANNELS: [&Channel; 4] = [&MESSAGES, &EVENTS, &OPEN_REQUESTS, &BACKLOG];
