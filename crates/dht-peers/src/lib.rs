//! Peer directory: records, claims, address statistics, bans and closest-n.
