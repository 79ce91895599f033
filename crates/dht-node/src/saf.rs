//! Store-and-forward in a node: files, handle, receipts.

#[cfg(feature = "saf")]
mod files;
#[cfg(feature = "saf")]
mod handle;
#[cfg(not(feature = "saf"))]
mod off;
#[cfg(feature = "saf")]
pub(crate) mod receipt;

#[cfg(feature = "saf")]
pub(crate) use files::hint;
#[cfg(feature = "saf")]
pub use files::{ledger_file, saf_folder};
#[cfg(feature = "saf")]
pub(crate) use handle::{SafHandle, start};
#[cfg(not(feature = "saf"))]
pub(crate) use off::SafHandle;
