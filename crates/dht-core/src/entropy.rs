//! Sources of randomness, injected so that a test or a simulator can replay a run.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;
#[cfg(feature = "os-entropy")]
use zeroize::Zeroizing;

/// Hands out cryptographic generators.
///
/// Callers take one generator per message, so that none is behind a shared lock.
pub trait Entropy: Send + Sync + 'static {
    /// A generator that is not handed out twice.
    fn rng(&self) -> ChaCha12Rng;
}

/// A source of randomness shared by the parts of a node.
pub type SharedEntropy = Arc<dyn Entropy>;

/// Generators that the operating system seeds.
#[cfg(feature = "os-entropy")]
#[cfg_attr(docsrs, doc(cfg(feature = "os-entropy")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

/// Reproducible generators from one seed: the n-th call gives the n-th stream of that seed.
///
/// For tests and simulations only: the seed determines every key.
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

#[cfg(feature = "os-entropy")]
impl Entropy for OsEntropy {
    /// # Panics
    /// If the operating system provides no randomness: a key made without it is not secret.
    #[expect(
        clippy::expect_used,
        reason = "there is no safe way on without randomness"
    )]
    fn rng(&self) -> ChaCha12Rng {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).expect("the operating system provides randomness");
        ChaCha12Rng::from_seed(*seed)
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
