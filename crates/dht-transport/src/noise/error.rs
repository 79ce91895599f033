use std::io;

/// Why a Noise channel could not be set up or broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// A handshake message does not decrypt, holds an invalid key, or a payload.
    #[error("noise handshake message is not acceptable")]
    Handshake,
    /// A handshake message of the wrong length.
    #[error("noise handshake message has {0} bytes")]
    HandshakeLength(usize),
    /// The remote did not send its handshake message in time.
    #[error("noise handshake message did not arrive in time")]
    Timeout,
    /// The socket failed.
    #[error("socket failed during the noise handshake: {0}")]
    Io(io::ErrorKind),
    /// A transport frame does not decrypt: fatal.
    #[error("noise frame does not decrypt")]
    Decrypt,
    /// 2^64 - 1 frames were sent or received under one key.
    #[error("noise nonce is used up")]
    Exhausted,
}

impl From<io::Error> for NoiseError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<NoiseError> for io::Error {
    fn from(error: NoiseError) -> Self {
        match error {
            NoiseError::Io(kind) => kind.into(),
            NoiseError::Timeout => Self::new(io::ErrorKind::TimedOut, error),
            _ => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}
