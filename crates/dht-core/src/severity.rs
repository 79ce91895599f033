//! How long an offence bans a peer.

/// How long an offence bans a peer by default (03 section 4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Bans for 10 minutes.
    Low,
    /// Bans for 10 minutes.
    Medium,
    /// Bans for 2 hours.
    High,
}
