//! Answers peers that ask for receipts.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use dht_core::{DedupHash, NodeId};
use dht_stack::{Rate, TokenBuckets};
use futures::{FutureExt as _, Stream, StreamExt as _, stream, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{ANSWER_BYTES, IDLE_LIMIT, MAX_UNANSWERED, QUESTION_BYTES, RECEIPT_LIMIT, Receipt};

/// Streams of one peer answered at one time; beyond it its new streams are closed. The second is for a peer that opens
/// one before this node knows that the first has ended. No peer keeps another one out: a stream ends with the connection
/// of its peer, so there are as many at most as connections allow.
const MAX_PEER_STREAMS: usize = 2;
/// Time in which the peer must read an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Questions of one peer, as many as messages that an application can send in a second over the local API. Beyond it they
/// are left in the peer's stream.
pub(crate) const RATE: Rate = Rate::per_second(5_000);
/// Peers whose rate is remembered; connections are bounded far below this.
pub(crate) const MAX_ASKERS: usize = 4096;

/// Holds each peer to its rate of questions.
struct Pace {
    buckets: TokenBuckets<NodeId>,
    start: Instant,
}

/// Answers streams as [`Saf::serve_receipts`](crate::Saf::serve_receipts) says. `decide` tells what has become of a
/// message, and may wait for it.
pub(crate) async fn serve<T, D, F>(
    decide: D,
    buckets: TokenBuckets<NodeId>,
    streams: impl Stream<Item = (NodeId, T)>,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Fn(NodeId, DedupHash) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Receipt> + Send,
{
    let start = Instant::now();
    let pace = Arc::new(Pace { buckets, start });
    let mut streams = std::pin::pin!(streams);
    let mut answering = JoinSet::new();
    // Each stream holds a clone of its peer's token.
    let mut peers = HashMap::<NodeId, Arc<()>>::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = answering.join_next(), if !answering.is_empty() => {
                peers.retain(|_, streams| Arc::strong_count(streams) > 1);
            }
            stream = streams.next() => {
                let Some((peer, stream)) = stream else { return };
                let open = peers.entry(peer).or_default();
                if Arc::strong_count(open) > MAX_PEER_STREAMS {
                    continue;
                }
                let (decide, open, pace) = (decide.clone(), Arc::clone(open), Arc::clone(&pace));
                answering.spawn(async move {
                    let _open = open;
                    // The asker sees a failure as a stream that ended early.
                    let _ = answer(peer, &decide, &pace, stream).await;
                });
            }
        }
    }
}

async fn answer<T, D, F>(peer: NodeId, decide: &D, pace: &Pace, stream: T) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
    D: Fn(NodeId, DedupHash) -> F,
    F: Future<Output = Receipt>,
{
    let decide = |hash| async move {
        let receipt = timeout(RECEIPT_LIMIT, decide(peer, hash)).await;
        (hash, receipt.unwrap_or(Receipt::Neither))
    };
    let (reader, mut writer) = tokio::io::split(stream);
    let mut questions = std::pin::pin!(questions(peer, pace, reader));
    let mut answers = FuturesUnordered::new();
    let mut asking = true;
    while asking || !answers.is_empty() {
        tokio::select! {
            biased;
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

impl Pace {
    /// Counts a question, and waits until the peer has room for the next one.
    async fn keep(&self, peer: &NodeId) {
        let now = self.start.elapsed().as_secs();
        if let Some(second) = self.buckets.charge(peer, 0, 1, now) {
            sleep_until(self.start + Duration::from_secs(second)).await;
        }
    }
}

/// The hashes that the peer sends, until it closes its side or the stream fails. The stream keeps a question that was
/// read in part, and those that the peer's rate does not allow yet wait in it.
fn questions<T: AsyncRead>(
    peer: NodeId,
    pace: &Pace,
    reader: ReadHalf<T>,
) -> impl Stream<Item = DedupHash> + use<'_, T>
where
    ReadHalf<T>: Unpin,
{
    stream::unfold(reader, move |mut reader| async move {
        let mut hash = [0; QUESTION_BYTES];
        reader.read_exact(&mut hash).await.ok()?;
        pace.keep(&peer).await;
        Some((DedupHash(hash), reader))
    })
}

fn push(bytes: &mut Vec<u8>, (hash, receipt): (DedupHash, Receipt)) {
    bytes.extend_from_slice(&hash.0);
    bytes.push(receipt as u8);
}
