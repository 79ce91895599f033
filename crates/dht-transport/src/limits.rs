//! Every bound of the transport, with its unit and its reason.
//!
//! Numbers that a peer can observe come from docs/protocol/02-transport-and-connectivity.md; the section is
//! named at each. Those marked *setting* are defaults of a [`Config`](crate::Config) field.
//!
//! # What one connection can hold
//!
//! | Memory | At most | Charged to |
//! |---|---|---|
//! | read ahead from the socket | [`READ_AHEAD_BYTES`] | nobody; given back when idle |
//! | unread frames in streams | [`FREE_UNREAD_BYTES`] | nobody |
//! | | [`MAX_UNREAD_BYTES`] in all | [`Config::max_unread_bytes_total`](crate::Config::max_unread_bytes_total) |
//! | a message being received, and those not disposed of | its length and [`MESSAGE_OVERHEAD_BYTES`] | the node's byte budget |
//! | messages waiting to be sent, until the socket took them | [`MAX_QUEUED_BYTES`] | [`Config::max_queued_bytes_total`](crate::Config::max_queued_bytes_total) |
//! | copies of them on their way: one batch of 64 KiB, and what streams wrote | [`MAX_OUTGOING_BYTES`], twice that for a moment | nobody; only while messages go out |
//! | answers of the multiplexer on their way | [`MAX_ANSWER_BYTES`] | nobody |

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use dht_stack::Rate;
use ipnet::IpNet;

/// Time a dialler has to send the network byte (02 section 4.1). *Setting.*
pub const WIRE_BYTE_TIMEOUT: Duration = Duration::from_secs(6);

/// Time to wait for each Noise handshake message (02 section 4.2).
pub const NOISE_RECEIVE_TIMEOUT: Duration = Duration::from_secs(6);

/// Time to wait for the remote's identity message (02 section 4.3).
pub const IDENTITY_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit over a whole upgrade, from the connected socket to the verified identity (02 section 16). Below the
/// sum of the steps, so that a peer cannot use up every step. *Setting.*
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(15);

/// Limit of one transport dial: name lookup and connect (02 section 16 gives 60 s; a peer that takes longer than
/// ten is of no use to a message). *Setting.*
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit of one transport dial through a proxy: an onion service is reached over six relays, which may take most of a
/// minute. A dial that a peer causes has [`CONNECT_TIMEOUT`]. *Setting.*
#[cfg(feature = "socks")]
pub const PROXY_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Time after which the next address of a peer is dialled beside the first (02 section 17, 19). *Setting.*
pub const DIAL_STAGGER: Duration = Duration::from_millis(300);

/// Addresses of one peer that a dial tries at most. A claim holds five, a record ten (02 section 11.4).
pub const MAX_DIAL_ADDRESSES: usize = 10;

/// Most addresses of one name that are tried: the peer that claims the name decides how many it has.
pub const MAX_RESOLVED_ADDRESSES: usize = 4;

/// Sockets in the unauthenticated phase at once (02 section 9.2). Above it the oldest makes room. *Setting.*
pub const MAX_HANDSHAKES: usize = 100;

/// Connections in all (02 section 16). *Setting.*
pub const MAX_CONNECTIONS: usize = 500;

/// Connections above [`MAX_CONNECTIONS`] that only dials of the operator and of the application may use: neither inbound
/// connections nor what peers have this node dial can shut it in.
pub const OUTBOUND_RESERVE: usize = 32;

/// Part of [`OUTBOUND_RESERVE`] that only dials of the operator may use.
pub const OPERATOR_RESERVE: usize = 8;

/// Inbound connections above [`MAX_CONNECTIONS`] while others make room for them.
pub const EVICTION_OVERLAP: usize = 16;

/// Fraction of [`MAX_CONNECTIONS`] that dials of the overlay may hold: one in this many.
pub const OVERLAY_SHARE: usize = 4;

/// Fraction of [`MAX_CONNECTIONS`] that dials may hold which peers cause: one in this many.
pub const PEER_SHARE: usize = 8;

/// Dials of the operator at one time; more wait.
pub const MAX_OPERATOR_DIALS: usize = 32;

/// Dials of the application at one time; more wait.
pub const MAX_APPLICATION_DIALS: usize = 64;

/// Dials of the overlay at one time; more wait.
pub const MAX_OVERLAY_DIALS: usize = 32;

/// Dials at one time that peers cause; more are refused.
pub const MAX_PEER_DIALS: usize = 16;

/// Dials at one time of what was announced on a local network; more are refused.
pub const MAX_LAN_DIALS: usize = 2;

/// Connections to what was announced on a local network, also of a node with many slots: anybody there may announce any number
/// of keys.
pub const MAX_LAN_CONNECTIONS: usize = 16;

/// Of [`MAX_PEER_DIALS`], those that one [`Deliverer`](dht_core::Deliverer) may cause. A dial to a peer that says nothing holds
/// its place for [`CONNECT_TIMEOUT`] and [`UPGRADE_TIMEOUT`].
pub const MAX_PEER_DIALS_PER_DELIVERER: usize = MAX_PEER_DIALS / 4;

