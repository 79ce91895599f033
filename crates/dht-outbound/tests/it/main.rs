//! The whole pipeline over real parts.

mod requester;
mod search;
mod stack;
mod support;
