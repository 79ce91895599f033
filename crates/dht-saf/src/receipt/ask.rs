//! Asks a peer for receipts, for any number of messages over one stream.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    time::Duration,
};

use dht_core::DedupHash;
use dht_stack::{Channel, WhenFull};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter},
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{ANSWER_BYTES, MAX_UNANSWERED, QUESTION_BYTES, RECEIPT_LIMIT, Receipt};

/// Questions queued for one stream.
pub const RECEIPT_QUESTIONS: Channel = Channel {
    name: "receipt questions",
    from: &[("application", WhenFull::Wait)],
    to: "receipt stream",
    capacity: MAX_UNANSWERED,
};

/// Asks one peer for receipts. Clones share the stream, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct ReceiptAsker(mpsc::Sender<Question>);

#[derive(Debug)]
struct Question {
    hash: DedupHash,
    answer: oneshot::Sender<Receipt>,
}

/// Time after a question by which the answer is here, or no answer is to be expected on its stream.
const ANSWER_LIMIT: Duration = RECEIPT_LIMIT.saturating_mul(2);

/// A question that was sent and not answered.
#[derive(Debug)]
struct Asked {
    at: Instant,
    /// Callers that wait for the answer.
    askers: Vec<oneshot::Sender<Receipt>>,
}

/// The unanswered questions of a stream. Ordered: callers see the end of the stream in the order of this map, and the same run
/// twice must wake them in the same order.
type Waiting = Mutex<BTreeMap<DedupHash, Asked>>;

impl ReceiptAsker {
    /// An asker over the stream that `opening` brings, and the future that carries its questions and answers, to be run
    /// as a task. The future ends when the stream does, or is not there within 20 s, when the peer leaves a question unanswered
    /// for longer than the protocol allows, or when all handles are dropped and every answer is in.
    pub fn new<T>(
        opening: impl Future<Output = io::Result<T>> + Send,
    ) -> (Self, impl Future<Output = ()> + Send)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (sender, questions) = RECEIPT_QUESTIONS.open();
        let carrying = async move {
            if let Ok(Ok(stream)) = timeout(ANSWER_LIMIT, opening).await {
                // Callers see from the end of this future that there is no answer.
                let _ = carry(stream, questions).await;
            }
        };
        (Self(sender), carrying)
    }

    /// Asks what has become of a message, and waits while the peer waits for it. `None` if no answer came: the stream
    /// ended, or the peer took longer than the protocol allows.
    ///
    /// # Cancel safety
    /// Dropping the future drops the answer only.
    pub async fn ask(&self, hash: DedupHash) -> Option<Receipt> {
        let (answer, receipt) = oneshot::channel();
        let asking = async {
            self.0.send(Question { hash, answer }).await.ok()?;
            receipt.await.ok()
        };
        timeout(ANSWER_LIMIT, asking).await.ok()?
    }

    /// Whether the stream has ended; a new asker is needed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

