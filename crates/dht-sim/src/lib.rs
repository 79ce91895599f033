#![doc = include_str!("../README.md")]

pub mod fabric;
mod log;
pub mod scenario;
mod world;

pub use log::Log;
pub use world::{Identity, World};
