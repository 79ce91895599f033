//! Protocol-agnostic tower pieces: a stack that reads from the inside out, a byte budget handed out as
//! permits, and errors that can be told apart through any number of layers.
//!
//! ```
//! use dht_stack::stack;
//! use tower::{layer::util::Identity, service_fn};
//!
//! let service = stack(service_fn(|n: u32| async move { Ok::<_, std::convert::Infallible>(n + 1) }))
//!     .push(Identity::new())
//!     .push_option(None::<Identity>)
//!     .check_service::<u32>()
//!     .into_inner();
//! # let _ = service;
//! ```

mod batch;
mod budget;
mod cause;
mod channel;
mod stack;

pub use batch::{Batch, BatchFuture, BatchLost, BatchWork};
pub use budget::{ByteBudget, BytePermit};
pub use cause::{BoxError, cause_ref, is_caused_by};
pub use channel::{Channel, WhenFull, waiting_cycle};
pub use stack::{Either, Stack, stack};
