//! Receiving messages on a stream the peer opened.

use dht_peers::InboundFrame;
use std::{future::poll_fn, io, sync::Arc, time::Duration};

use bytes::Bytes;
use dht_core::RemotePeer;
use dht_stack::{ByteBudget, BytePermit};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{FrameAssembler, FrameTooLong, Step};
use crate::{
    limits::{
        FRAME_STALL_TIMEOUT, LARGE_FRAME_BYTES, LIGHT_BYTES, MAX_REPLACEMENTS_PER_SECOND,
        MESSAGE_OVERHEAD_BYTES, time_for,
    },
    mux::Substream,
};

/// Where messages go and what they are charged to. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    budget: ByteBudget,
    /// Bytes that unfinished large frames may hold together.
    unfinished: ByteBudget,
    sink: mpsc::Sender<InboundFrame>,
}

/// The one inbound messaging session of a connection.
#[derive(Debug)]
pub(crate) struct InboundSlot {
    state: Mutex<Slot>,
    /// Bytes of the budget's reserve that the connection may hold, over all its sessions.
    light: ByteBudget,
}

#[derive(Debug, Default)]
struct Slot {
    current: Option<CancellationToken>,
    window: Option<Instant>,
    replacements: u32,
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer closed the stream between two frames, or a newer stream took over.
    Done,
    /// The peer closed the stream inside a frame.
    Truncated,
    /// The stream or connection broke.
    Io(#[expect(dead_code, reason = "shown in traces")] io::Error),
    /// A frame over the limit: an offence.
    TooLong(#[expect(dead_code, reason = "shown in traces")] FrameTooLong),
    /// A frame came too slowly.
    Stalled,
    /// The owner takes no messages any more.
    ShutDown,
}

// === impl InboundSlot ===

impl InboundSlot {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            light: ByteBudget::new(LIGHT_BYTES),
        }
    }

    /// Claims the slot for a new session; the session before ends. `None` if the peer replaces its streams
    /// too often, and the new stream is to be reset.
    pub(crate) fn claim(&self, now: Instant) -> Option<CancellationToken> {
        let mut slot = self.state.lock();
        if let Some(current) = slot.current.take_if(|current| !current.is_cancelled()) {
            let second = Duration::from_secs(1);
            if slot
                .window
                .is_none_or(|start| now.saturating_duration_since(start) >= second)
            {
                slot.window = Some(now);
                slot.replacements = 0;
            }
            if slot.replacements >= MAX_REPLACEMENTS_PER_SECOND {
                slot.current = Some(current);
                return None;
            }
            slot.replacements += 1;
            current.cancel();
        }
        let token = CancellationToken::new();
        slot.current = Some(token.clone());
        Some(token)
    }
}

// === impl Receiver ===

impl Receiver {
    pub(crate) fn new(budget: ByteBudget, sink: mpsc::Sender<InboundFrame>) -> Self {
        let unfinished = ByteBudget::new(budget.total() / 4);
        Self {
            budget,
            unfinished,
            sink,
        }
    }

