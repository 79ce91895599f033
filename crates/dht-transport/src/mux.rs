//! Streams over one connection: the `yamux` package behind our own types.
//! docs/protocol/02-transport-and-connectivity.md section 4.4.

pub(crate) use backlog::Backlog;
pub(crate) use io::MuxIo;
pub(crate) use meter::{LiveStreams, SendMeter};
pub use substream::Substream;
pub(crate) use task::{MuxSettings, MuxTask, OpenRequest};

mod backlog;
mod frame;
mod gate;
mod io;
mod meter;
mod outgoing;
mod substream;
mod task;

use crate::limits::{MAX_STREAMS, WINDOW_GROWTH_BYTES, YAMUX_FRAME_BYTES};

/// Window that yamux promises each stream.
const STREAM_WINDOW_BYTES: usize = 256 * 1024;

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    // The package checks the window against the number of streams in each setter: order matters.
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(
        MAX_STREAMS * STREAM_WINDOW_BYTES + WINDOW_GROWTH_BYTES,
    ));
    config.set_split_send_size(YAMUX_FRAME_BYTES);
    config.set_read_after_close(true);
    config
}

#[cfg(test)]
mod tests;