/// Dials at one time, for each [`DialCause`](crate::DialCause), to the untrusted targets of one group, an IPv4 /24, an IPv6 /48
/// or an onion service. With more, peers could scan the ports of a host through this node.
pub const MAX_PEER_DIALS_PER_TARGET: usize = 2;

/// Dials of this kind to one target group.
pub const PEER_DIALS_PER_TARGET: Rate = Rate {
    per_second: 1,
    burst: 8,
};

/// Target groups whose [`PEER_DIALS_PER_TARGET`] are remembered: at one new group for each of [`MAX_PEER_DIALS`] a second, for
/// four minutes.
pub const MAX_TARGETS: usize = 4_096;

/// Time that a peer has, after a dial which it caused, to send a message over the connection; then it is closed.
pub const ANSWER_LINGER: Duration = Duration::from_secs(10);

/// Name lookups at one time for each [`DialCause`](crate::DialCause).
pub const MAX_LOOKUPS_PER_CAUSE: usize = 2;

/// Connections from one source, an IPv4 /24 or an IPv6 /56 ([`SourceGroup`](dht_core::SourceGroup)). *Setting.*
pub const MAX_CONNECTIONS_PER_SOURCE: usize = 32;

/// Handshakes from one source at once (02 section 16). *Setting.*
pub const MAX_HANDSHAKES_PER_SOURCE: usize = 4;

/// Time for which a handshake makes no room for one of another address of its source: an honest one takes a few round trips.
pub const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// This machine.
pub const LOOPBACK: [IpNet; 2] = [v4([127, 0, 0, 0], 8), v6([0, 0, 0, 0, 0, 0, 0, 1], 128)];

/// Ranges whose connections count for no source by default: loopback, private, shared and link-local addresses. No
/// packet of the internet comes from them, unless through a gateway or a proxy. *Setting.*
pub const TRUSTED_SOURCES: [IpNet; 9] = [
    LOOPBACK[0],
    LOOPBACK[1],
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
    v4([169, 254, 0, 0], 16),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix)
}

/// Longest line of a liveness session, in bytes without its `\n` (02 section 9.3).
pub const MAX_LIVENESS_LINE_BYTES: usize = 80;

/// As [`MAX_LIVENESS_LINE_BYTES`], of a session that begins as peers of version 1 begin it.
pub const MAX_V1_LIVENESS_LINE_BYTES: usize = 50;

/// A liveness session ends when no line came for this long.
pub const LIVENESS_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest Noise frame after its length prefix (02 section 4.2).
pub const MAX_NOISE_FRAME_BYTES: usize = 65_535;

/// Largest plaintext of a Noise frame: [`MAX_NOISE_FRAME_BYTES`] less the 16-byte tag.
pub const MAX_NOISE_PLAINTEXT_BYTES: usize = MAX_NOISE_FRAME_BYTES - 16;

/// Most bytes read ahead from a socket (02 section 16). Held only while a peer sends that fast.
pub const READ_AHEAD_BYTES: usize = 128 * 1024;

/// Buffers of a connection that moved no byte for this long are given back.
pub const BUFFER_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket that accepted nothing for this long while bytes waited is closed (02 section 16).
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// After our end of stream we wait this long for theirs, so that the kernel does not reset the connection
/// over unread bytes and the peer still receives our last ones.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// Streams of a connection, both directions together (02 section 16).
pub const MAX_STREAMS: usize = 128;

/// Inbound streams served at once; further ones are reset. *Setting*, of which no more than
/// [`MOST_INBOUND_STREAMS`] are used.
pub const MAX_INBOUND_STREAMS: usize = 32;

/// Streams this node keeps open on one connection.
pub const MAX_OUTBOUND_STREAMS: usize = 64;

/// Streams that [`MAX_OUTBOUND_STREAMS`] leaves of [`MAX_STREAMS`] to the peer. The multiplexer ends the connection at
/// that
/// number, so a few are kept for streams that are being reset.
pub const MOST_INBOUND_STREAMS: usize = MAX_STREAMS - MAX_OUTBOUND_STREAMS - 16;

/// Bytes by which the receive windows of one connection may grow together beyond the 256 KiB that yamux
/// promises each stream. 2 MiB move 20 MB/s over a path of 100 ms.
pub const WINDOW_GROWTH_BYTES: usize = 2 * 1024 * 1024;

/// Free part of the unread bytes of a connection; with what each frame takes beside
/// its payload. A frame of the usual sizes always fits, so that a peer whose messages are read is heard whatever others
/// do. [`MAX_CONNECTIONS`] of them are 50 MB.
pub const FREE_UNREAD_BYTES: usize = 96 * 1024;

/// Most that a connection's peer may have sent without being read: one stream with a window that grew as far as it can,
/// and what its frames take beside their payload. A connection that holds more is not read until it holds less.
pub const MAX_UNREAD_BYTES: usize = 4 * 1024 * 1024;

