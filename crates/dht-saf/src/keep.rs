//! Storing messages for offline peers of this node's region: the admission rule, the layer that applies it, and the
//! recent decisions that receipts are answered from.

mod admission;
mod keeper;
mod layer;

pub(crate) use self::keeper::{KeepParts, Keeper};
pub use self::layer::{StoreFuture, StoreLayer, StoreService};
