//! The receipt protocol: the sender of a message asks a node what has become of it there.
//!
//! It is a protocol of its own, announced in the identity message by nodes of this implementation only; stock peers
//! neither offer it nor are asked. It runs over any byte stream, one for each pair of peers and any number of messages.
//!
//! # Wire format
//!
//! | Direction | Bytes | Content |
//! |---|---|---|
//! | asker to node | 32 | dedup hash of a message |
//! | node to asker | 33 | the hash, and the [`Receipt`]: 0 neither, 1 stored, 2 received |
//!
//! The asker may send [`MAX_UNANSWERED`] hashes before the first answer, each once until it is answered. Answers come in
//! any order, each at most [`RECEIPT_LIMIT`] after its hash. The node closes the stream when the asker has closed its
//! side, and when nothing was asked for [`IDLE_LIMIT`]; the asker when an answer is overdue by another [`RECEIPT_LIMIT`].
//! A third stream of one peer is closed at once. Questions beyond 5000 a second and peer are read later.
//!
//! # Security
//!
//! Only a peer that lately handed over a copy of a message on its own connection learns what has become of it here. Another
//! peer that knows the hash is answered as for a message that does not exist, after the same time.

mod answer;
mod ask;
mod decisions;

use std::time::Duration;

use bytes::Bytes;

pub(crate) use answer::{MAX_ASKERS, RATE, serve};
pub use ask::{RECEIPT_QUESTIONS, ReceiptAsker};
pub(crate) use decisions::Decisions;

/// Name of the protocol, as peers announce it.
pub const RECEIPT_PROTOCOL: Bytes = Bytes::from_static(b"dht/receipt/2");
/// Time for which an answer waits for a message that is still under way. One that has not arrived by then is answered
/// with [`Receipt::Neither`].
pub const RECEIPT_LIMIT: Duration = Duration::from_secs(10);
/// Hashes sent on one stream and not answered.
pub const MAX_UNANSWERED: usize = 256;
/// Time without a question after which the answering node closes a stream.
pub const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a question: a hash.
const QUESTION_BYTES: usize = 32;
/// Bytes of an answer: a hash and a status.
const ANSWER_BYTES: usize = QUESTION_BYTES + 1;

/// State of a message at the node that is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Receipt {
    /// The node neither stores nor received the message.
    Neither = 0,
    /// The node stores the message for its recipient, durably.
    Stored = 1,
    /// The node is the recipient: the message is in its durable inbox, or its application has taken it.
    Received = 2,
}

impl Receipt {
    /// Unknown statuses promise nothing.
    const fn from_status(status: u8) -> Self {
        match status {
            1 => Self::Stored,
            2 => Self::Received,
            _ => Self::Neither,
        }
    }
}
