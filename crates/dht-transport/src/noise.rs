//! The Noise channel: `Noise_XX_25519_ChaChaPoly_BLAKE2b` over Ristretto255.
//!
//! `snow` runs the handshake with our own primitives; after it, [`NoiseStream`] encrypts and
//! decrypts in place with ring. docs/protocol/02-transport-and-connectivity.md section 4.2.

pub use error::NoiseError;
pub use handshake::{Handshake, initiate, respond};
pub use keys::HandshakeKeys;
pub use reader::FrameReader;
pub use stream::NoiseStream;
pub use writer::FrameWriter;

mod cipher;
mod error;
mod handshake;
mod keys;
mod reader;
mod resolver;
mod stream;
mod writer;

#[cfg(test)]
mod tests;
