//! Answers peers that ask for receipts.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use dht_core::{DedupHash, NodeId};
use futures::{FutureExt as _, Stream, StreamExt as _, stream, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf},
    task::JoinSet,
    time::timeout,
};

use super::{ANSWER_BYTES, IDLE_LIMIT, MAX_UNANSWERED, QUESTION_BYTES, RECEIPT_LIMIT, Receipt};

/// Streams of one peer answered at one time; beyond it its new streams are closed. The second is for a peer that opens
/// one before this node knows that the first has ended. No peer keeps another one out: a stream ends with the connection
/// of its peer, so there are as many at most as connections allow.
const MAX_PEER_STREAMS: usize = 2;
/// Time in which the peer must read an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Answers every stream on which a peer asks for receipts, until `streams` ends; answers then under way are dropped.
/// Each stream comes with the peer that opened it. A peer that has two streams open gets no further one.
///
/// `decide` tells what has become of a message, and may wait for it: usually [`Saf::receipt`](crate::Saf::receipt). After
/// [`RECEIPT_LIMIT`] it is dropped, and the answer is [`Receipt::Neither`].
pub async fn serve_receipts<T, D, F>(decide: D, streams: impl Stream<Item = (NodeId, T)>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Fn(DedupHash) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Receipt> + Send,
{
    let mut streams = std::pin::pin!(streams);
    let mut answering = JoinSet::new();
    // Each stream holds a clone of its peer's token.
    let mut peers = HashMap::<NodeId, Arc<()>>::new();
    loop {
        tokio::select! {
            Some(_) = answering.join_next(), if !answering.is_empty() => {
                peers.retain(|_, streams| Arc::strong_count(streams) > 1);
            }
            stream = streams.next() => {
                let Some((peer, stream)) = stream else { return };
                let open = peers.entry(peer).or_default();
                if Arc::strong_count(open) > MAX_PEER_STREAMS {
                    continue;
                }
                let (decide, open) = (decide.clone(), Arc::clone(open));
                answering.spawn(async move {
                    let _open = open;
                    // The asker sees a failure as a stream that ended early.
                    let _ = answer(&decide, stream).await;
                });
            }
        }
    }
}

async fn answer<T, D, F>(decide: &D, stream: T) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
    D: Fn(DedupHash) -> F,
    F: Future<Output = Receipt>,
{
    let decide = |hash| async move {
        let receipt = timeout(RECEIPT_LIMIT, decide(hash)).await;
        (hash, receipt.unwrap_or(Receipt::Neither))
    };
    let (reader, mut writer) = tokio::io::split(stream);
    let mut questions = std::pin::pin!(questions(reader));
    let mut answers = FuturesUnordered::new();
    let mut asking = true;
    while asking || !answers.is_empty() {
        tokio::select! {
            Some(first) = answers.next(), if !answers.is_empty() => {
                let mut bytes = Vec::with_capacity(ANSWER_BYTES);
                push(&mut bytes, first);
                while let Some(Some(more)) = answers.next().now_or_never() {
                    push(&mut bytes, more);
                }
                let writing = async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                };
                timeout(WRITE_LIMIT, writing).await??;
            }
            question = timeout(IDLE_LIMIT, questions.next()), if asking && answers.len() < MAX_UNANSWERED => {
                match question {
                    Ok(Some(hash)) => answers.push(decide(hash)),
                    // Silence while answers are due is no idleness.
                    Err(_) if !answers.is_empty() => {}
                    Ok(None) | Err(_) => asking = false,
                }
            }
        }
    }
    timeout(WRITE_LIMIT, writer.shutdown()).await?
}

/// The hashes that the peer sends, until it closes its side or the stream fails. The stream keeps a question that was
/// read in part.
fn questions<T: AsyncRead>(reader: ReadHalf<T>) -> impl Stream<Item = DedupHash>
where
    ReadHalf<T>: Unpin,
{
    stream::unfold(reader, |mut reader| async move {
        let mut hash = [0; QUESTION_BYTES];
        reader.read_exact(&mut hash).await.ok()?;
        Some((DedupHash(hash), reader))
    })
}

fn push(bytes: &mut Vec<u8>, (hash, receipt): (DedupHash, Receipt)) {
    bytes.extend_from_slice(&hash.0);
    bytes.push(receipt as u8);
}
