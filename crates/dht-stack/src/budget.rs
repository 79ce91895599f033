//! Memory handed out as permits (law 2).

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Granularity of the budget, so that a budget of terabytes still counts in 32-bit permits.
const UNIT_BYTES: usize = 256;

/// A number of bytes that may be held at one time, shared by everything that holds bytes of others.
///
/// A caller acquires a permit before it holds bytes and waits, in order of arrival, while the budget is
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
///
/// A part can be kept in [reserve](Self::with_reserve) for those who hold little, so that a few who hold much cannot
/// take everything.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    units: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    main_units: u32,
    reserve_units: u32,
}

/// The right to hold some bytes; given back on drop.
#[derive(Debug, Default)]
pub struct BytePermit {
    held: Option<OwnedSemaphorePermit>,
    /// Permits of other budgets that are given back with this one. Empty, hence without an allocation, but for those
    /// out of a reserve.
    along: Vec<OwnedSemaphorePermit>,
}

impl ByteBudget {
    /// A budget of `bytes`, at least one unit of 256 bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self::with_reserve(bytes, 0)
    }

    /// A budget of `bytes` of which `reserve` are handed out by [`acquire_any`](Self::acquire_any) only.
    #[must_use]
    pub fn with_reserve(bytes: usize, reserve: usize) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let total = (bytes / UNIT_BYTES).clamp(1, most);
        let reserve = (reserve / UNIT_BYTES).min(total.saturating_sub(1));
        let main = total.saturating_sub(reserve);
        Self {
            units: Arc::new(Semaphore::new(main)),
            reserve: Arc::new(Semaphore::new(reserve)),
            main_units: to_u32(main),
            reserve_units: to_u32(reserve),
        }
    }

    /// Waits until `bytes` are free. A request for more than the budget without its reserve waits for all of that.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and nothing else.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        let units = Arc::clone(&self.units);
        // Correctness: the semaphore is never closed, so this cannot fail.
        BytePermit::of(units.acquire_many_owned(self.units_for(bytes)).await.ok())
    }

    /// Waits until `bytes` are free, in the reserve or outside of it.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_any(&self, bytes: usize) -> BytePermit {
        let units = to_u32(bytes.div_ceil(UNIT_BYTES));
        if units > self.reserve_units {
            return self.acquire(bytes).await;
        }
        let mut main = pin!(Arc::clone(&self.units).acquire_many_owned(self.units_for(bytes)));
        let mut reserve = pin!(Arc::clone(&self.reserve).acquire_many_owned(units));
        let held = poll_fn(|cx| match main.as_mut().poll(cx) {
            Poll::Ready(permit) => Poll::Ready(permit.ok()),
            Poll::Pending => reserve.as_mut().poll(cx).map(Result::ok),
        });
        BytePermit::of(held.await)
    }

    /// Takes `bytes` if they are free now.
    #[must_use]
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        let units = Arc::clone(&self.units);
        let permit = units.try_acquire_many_owned(self.units_for(bytes)).ok()?;
        Some(BytePermit::of(Some(permit)))
    }

    /// Bytes that no permit holds, the reserve included.
    #[must_use]
    pub fn available(&self) -> usize {
        let units = self.units.available_permits();
        units
            .saturating_add(self.reserve.available_permits())
            .saturating_mul(UNIT_BYTES)
    }

    /// Bytes of the whole budget, the reserve included.
    #[must_use]
    pub const fn total(&self) -> usize {
        let units = self.main_units as usize;
        units
            .saturating_add(self.reserve_units as usize)
            .saturating_mul(UNIT_BYTES)
    }

    fn units_for(&self, bytes: usize) -> u32 {
        to_u32(bytes.div_ceil(UNIT_BYTES)).min(self.main_units)
    }
}

impl BytePermit {
    /// A permit for nothing, for messages that do not come from a peer.
    #[must_use]
    pub const fn none() -> Self {
        Self::of(None)
    }

    const fn of(held: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            held,
            along: Vec::new(),
        }
    }

    /// Bytes this permit stands for, rounded up to units.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.held
            .as_ref()
            .map_or(0, |permit| permit.num_permits().saturating_mul(UNIT_BYTES))
    }

    /// Gives a permit of another budget back together with this one. It does not count as [bytes](Self::bytes).
    #[must_use]
    pub fn along_with(mut self, other: Self) -> Self {
        self.along.extend(other.held);
        self.along.extend(other.along);
        self
    }

    /// Takes a part out of this permit: `bytes` rounded up to units, or all there is.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT_BYTES);
        let Some(held) = &mut self.held else {
            return Self::none();
        };
        Self::of(held.split(units.min(held.num_permits())))
    }

    /// Joins another permit to this one. Their bytes count together if they are of the same budget.
    pub fn merge(&mut self, other: Self) {
        self.along.extend(other.along);
        match (&mut self.held, other.held) {
            (Some(held), Some(more)) if Arc::ptr_eq(held.semaphore(), more.semaphore()) => {
                held.merge(more);
            }
            // Out of the reserve of that budget, say.
            (Some(_), Some(more)) => self.along.push(more),
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
    async fn request_over_budget_takes_all() {
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

    #[tokio::test]
    async fn reserve_is_for_entitled_callers() {
        let budget = ByteBudget::with_reserve(8 * UNIT_BYTES, 2 * UNIT_BYTES);
        let much = budget.acquire(usize::MAX).await;
        assert_eq!(much.bytes(), 6 * UNIT_BYTES);
        assert_eq!(
            (budget.total(), budget.available()),
            (8 * UNIT_BYTES, 2 * UNIT_BYTES)
        );
        assert!(budget.try_acquire(1).is_none());
        let (first, _second) = (budget.acquire_any(1).await, budget.acquire_any(1).await);
        assert_eq!(budget.available(), 0);
        let mut third = Box::pin(budget.acquire_any(1));
        let now = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(now, &mut third).await.is_err());
        drop(first);
        assert_eq!(third.await.bytes(), UNIT_BYTES);
        let mut fourth = Box::pin(budget.acquire_any(3 * UNIT_BYTES));
        assert!(tokio::time::timeout(now, &mut fourth).await.is_err());
        drop(much);
        assert_eq!(fourth.await.bytes(), 3 * UNIT_BYTES);
    }

    #[test]
    fn permits_of_several_budgets_end_together() {
        let (budget, own) = (ByteBudget::new(1024), ByteBudget::new(1024));
        let mut permit = budget.try_acquire(256).unwrap();
        permit = permit.along_with(own.try_acquire(512).unwrap());
        permit.merge(own.try_acquire(256).unwrap());
        assert_eq!((permit.bytes(), own.available()), (256, 256));
        drop(permit);
        assert_eq!((budget.available(), own.available()), (1024, 1024));
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
