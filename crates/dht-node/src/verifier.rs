//! Checks the signatures of messages that arrive together in one go.

use std::fmt;

use dht_core::{Entropy as _, Sealed, SharedEntropy, Verified, VerifyError, verify_batch};
use dht_stack::BatchWork;

/// The arithmetic behind a [`Batch`](dht_stack::Batch) of envelopes.
#[derive(Clone)]
pub struct BatchVerifier(SharedEntropy);

impl BatchVerifier {
    /// Takes the weights of batches from `entropy`.
    #[must_use]
    pub const fn new(entropy: SharedEntropy) -> Self {
        Self(entropy)
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
