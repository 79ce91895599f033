//! Errors between layers.

use std::error::Error;

/// The error between layers: reordering layers must not change types. The same type as `tower::BoxError`.
pub type BoxError = Box<dyn Error + Send + Sync>;
