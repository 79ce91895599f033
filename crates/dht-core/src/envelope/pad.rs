//! Padding that hides the length of a message (01 section 6.3).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{OpenError, SealError};

/// Encrypted plaintexts are a multiple of this many bytes, length prefix included.
pub const PADDING_BLOCK_BYTES: usize = 6_000;
const PREFIX_BYTES: usize = 4;

/// Prefixes `message` with its length and fills with zeros to whole blocks, leaving room for `spare` more
/// bytes behind it.
///
/// # Byte layout
/// `LE32(len) || message || 0 × z`, z the smallest that makes the whole a multiple of 6000.
///
/// # Errors
/// [`SealError::TooLong`] for messages of 4 GiB and more.
///
/// ```
/// use dht_core::{PADDING_BLOCK_BYTES, pad, unpad};
///
/// let padded = pad(b"hello", 16)?; // room for an authentication tag
/// assert_eq!(padded.len(), PADDING_BLOCK_BYTES);
/// assert_eq!(unpad(padded.freeze())?, &b"hello"[..]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pad(message: &[u8], spare: usize) -> Result<BytesMut, SealError> {
    let length = u32::try_from(message.len()).map_err(|_| SealError::TooLong)?;
    let padded = message
        .len()
        .saturating_add(PREFIX_BYTES)
        .checked_next_multiple_of(PADDING_BLOCK_BYTES)
        .ok_or(SealError::TooLong)?;
    let mut block = BytesMut::with_capacity(padded.saturating_add(spare));
    block.put_u32_le(length);
    block.put_slice(message);
    block.resize(padded, 0);
    Ok(block)
}

/// Cuts the message out of a decrypted block. The padding's content and surplus blocks do not matter.
///
/// # Errors
/// [`OpenError::TooShort`], [`OpenError::NotWholeBlocks`] or [`OpenError::LengthPrefix`].
pub fn unpad(mut block: Bytes) -> Result<Bytes, OpenError> {
    if block.len() < PREFIX_BYTES {
        return Err(OpenError::TooShort);
    }
    if !block.len().is_multiple_of(PADDING_BLOCK_BYTES) {
        return Err(OpenError::NotWholeBlocks);
    }
    let length = usize::try_from(block.get_u32_le()).map_err(|_| OpenError::LengthPrefix)?;
    if length > block.len() {
        return Err(OpenError::LengthPrefix);
    }
    block.truncate(length);
    Ok(block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exact_block_is_not_extended() {
        assert_eq!(pad(&[1; 5996], 0).unwrap().len(), 6000);
        assert_eq!(pad(&[1; 5997], 0).unwrap().len(), 12_000);
        assert_eq!(pad(&[], 0).unwrap().len(), 6000);
    }

    #[test]
    fn short_blocks_are_refused() {
        assert_eq!(unpad(Bytes::new()), Err(OpenError::TooShort));
        assert_eq!(unpad(Bytes::from_static(&[0; 3])), Err(OpenError::TooShort));
        assert_eq!(
            unpad(Bytes::from_static(&[0; 4])),
            Err(OpenError::NotWholeBlocks)
        );
    }

    proptest! {
        #[test]
        fn padding_round_trips(message in proptest::collection::vec(any::<u8>(), 0..13_000)) {
            let padded = pad(&message, 16).unwrap().freeze();
            prop_assert_eq!(padded.len() % PADDING_BLOCK_BYTES, 0);
            prop_assert_eq!(unpad(padded), Ok(Bytes::from(message)));
        }
    }
}
