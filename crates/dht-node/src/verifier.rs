//! Checks the signatures of messages that arrive together in one go.

use dht_core::{Entropy as _, Sealed, SharedEntropy, Verified, VerifyError, verify_batch};
use dht_stack::BatchWork;

/// The arithmetic behind the batch layer.
pub(crate) struct BatchVerifier(pub(crate) SharedEntropy);

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
