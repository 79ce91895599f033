//! A value that several tasks wait for.

use std::{pin::pin, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A value that several tasks wait for, who are woken in the order in which they came. Clones share it.
///
/// tokio's `watch` wakes in an order of chance, which no seed of ours determines.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let answer = dht_stack::Watch::new(None);
/// answer.change(|value| value.replace(42).is_none());
/// assert_eq!(answer.until(|value| *value).await, 42);
/// # });
/// ```
#[derive(Debug, Default)]
pub struct Watch<T>(Arc<Inner<T>>);

#[derive(Debug, Default)]
struct Inner<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Watch<T> {
    /// A value that nobody waits for.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(Inner {
            value: Mutex::new(value),
            changed: Notify::new(),
        }))
    }

    /// Changes the value; if `change` says that it did, those who wait look again. Answers the same.
    pub fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = change(&mut self.0.value.lock());
        if changed {
            self.0.changed.notify_waiters();
        }
        changed
    }

    /// Looks at the value.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.value.lock())
    }

    /// Waits until `ready` makes something of the value.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn until<R>(&self, mut ready: impl FnMut(&T) -> Option<R>) -> R {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Correctness: registered before the look, so that no change is missed.
            changed.as_mut().enable();
            if let Some(made) = self.look(&mut ready) {
                return made;
            }
            changed.await;
        }
    }

    /// Whether there are other clones.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_wake_in_their_order() {
        let (watch, woken) = (Watch::new(false), Arc::new(Mutex::new(Vec::new())));
        let waiting: Vec<_> = (0..50)
            .map(|number| {
                let (watch, woken) = (watch.clone(), Arc::clone(&woken));
                tokio::spawn(async move {
                    watch.until(|set| set.then_some(())).await;
                    woken.lock().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(watch.is_shared() && !watch.change(|_| false));
        assert!(watch.change(|set| !std::mem::replace(set, true)));
        for task in waiting {
            task.await.unwrap();
        }
        assert!(woken.lock().iter().copied().eq(0..50));
    }
}
