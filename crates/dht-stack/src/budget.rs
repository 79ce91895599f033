//! Memory handed out as permits (law 2).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Granularity of the budget, so that a budget of terabytes still counts in 32-bit permits.
const UNIT_BYTES: usize = 256;

/// A number of bytes that may be held at one time, shared by everything that holds bytes of others.
///
/// Whoever wants to hold bytes acquires a permit first and waits, in order of arrival, while the budget is
/// spent. Cloning shares the budget.
///
/// ```
/// use dht_stack::ByteBudget;
///
/// let budget = ByteBudget::new(1024);
/// let permit = budget.try_acquire(1000).expect("the budget is fresh");
/// assert!(budget.try_acquire(1000).is_none());
/// drop(permit);
/// assert!(budget.try_acquire(1000).is_some());
/// ```
#[derive(Clone, Debug)]
pub struct ByteBudget {
    units: Arc<Semaphore>,
    total_units: u32,
}

/// The right to hold some bytes; given back on drop.
#[derive(Debug, Default)]
pub struct BytePermit(Option<OwnedSemaphorePermit>);

impl ByteBudget {
    /// A budget of `bytes`, at least one unit of 256 bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let total = (bytes / UNIT_BYTES).clamp(1, most);
        Self {
            units: Arc::new(Semaphore::new(total)),
            total_units: to_u32(total),
        }
    }

    /// Waits until `bytes` are free. A request for more than the whole budget waits for the whole budget.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and nothing else.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        let units = Arc::clone(&self.units);
        // Correctness: the semaphore is never closed, so this cannot fail.
        BytePermit(units.acquire_many_owned(self.units_for(bytes)).await.ok())
    }

    /// Takes `bytes` if they are free now.
    #[must_use]
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        let units = Arc::clone(&self.units);
        let permit = units.try_acquire_many_owned(self.units_for(bytes)).ok()?;
        Some(BytePermit(Some(permit)))
    }

    /// Bytes not held by anybody.
    #[must_use]
    pub fn available(&self) -> usize {
        self.units.available_permits().saturating_mul(UNIT_BYTES)
    }

    /// Bytes of the whole budget.
    #[must_use]
    pub const fn total(&self) -> usize {
        (self.total_units as usize).saturating_mul(UNIT_BYTES)
    }

    fn units_for(&self, bytes: usize) -> u32 {
        to_u32(bytes.div_ceil(UNIT_BYTES)).min(self.total_units)
    }
}

impl BytePermit {
    /// A permit for nothing, for messages that do not come from a peer.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Bytes this permit stands for, rounded up to units.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |permit| permit.num_permits().saturating_mul(UNIT_BYTES))
    }

    /// Takes a part out of this permit: `bytes` rounded up to units, or all there is.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT_BYTES);
        let Some(held) = &mut self.0 else {
            return Self::none();
        };
        match held.split(units.min(held.num_permits())) {
            Some(part) => Self(Some(part)),
            None => Self::none(),
        }
    }

    /// Joins another permit of the same budget to this one.
    pub fn merge(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some(held), Some(more)) => held.merge(more),
            (held @ None, more) => *held = more,
            (Some(_), None) => {}
        }
    }
}

fn to_u32(units: usize) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_over_the_budget_takes_all_of_it() {
        let budget = ByteBudget::new(4 * UNIT_BYTES);
        let permit = budget.acquire(usize::MAX).await;
        assert_eq!(permit.bytes(), budget.total());
        assert_eq!(budget.available(), 0);
        drop(permit);
        assert_eq!(budget.available(), budget.total());
    }

    #[tokio::test]
    async fn waiting_ends_when_bytes_come_back() {
        let budget = ByteBudget::new(4 * UNIT_BYTES);
        let held = budget.acquire(budget.total()).await;
        let mut waiting = Box::pin(budget.acquire(1));
        assert!(
            tokio::time::timeout(std::time::Duration::ZERO, &mut waiting)
                .await
                .is_err()
        );
        drop(held);
        assert_eq!(waiting.await.bytes(), UNIT_BYTES);
    }

    #[test]
    fn permits_merge() {
        let budget = ByteBudget::new(4 * UNIT_BYTES);
        let mut permit = BytePermit::none();
        permit.merge(budget.try_acquire(1).unwrap());
        permit.merge(budget.try_acquire(UNIT_BYTES).unwrap());
        assert_eq!(permit.bytes(), 2 * UNIT_BYTES);
        drop(permit);
        assert_eq!(budget.available(), budget.total());
    }

    #[test]
    fn permits_split() {
        let budget = ByteBudget::new(4 * UNIT_BYTES);
        let mut whole = budget.try_acquire(3 * UNIT_BYTES).unwrap();
        let part = whole.split(UNIT_BYTES + 1);
        assert_eq!((whole.bytes(), part.bytes()), (UNIT_BYTES, 2 * UNIT_BYTES));
        drop(whole.split(usize::MAX));
        assert_eq!((whole.bytes(), budget.available()), (0, 2 * UNIT_BYTES));
        assert_eq!(BytePermit::none().split(1).bytes(), 0);
    }
}
