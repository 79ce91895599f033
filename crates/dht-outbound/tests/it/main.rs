//! The whole pipeline over real parts.

mod requester;
mod stack;
mod support;
