//! The receipt protocol: a node that has sent mail asks a node of ours whether it keeps it.
//!
//! A protocol of its own, named in the identity message: stock peers neither offer it nor are asked. On a fresh
//! stream the one that asks writes the 32 bytes of the message's duplicate hash; the other answers one byte once
//! its commit is done, 1 if the message is kept and 0 if not, and closes. Nothing is sent unasked, so that relays
//! pay nothing for it. Whoever can name a message has seen it; the answer tells nothing else.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::DedupHash;
use dht_saf::Saf;
use dht_transport::{Connection, InboundStream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

/// Its name, as peers announce it.
pub(super) const RECEIPT_PROTOCOL: Bytes = Bytes::from_static(b"dht/saf-receipt/1");

/// Streams being answered at one time.
const MAX_ANSWERING: usize = 256;
/// The message may still be under way; after this it is not kept.
const LIMIT: Duration = Duration::from_secs(10);

/// Answers until no stream comes any more.
pub(super) async fn serve(saf: Saf, mut streams: mpsc::Receiver<InboundStream>) {
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = answering.join_next(), if !answering.is_empty() => {}
            stream = streams.recv(), if answering.len() < MAX_ANSWERING => {
                let Some(stream) = stream else { return };
                let saf = saf.clone();
                answering.spawn(async move {
                    // Whoever asked sees that there is no answer.
                    let _ = timeout(LIMIT, answer(&saf, stream)).await;
                });
            }
        }
    }
}

async fn answer(saf: &Saf, inbound: InboundStream) -> io::Result<()> {
    let mut stream = inbound.stream;
    let mut hash = [0; 32];
    stream.read_exact(&mut hash).await?;
    let kept = saf.kept(&DedupHash(hash)).await;
    stream.write_all(&[u8::from(kept)]).await?;
    stream.shutdown().await
}

/// Whether the peer of this connection can be asked.
pub(super) fn is_offered(connection: &Connection) -> bool {
    connection.info().protocols.contains(&RECEIPT_PROTOCOL)
}

/// Asks whether a message is kept. Everything but a clear yes is a no.
pub(super) async fn ask(connection: Arc<Connection>, hash: DedupHash) -> bool {
    let asking = async {
        let mut stream = connection.open(&RECEIPT_PROTOCOL).await.ok()?;
        stream.write_all(&hash.0).await.ok()?;
        stream.flush().await.ok()?;
        let mut kept = [0];
        stream.read_exact(&mut kept).await.ok()?;
        Some(kept == [1])
    };
    matches!(timeout(LIMIT, asking).await, Ok(Some(true)))
}
