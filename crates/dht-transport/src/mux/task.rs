//! Drives one multiplexed connection.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use yamux::{ConnectionError, Mode};

use super::{
    Backlog, LiveStreams, MuxIo, SendMeter, Substream, backlog::Place, config, gate::Gate,
    meter::LiveGuard, outgoing::OutgoingBytes,
};
use crate::{error::StreamError, limits::MAX_OUTBOUND_STREAMS, medium::Socket, noise::NoiseStream};

/// Asks the task for a new stream.
pub(crate) type OpenRequest = oneshot::Sender<Result<Substream, StreamError>>;

/// Requests taken from the channel while the multiplexer cannot open a stream.
const MAX_WAITING_OPENS: usize = 64;

/// Settings of one multiplexed connection.
#[derive(Clone, Copy)]
pub(crate) struct MuxSettings {
    pub(crate) we_dialled: bool,
    /// Streams of the peer at one time.
    pub(crate) max_inbound: usize,
    /// Whether the multiplexer may measure round trips, by the operating system's clock, and let windows grow with them.
    pub(crate) measures: bool,
}

/// Polls the multiplexer until the connection ends.
///
/// It must be polled always, whatever the streams do: it hands inbound streams to a callback that may not
/// wait, and never waits itself for anything but the socket and requests.
pub(crate) struct MuxTask {
    mux: yamux::Connection<MuxIo>,
    requests: mpsc::Receiver<OpenRequest>,
    waiting: VecDeque<OpenRequest>,
    live: Arc<LiveStreams>,
    backlog: Arc<Backlog>,
    outgoing: OutgoingBytes,
    max_inbound: usize,
    /// Tells the streams when it is over.
    ended: CancellationToken,
}

impl MuxTask {
    pub(crate) fn new(
        channel: NoiseStream<Socket>,
        settings: MuxSettings,
        requests: mpsc::Receiver<OpenRequest>,
        live: Arc<LiveStreams>,
        meter: Arc<SendMeter>,
        backlog: Arc<Backlog>,
    ) -> Self {
        let mode = if settings.we_dialled {
            Mode::Client
        } else {
            Mode::Server
        };
        let outgoing = OutgoingBytes::new();
        let gate = Gate::new(Arc::clone(&backlog), settings.measures);
        let io = MuxIo::new(channel, meter, outgoing.clone(), gate);
        let mux = yamux::Connection::new(io, config(), mode);
        let ended = CancellationToken::new();
        Self {
            mux,
            requests,
            waiting: VecDeque::new(),
            live,
            backlog,
            outgoing,
            max_inbound: settings.max_inbound,
            ended,
        }
    }

    /// Runs until the connection ends; a clean end is `Ok`. `inbound` gets the streams the remote opens;
    /// those over the limit are reset.
    pub(crate) async fn run(
        &mut self,
        mut inbound: impl FnMut(Substream),
    ) -> Result<(), ConnectionError> {
        poll_fn(|cx| self.poll(cx, &mut inbound)).await
    }

    /// Ends the connection politely: queued stream data, go-away, flush, end of stream.
    pub(crate) async fn close(&mut self) -> Result<(), ConnectionError> {
        self.requests.close();
        self.waiting.clear();
        // The bytes that the streams wrote are queued already and go out; from here on they fail.
        self.ended.cancel();
        poll_fn(|cx| self.mux.poll_close(cx)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        inbound: &mut impl FnMut(Substream),
    ) -> Poll<Result<(), ConnectionError>> {
        loop {
            while self.waiting.len() < MAX_WAITING_OPENS
                && let Poll::Ready(Some(request)) = self.requests.poll_recv(cx)
            {
                self.waiting.push_back(request);
            }
            // Before streams are opened, so that those just dropped are out of the multiplexer's count.
            match self.mux.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    let place = self.backlog.enter(stream.id().val());
                    if let Some(live) = self.live.try_add(true, self.max_inbound) {
                        inbound(self.substream(stream, live, place));
                    } else {
                        crate::metrics::stream_shed();
                        drop(stream);
                        drop(place);
                    }
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {}
            }
            if !self.poll_open(cx)? {
                return Poll::Pending;
            }
        }
    }

    /// Answers one request; false if there is none or it has to wait.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let Some(request) = self.waiting.pop_front() else {
            return Ok(false);
        };
        if request.is_closed() {
            return Ok(true);
        }
        // Correctness: the multiplexer ends the whole connection when it is asked for one stream too many.
        let Some(live) = self.live.try_add(false, MAX_OUTBOUND_STREAMS) else {
            let _gone = request.send(Err(StreamError::TooManyStreams));
            return Ok(true);
        };
        match self.mux.poll_new_outbound(cx) {
            Poll::Ready(Ok(stream)) => {
                let place = self.backlog.enter(stream.id().val());
                let _gone = request.send(Ok(self.substream(stream, live, place)));
                Ok(true)
            }
            Poll::Ready(Err(error)) => {
                let _gone = request.send(Err(StreamError::Closed));
                Err(error)
            }
            Poll::Pending => {
                self.waiting.push_front(request);
                Ok(false)
            }
        }
    }

    fn substream(&self, stream: yamux::Stream, live: LiveGuard, place: Place) -> Substream {
        Substream::new(
            stream,
            live,
            self.outgoing.room(),
            place,
            self.ended.clone(),
        )
    }
}

impl Drop for MuxTask {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}
