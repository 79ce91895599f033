//! The receipt protocol: the sender of a message asks a node whether that node stores it.
//!
//! It is a protocol of its own, announced in the identity message by nodes of this implementation only; stock peers
//! neither offer it nor are asked. It runs over any byte stream. A node sends a receipt only when it is asked, so
//! that relays have no cost.
//!
//! # Wire format
//!
//! | Direction | Bytes | Content |
//! |---|---|---|
//! | asker to node | 32 | dedup hash of the message |
//! | node to asker | 1 | 1 if the message is stored, 0 if not; sent once the commit is done |
//!
//! Then the node closes the stream.
//!
//! # Security
//!
//! Only a peer that has seen a message can name it, and learns nothing but whether it is stored here.

use std::{io, time::Duration};

use bytes::Bytes;
use dht_core::DedupHash;
use futures::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};

use crate::saf::Saf;

/// Name of the protocol, as peers announce it.
pub const RECEIPT_PROTOCOL: Bytes = Bytes::from_static(b"dht/saf-receipt/1");
/// Time limit of one exchange. A message that has not arrived by then does not count as stored.
pub const RECEIPT_LIMIT: Duration = Duration::from_secs(10);

/// Streams answered at one time; beyond it new streams wait.
const MAX_ANSWERING: usize = 256;

/// Answers every stream on which a peer asks for a receipt, until `streams` ends; answers then under way are dropped.
pub async fn serve_receipts<T>(saf: Saf, streams: impl Stream<Item = T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut streams = std::pin::pin!(streams);
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = answering.join_next(), if !answering.is_empty() => {}
            stream = streams.next(), if answering.len() < MAX_ANSWERING => {
                let Some(stream) = stream else { return };
                let saf = saf.clone();
                answering.spawn(async move {
                    // The asker sees a failure as a stream without an answer.
                    let _ = timeout(RECEIPT_LIMIT, answer(&saf, stream)).await;
                });
            }
        }
    }
}

/// Asks on a fresh stream whether the peer stores a message; waits until the peer has decided.
///
/// # Errors
/// When the stream fails or ends without an answer, which does not mean that the message is stored.
pub async fn ask_receipt<T>(mut stream: T, hash: &DedupHash) -> io::Result<bool>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&hash.0).await?;
    stream.flush().await?;
    Ok(stream.read_u8().await? == 1)
}

async fn answer<T>(saf: &Saf, mut stream: T) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut hash = [0; 32];
    stream.read_exact(&mut hash).await?;
    let stored = saf.is_stored(&DedupHash(hash)).await;
    stream.write_u8(stored.into()).await?;
    stream.shutdown().await
}
