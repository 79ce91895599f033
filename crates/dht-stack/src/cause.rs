//! Errors between layers.

use std::error::Error;

/// The error between layers: reordering layers must not change types.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The first `E` in the chain of sources, the error itself included.
#[must_use]
pub fn cause_ref<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Whether an `E` is anywhere in the chain of sources.
///
/// ```
/// use std::{fmt, io};
/// let error: dht_stack::BoxError = Box::new(io::Error::other(fmt::Error));
/// assert!(dht_stack::is_caused_by::<io::Error>(&*error));
/// assert!(!dht_stack::is_caused_by::<std::num::ParseIntError>(&*error));
/// ```
#[must_use]
pub fn is_caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    cause_ref::<E>(error).is_some()
}