/// Unread bytes of all connections together, beyond [`FREE_UNREAD_BYTES`] of each; never less than
/// [`MAX_UNREAD_BYTES`]. *Setting.*
pub const MAX_UNREAD_BYTES_TOTAL: usize = 32 * 1024 * 1024;

/// A connection for whose next frame there was no room for this long is closed: its peer gives a write that is not
/// taken up after the same time ([`WRITE_STALL_TIMEOUT`]), and its end could not be seen.
pub const READ_STALL_TIMEOUT: Duration = WRITE_STALL_TIMEOUT;

/// Payload of the yamux frames we send: with its 12-byte header one full Noise frame (02 section 16).
pub const YAMUX_FRAME_BYTES: usize = MAX_NOISE_PLAINTEXT_BYTES - 12;

/// Bytes that the streams of one connection may have written and its socket not taken: four frames, so that the socket
/// never waits for a stream. Streams that want to write more wait, in turn.
pub const MAX_OUTGOING_BYTES: usize = 256 * 1024;

/// Bytes of pongs, window updates and resets that may wait for a socket before the connection is not read: five thousand
/// frames. An honest peer that takes nothing asks for a few.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Frames that a peer may send on one connection beside the payload of its streams: pings, window updates, openings, ends,
/// and data for streams that are gone. A peer that is sent 1 GB/s sends 8 000 window updates; one that opens a stream
/// for each request sends three frames for it. A connection without tokens is not read for a second.
pub const CONTROL_FRAMES: Rate = Rate {
    per_second: 10_000,
    burst: 20_000,
};

/// Pauses for want of [`CONTROL_FRAMES`] tokens after which a connection is closed, unless there was time for all of them to
/// come back in between. Nobody is banned for it.
pub const MAX_CONTROL_PAUSES: u32 = 30;

/// Time for the negotiation of a stream, each side (02 section 5).
pub const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

/// The unsupported proposal at which a responder gives up (02 section 5).
pub const MAX_PROPOSALS: u8 = 5;

/// Messages of one peer waiting to be sent (02 section 16). *Setting.*
pub const MAX_QUEUED_MESSAGES: usize = 500;

/// Bytes of one peer waiting to be sent (02 section 16). *Setting.*
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// Bytes waiting to be sent to all peers together (02 section 16): gossip may use half of them, stored messages three quarters,
/// direct messages seven eighths; and of that, one peer leaves a quarter to the others. *Setting.*
pub const MAX_QUEUED_BYTES_TOTAL: usize = 512 * 1024 * 1024;

/// Peers with a queue at once: the queues are keyed by what the application, and through it a peer, asks for.
pub const MAX_OUTBOXES: usize = 2_048;

/// A message older than this is no longer sent (02 section 16). *Setting.*
pub const MESSAGE_LIFETIME: Duration = Duration::from_secs(60);

/// Limit of one write to a messaging stream (02 section 16). *Setting.*
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Times a message is put on a stream again after the stream broke before it was flushed.
pub const MAX_RESENDS: u8 = 1;

/// Replacements of a peer's inbound messaging stream in one second (02 section 16).
pub const MAX_REPLACEMENTS_PER_SECOND: u32 = 10;

/// A frame whose next byte does not come within this time ends the session.
pub const FRAME_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Slowest a frame may arrive, in bytes a second: at no time may it be further behind that than
/// [`FRAME_STALL_TIMEOUT`], because an unfinished frame holds its whole length of the node's byte budget.
pub const MIN_FRAME_BYTES_PER_SECOND: usize = 64 * 1024;

/// The longest that `bytes` of a frame may take at [`MIN_FRAME_BYTES_PER_SECOND`].
pub(crate) fn time_for(bytes: usize) -> Duration {
    let milliseconds = bytes.saturating_mul(1_000) / MIN_FRAME_BYTES_PER_SECOND;
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))
}

/// Frames above this length are *large*: unfinished ones share a quarter of the byte budget, so that peers
/// who announce large frames and send them slowly cannot take the budget from the others.
pub const LARGE_FRAME_BYTES: usize = 64 * 1024;

/// Most bytes of memory that a message takes beside its own: its place in the stacks while it waits. Charged with
/// the frame, so that a flood of tiny messages cannot take more than the budget.
pub const MESSAGE_OVERHEAD_BYTES: usize = 4 * 1024;

/// Bytes of the budget's reserve that a connection may hold. A peer that holds no more than this is heard however much
/// others hold.
pub const LIGHT_BYTES: usize = 64 * 1024;

/// Of two connections to a peer, the one that counts has this long, and the time that the upgrade of the newer one took, to
/// answer a ping; if only the other one answers, that one counts (02 section 9.5). Any other connection that is asked has this long,
/// and its round trip.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The other one of two connections is read this long once the one that counts has answered, and then closed.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Polite close of one connection: go-away, flush, end of stream.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Inbound messages between the sessions and the application (02 section 7). *Setting.*
pub const INBOUND_CHANNEL_MESSAGES: usize = 64;

/// Events between the transport and the application. *Setting.*
pub const EVENT_CHANNEL_EVENTS: usize = 256;
