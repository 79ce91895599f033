//! Public-key work of messages that arrive together, done in one go.

use std::{fmt, sync::Arc};

use dht_core::{
    Entropy as _, MAX_BATCH, NodeIdentity, OpenError, Opened, Sealed, SharedEntropy, Verified,
    VerifyError, open_batch, verify_batch,
};
use dht_stack::{Batch, BatchWork};

/// Checks signatures: the arithmetic behind a [`Batch`] of envelopes.
#[derive(Clone)]
pub struct BatchVerifier(SharedEntropy);

/// Opens what is encrypted for one node: the arithmetic behind a [`Batch`] of verified envelopes.
#[derive(Clone, Debug)]
pub struct BatchOpener(Arc<NodeIdentity>);

impl BatchVerifier {
    /// Takes the weights of batches from `entropy`.
    #[must_use]
    pub const fn new(entropy: SharedEntropy) -> Self {
        Self(entropy)
    }

    /// The service of one worker: a task that calls for a burst of messages before it polls for any.
    #[must_use]
    pub fn for_worker(self) -> Batch<Self, Sealed> {
        Batch::new(self, MAX_BATCH, 1)
    }
}

impl fmt::Debug for BatchVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchVerifier").finish_non_exhaustive()
    }
}

impl BatchWork<Sealed> for BatchVerifier {
    type Response = Result<Verified, VerifyError>;

    fn run(&self, envelopes: Vec<Sealed>) -> Vec<Self::Response> {
        if envelopes.len() < 2 {
            // No weights, hence no randomness.
            return envelopes.into_iter().map(Sealed::verify).collect();
        }
        verify_batch(envelopes, &mut self.0.rng())
    }
}

impl BatchOpener {
    /// Opens what is addressed to `identity`.
    #[must_use]
    pub const fn new(identity: Arc<NodeIdentity>) -> Self {
        Self(identity)
    }

    /// The service of one worker. Messages that were verified together come one by one, from futures of one task.
    #[must_use]
    pub fn for_worker(self) -> Batch<Self, Verified> {
        Batch::new(self, MAX_BATCH, 1).gathering()
    }
}

impl BatchWork<Verified> for BatchOpener {
    type Response = Result<Opened, OpenError>;

    fn run(&self, envelopes: Vec<Verified>) -> Vec<Self::Response> {
        open_batch(envelopes, &self.0)
    }
}
