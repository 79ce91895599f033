//! A check of DNS packets before they are parsed.

/// Bytes of a header.
const HEADER: usize = 12;
/// Bytes of the shortest question, and less than the shortest record.
const SHORTEST_ENTRY: usize = 5;

/// Whether a packet can hold as many entries as it says, for which room is made.
pub(crate) fn is_plausible(bytes: &[u8]) -> bool {
    let counts = bytes.get(4..HEADER).unwrap_or_default();
    let counts = counts
        .iter()
        .step_by(2)
        .zip(counts.iter().skip(1).step_by(2));
    let entries: usize = counts
        .map(|(high, low)| usize::from(u16::from_be_bytes([*high, *low])))
        .sum();
    bytes.len() >= HEADER && entries * SHORTEST_ENTRY <= bytes.len()
}
