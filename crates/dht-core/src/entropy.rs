//! Where randomness comes from, so that a test or a simulator can replay it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

/// Hands out cryptographic generators.
///
/// One call per message keeps the generator off any shared lock; an operating-system backed implementation
/// seeds each generator afresh.
pub trait Entropy: Send + Sync + 'static {
    /// A generator nobody else has.
    fn rng(&self) -> ChaCha12Rng;
}

/// A source of randomness shared by the parts of a node.
pub type SharedEntropy = Arc<dyn Entropy>;

/// Reproducible generators from one seed: the n-th call gives the n-th stream of that seed.
///
/// For tests and simulations only: everything it produces is predictable.
pub struct SeededEntropy {
    seed: u64,
    calls: AtomicU64,
}

impl SeededEntropy {
    /// All generators follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            calls: AtomicU64::new(0),
        }
    }
}

impl Entropy for SeededEntropy {
    fn rng(&self) -> ChaCha12Rng {
        let mut rng = ChaCha12Rng::seed_from_u64(self.seed);
        rng.set_stream(self.calls.fetch_add(1, Ordering::Relaxed));
        rng
    }
}

impl<E: Entropy + ?Sized> Entropy for Arc<E> {
    fn rng(&self) -> ChaCha12Rng {
        (**self).rng()
    }
}

impl fmt::Debug for SeededEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeededEntropy({})", self.seed)
    }
}
