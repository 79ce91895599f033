//! Headers of yamux frames. docs/protocol/02-transport-and-connectivity.md section 4.4.

pub(super) const HEADER_BYTES: usize = 12;

/// Longest body the multiplexer takes. It ends the connection over a longer one as soon as it has seen the header: no
/// room is made for that.
const MAX_BODY_BYTES: u32 = 1024 * 1024;

const TYPE_DATA: u8 = 0;
const TYPE_PING: u8 = 2;
const FLAG_SYN: u16 = 1;
const FLAG_ACK: u16 = 2;

/// Number of the pings that this crate sends. Those of the multiplexer count up from 0.
const PROBE: u32 = u32::MAX;

/// A ping to see whether the peer answers.
pub(super) const PROBE_PING: [u8; HEADER_BYTES] = {
    let ([f, g], [h, i, j, k]) = (FLAG_SYN.to_be_bytes(), PROBE.to_be_bytes());
    [0, TYPE_PING, f, g, 0, 0, 0, 0, h, i, j, k]
};

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    kind: u8,
    flags: u16,
    /// Stream id; 0 is the connection.
    pub(super) stream: u32,
    /// Length of a data frame's body, credit of a window update, number of a ping.
    value: u32,
}

/// Collects the bytes of a header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeaderBytes {
    bytes: [u8; HEADER_BYTES],
    have: usize,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [_, kind, f, g, a, b, c, d, h, i, j, k] = *bytes;
        Self {
            kind,
            flags: u16::from_be_bytes([f, g]),
            stream: u32::from_be_bytes([a, b, c, d]),
            value: u32::from_be_bytes([h, i, j, k]),
        }
    }

    /// Whether this is a data frame that the multiplexer takes.
    pub(super) const fn is_data(self) -> bool {
        self.kind == TYPE_DATA && self.value <= MAX_BODY_BYTES
    }

    /// Bytes of the body that follow the header: of a data frame that the multiplexer takes, else 0.
    pub(super) const fn body_bytes(self) -> usize {
        match self.is_data() {
            true => self.value as usize,
            false => 0,
        }
    }

    /// Whether this answers a ping.
    pub(super) const fn answers_ping(self) -> bool {
        self.kind == TYPE_PING && self.flags & FLAG_ACK != 0
    }

    /// Whether this answers [`PROBE_PING`].
    pub(super) const fn answers_probe(self) -> bool {
        self.answers_ping() && self.value == PROBE
    }

    /// Whether the frame begins a stream.
    pub(super) const fn opens(self) -> bool {
        self.flags & FLAG_SYN != 0
    }
}

impl HeaderBytes {
    /// The bytes that arrived.
    pub(super) fn have(&self) -> &[u8] {
        self.bytes.get(..self.have).unwrap_or_default()
    }

    /// The bytes that are missing.
    pub(super) fn missing(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.have..).unwrap_or_default()
    }

    /// So many of the missing bytes have been filled in.
    pub(super) fn filled(&mut self, count: usize) {
        self.have = (self.have + count).min(HEADER_BYTES);
    }

    /// Takes a front part of `bytes`; returns the rest.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = self.missing();
        let count = missing.len().min(bytes.len());
        let (part, rest) = bytes.split_at(count);
        missing
            .iter_mut()
            .zip(part)
            .for_each(|(to, from)| *to = *from);
        self.filled(count);
        rest
    }

    /// The header, once it is complete.
    pub(super) fn get(&self) -> Option<Header> {
        (self.have == HEADER_BYTES).then(|| Header::parse(&self.bytes))
    }
}
