//! The redb files of a home: made whole or not at all, opened again after a failure, and set aside once they are damaged.
//!
//! | Part | What it does |
//! |---|---|
//! | [`DataFile`] | one file: its lock, the file that is to take its place, and those that were set aside |
//! | [`OpenFile`] | one file that is read once and written from then on |
//! | [`contain`] | turns a panic of redb on a damaged page into an error |

#![forbid(unsafe_code)]

mod error;
mod file;
mod folder;
mod open;
mod unrepaired;
mod watched;

pub use error::{FileError, contain};
pub use file::DataFile;
#[cfg(any(test, feature = "test-util"))]
pub use file::TestFolder;
#[cfg(any(test, feature = "test-util"))]
pub use folder::watch_steps;
pub use open::OpenFile;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