    /// Receives until the stream ends or `replaced` fires; what has arrived by then is still received.
    pub(crate) async fn run(
        &self,
        mut stream: Substream,
        peer: Arc<RemotePeer>,
        slot: &InboundSlot,
        replaced: CancellationToken,
    ) -> End {
        // The next session to claim the slot sees that this one is over.
        let _over = replaced.clone().drop_guard();
        match self.receive(&mut stream, &peer, slot, &replaced).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn receive(
        &self,
        stream: &mut Substream,
        peer: &Arc<RemotePeer>,
        slot: &InboundSlot,
        replaced: &CancellationToken,
    ) -> Result<End, End> {
        let mut assembler = FrameAssembler::new();
        let mut chunk = Bytes::new();
        loop {
            let length = loop {
                match assembler.push(&mut chunk).map_err(End::TooLong)? {
                    Step::Announced(length) => break length,
                    Step::Frame(_) | Step::Starved => {}
                }
                if chunk.is_empty() {
                    // Nothing is held while an idle peer is waited for, whatever the time.
                    let next = tokio::select! {
                        biased;
                        next = next_chunk(stream) => next,
                        () = replaced.cancelled() => return Ok(End::Done),
                    };
                    match next {
                        Some(next) => chunk = next.map_err(End::Io)?,
                        None if assembler.is_between_frames() => return Ok(End::Done),
                        None => return Err(End::Truncated),
                    }
                }
            };
            let (body, permit) = self
                .read_body(stream, &slot.light, &mut assembler, &mut chunk, length)
                .await?;
            crate::metrics::received(body.len());
            let frame = InboundFrame {
                source: Arc::clone(peer),
                frame: body,
                permit,
            };
            // The application's pace: while this waits, the peer's window fills.
            self.sink.send(frame).await.map_err(|_| End::ShutDown)?;
        }
    }

    /// Reads a frame whose head is in. Its bytes come out of the budget first.
    async fn read_body(
        &self,
        stream: &mut Substream,
        light: &ByteBudget,
        assembler: &mut FrameAssembler,
        chunk: &mut Bytes,
        length: usize,
    ) -> Result<(Bytes, BytePermit), End> {
        let _unfinished = if length > LARGE_FRAME_BYTES {
            Some(self.unfinished.acquire(length).await)
        } else {
            None
        };
        let permit = self.permit(length, light).await;
        let start = Instant::now();
        let mut arrived = 0;
        loop {
            arrived += chunk.len();
            if let Step::Frame(body) = assembler.push(chunk).map_err(End::TooLong)? {
                return Ok((body, permit));
            }
            // Never slower than the least speed, so that a byte now and then does not hold the frame's permit.
            let due = start + FRAME_STALL_TIMEOUT + time_for(arrived);
            let next = timeout(FRAME_STALL_TIMEOUT, timeout_at(due, next_chunk(stream)));
            match next
                .await
                .map_err(|_| End::Stalled)?
                .map_err(|_| End::Stalled)?
            {
                Some(next) => *chunk = next.map_err(End::Io)?,
                None => return Err(End::Truncated),
            }
        }
    }
}

impl Receiver {
    /// The right to hold a message of `length` bytes. A peer that holds little gets it out of the budget's reserve if
    /// there is no other, so that those who hold much - because their messages are not read, say - hold up
    /// themselves and not the others.
    async fn permit(&self, length: usize, light: &ByteBudget) -> BytePermit {
        let bytes = length.saturating_add(MESSAGE_OVERHEAD_BYTES);
        if let Some(permit) = self.budget.try_acquire(bytes) {
            return permit;
        }
        if bytes > light.total() {
            return self.budget.acquire(bytes).await;
        }
        match light.try_acquire(bytes) {
            Some(allowance) => self.budget.acquire_any(bytes).await.along_with(allowance),
            None => self.budget.acquire(bytes).await,
        }
    }
}

async fn next_chunk(stream: &mut Substream) -> Option<io::Result<Bytes>> {
    poll_fn(|cx| stream.poll_chunk(cx)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A newer stream replaces the older one, but only so often.
    #[tokio::test(start_paused = true)]
    async fn replacing_streams_has_a_rate_limit() {
        let slot = InboundSlot::new();
        let mut older = slot.claim(Instant::now()).unwrap();
        for _ in 0..MAX_REPLACEMENTS_PER_SECOND {
            let newer = slot.claim(Instant::now()).unwrap();
            assert!(older.is_cancelled());
            older = newer;
        }
        assert!(slot.claim(Instant::now()).is_none());
        assert!(!older.is_cancelled());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(slot.claim(Instant::now()).is_some());
        assert!(older.is_cancelled());
    }

    /// A connection that holds little is served while others hold the whole budget.
    #[tokio::test(start_paused = true)]
    async fn light_connection_draws_from_the_reserve() {
        let (sink, _messages) = mpsc::channel(1);
        let budget = ByteBudget::with_reserve(1 << 20, 1 << 17);
        let receiver = Receiver::new(budget, sink);
        let (heavy, quiet) = (ByteBudget::new(LIGHT_BYTES), ByteBudget::new(LIGHT_BYTES));
        let soon = Duration::from_secs(1);
        let mut held = Vec::new();
        while let Ok(permit) = timeout(soon, receiver.permit(6_000, &heavy)).await {
            held.push(permit);
        }
        for _ in 0..100 {
            // One after the other: each is answered and gone.
            drop(timeout(soon, receiver.permit(6_000, &quiet)).await.unwrap());
        }
        held.clear();
        assert_eq!(heavy.available(), LIGHT_BYTES);
        assert_eq!(receiver.budget.available(), receiver.budget.total());
    }

    #[tokio::test(start_paused = true)]
    async fn ended_session_is_no_replacement() {
        let slot = InboundSlot::new();
        for _ in 0..100 {
            slot.claim(Instant::now()).unwrap().cancel();
        }
    }
}
