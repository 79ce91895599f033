//! Bounds the bytes of responses that wait to leave for their requesters.

use std::{collections::HashMap, sync::Arc};

use dht_mailbox::Recipient;
use dht_stack::{ByteBudget, BytePermit};
use parking_lot::Mutex;

/// Bytes of responses in flight to all requesters; beyond it requests are answered with an empty response.
const ALL_BYTES: usize = 64 << 20;
/// Bytes of responses in flight to one requester, so that one that does not read leaves room for others.
const REQUESTER_BYTES: usize = ALL_BYTES / 8;

/// The bytes of responses in flight, in total and by requester.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    all: ByteBudget,
    by_requester: Arc<Mutex<HashMap<Recipient, usize>>>,
}

/// Room for one response; given back on drop.
#[derive(Debug)]
pub(super) struct ResponsePermit {
    requester: Recipient,
    bytes: usize,
    by_requester: Arc<Mutex<HashMap<Recipient, usize>>>,
    _all: BytePermit,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self {
            all: ByteBudget::new(ALL_BYTES),
            by_requester: Arc::default(),
        }
    }

    /// Room for a response of `bytes`; `None` if all of it is taken, or if this requester already holds some and
    /// would exceed its share.
    pub(super) fn try_acquire(&self, requester: Recipient, bytes: usize) -> Option<ResponsePermit> {
        let all = self.all.try_acquire(bytes)?;
        let mut by_requester = self.by_requester.lock();
        let held = by_requester.get(&requester).copied().unwrap_or(0);
        let after = held.saturating_add(bytes);
        if held > 0 && after > REQUESTER_BYTES {
            return None;
        }
        by_requester.insert(requester, after);
        drop(by_requester);
        Some(ResponsePermit {
            requester,
            bytes,
            by_requester: Arc::clone(&self.by_requester),
            _all: all,
        })
    }
}

impl Drop for ResponsePermit {
    fn drop(&mut self) {
        let mut by_requester = self.by_requester.lock();
        if let Some(held) = by_requester.get_mut(&self.requester) {
            *held = held.saturating_sub(self.bytes);
            if *held == 0 {
                by_requester.remove(&self.requester);
            }
        }
    }
}