async fn carry<T>(stream: T, mut questions: mpsc::Receiver<Question>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut reader, writer) = tokio::io::split(stream);
    // Questions that wait together go in one write.
    let mut writer = BufWriter::new(writer);
    let waiting = Waiting::default();
    let unanswered = Semaphore::new(MAX_UNANSWERED);
    let ask = async {
        loop {
            if questions.is_empty() {
                writer.flush().await?;
            }
            let Some(Question { hash, answer }) = questions.recv().await else {
                break;
            };
            match waiting.lock().entry(hash) {
                Entry::Occupied(mut asked) => {
                    asked.get_mut().askers.push(answer);
                    continue;
                }
                Entry::Vacant(unasked) => {
                    let (at, askers) = (Instant::now(), vec![answer]);
                    unasked.insert(Asked { at, askers });
                }
            }
            if unanswered.available_permits() == 0 {
                // The peer answers what it has.
                writer.flush().await?;
            }
            if let Ok(room) = unanswered.acquire().await {
                room.forget();
            }
            writer.write_all(&hash.0).await?;
        }
        writer.shutdown().await?;
        // The peer closes once it has answered.
        sleep(ANSWER_LIMIT).await;
        Err(io::Error::from(io::ErrorKind::TimedOut))
    };
    let hear = async {
        let mut answer = [0; ANSWER_BYTES];
        loop {
            reader.read_exact(&mut answer).await?;
            let (hash, status) = answer.split_at(QUESTION_BYTES);
            let hash = hash.try_into().map(DedupHash).map_err(io::Error::other)?;
            // An answer that was not asked for is a mistake of the peer.
            let Some(Asked { askers, .. }) = waiting.lock().remove(&hash) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            unanswered.add_permits(1);
            let receipt = Receipt::from_status(status.first().copied().unwrap_or_default());
            for asker in askers {
                let _ = asker.send(receipt);
            }
        }
    };
    let silence = async {
        loop {
            let now = Instant::now();
            let oldest = waiting.lock().values().map(|asked| asked.at).min();
            let end = oldest.unwrap_or(now) + ANSWER_LIMIT;
            if end <= now {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep_until(end).await;
        }
    };
    tokio::select! {
        biased;
        ended = ask => ended,
        ended = hear => ended,
        ended = silence => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_matched_in_any_order() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (asker, carrying) = ReceiptAsker::new(async { Ok(ours) });
        let carrying = tokio::spawn(carrying);
        let names: Vec<_> = (0..3).map(|n| DedupHash([n; 32])).collect();
        let peer = async {
            let mut asked = Vec::new();
            for _ in 0..3 {
                let mut hash = [0; QUESTION_BYTES];
                theirs.read_exact(&mut hash).await.unwrap();
                asked.push(hash);
            }
            for hash in asked.iter().rev() {
                theirs.write_all(hash).await.unwrap();
                theirs.write_u8(hash[0]).await.unwrap();
            }
        };
        // The first is asked for twice, and travels once.
        let (first, second, third, again, ()) = tokio::join!(
            asker.ask(names[0]),
            asker.ask(names[1]),
            asker.ask(names[2]),
            asker.ask(names[0]),
            peer
        );
        assert_eq!(
            (first, again),
            (Some(Receipt::Neither), Some(Receipt::Neither))
        );
        assert_eq!(
            (second, third),
            (Some(Receipt::Stored), Some(Receipt::Received))
        );
        drop(theirs);
        carrying.await.unwrap();
        assert!(asker.is_closed());
        assert_eq!(asker.ask(names[0]).await, None);
    }

    /// Questions that wait for room do not hold back those before them.
    #[tokio::test]
    async fn unanswered_questions_are_flushed() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (asker, carrying) = ReceiptAsker::new(async { Ok(ours) });
        tokio::spawn(carrying);
        let asking = (0..=MAX_UNANSWERED).map(|n| {
            let mut hash = [0; QUESTION_BYTES];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            asker.ask(DedupHash(hash))
        });
        let peer = async {
            for _ in 0..=MAX_UNANSWERED {
                let mut hash = [0; QUESTION_BYTES];
                theirs.read_exact(&mut hash).await.unwrap();
                theirs.write_all(&hash).await.unwrap();
                theirs.write_u8(Receipt::Received as u8).await.unwrap();
            }
        };
        let (answers, ()) = tokio::join!(futures::future::join_all(asking), peer);
        assert!(answers.iter().all(|it| *it == Some(Receipt::Received)));
    }

    #[tokio::test]
    async fn callers_see_the_end_in_order() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (asker, carrying) = ReceiptAsker::new(async { Ok(ours) });
        let carrying = tokio::spawn(carrying);
        let (told, mut ended) = mpsc::unbounded_channel();
        for n in 0..50 {
            let (asker, told) = (asker.clone(), told.clone());
            tokio::spawn(async move {
                let answer = asker.ask(DedupHash([n; 32])).await;
                told.send((n, answer)).unwrap();
            });
        }
        theirs
            .read_exact(&mut [0; 50 * QUESTION_BYTES])
            .await
            .unwrap();
        drop(theirs);
        carrying.await.unwrap();
        for n in 0..50 {
            assert_eq!(ended.recv().await, Some((n, None)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silent_peers_end_the_stream() {
        // The peer takes questions, keeps the stream open, and answers nothing.
        let (ours, _theirs) = tokio::io::duplex(4096);
        let (asker, carrying) = ReceiptAsker::new(async { Ok(ours) });
        let carrying = tokio::spawn(carrying);
        sleep(RECEIPT_LIMIT).await;
        assert_eq!(asker.ask(DedupHash([1; 32])).await, None);
        timeout(RECEIPT_LIMIT, carrying).await.unwrap().unwrap();
        assert!(asker.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn unopened_streams_are_given_up() {
        let opening = std::future::pending::<io::Result<tokio::io::DuplexStream>>();
        let (asker, carrying) = ReceiptAsker::new(opening);
        timeout(3 * RECEIPT_LIMIT, carrying).await.unwrap();
        assert!(asker.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_with_their_askers() {
        // No caller asks any more, and the peer does not close its side.
        let (ours, _theirs) = tokio::io::duplex(4096);
        let (asker, carrying) = ReceiptAsker::new(async { Ok(ours) });
        drop(asker);
        timeout(3 * RECEIPT_LIMIT, carrying).await.unwrap();
    }
}
