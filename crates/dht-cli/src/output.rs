//! Standard output and standard error, each written by a thread of its own: a terminal or pipe that is not read does
//! not stop the node.

mod pipe;

use std::{
    borrow::Cow,
    io::{self, Write},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use dht_stack::{Channel, WhenFull};
use tokio::sync::{
    mpsc::{Receiver, Sender, error::TrySendError},
    oneshot,
};

use self::pipe::PipeReader;
use crate::exit::Failure;

/// Lines of standard output that wait for their turn. The thread that writes them waits only for the reader.
const LINES: Channel = Channel {
    name: "lines of standard output",
    from: &[("application", WhenFull::Wait)],
    to: "standard output",
    capacity: 16,
};
/// Lines of standard error that wait for their turn; more are lost, and counted. The thread that writes them waits only
/// for whoever reads.
const LOG_LINES: Channel = Channel {
    name: "lines of standard error",
    from: &[("log", WhenFull::Shed), ("application", WhenFull::Shed)],
    to: "standard error",
    capacity: 4096,
};
/// Interval between attempts to queue a line that must not be lost, and between two looks whether it is written.
const RETRY: Duration = Duration::from_millis(5);

static OUT: LazyLock<Sender<Line>> = LazyLock::new(|| {
    let (sender, lines) = LINES.open();
    spawn("stdout", move || write_lines(lines));
    sender
});
static ERR: LazyLock<Sender<Entry>> = LazyLock::new(|| {
    let (sender, entries) = LOG_LINES.open();
    spawn("stderr", move || write_log(entries, io::stderr(), &LOST));
    sender
});
/// Log lines that were lost and not yet reported.
static LOST: AtomicU64 = AtomicU64::new(0);

struct Line {
    text: String,
    wait: Wait,
    /// Whether it was read, as far as that was asked for.
    written: oneshot::Sender<io::Result<bool>>,
}

/// Whether a line waits until the reader of a pipe has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    No,
    /// For some seconds, but not for a reader that was slow before.
    UnlessSlow,
    /// For some seconds, whatever the reader did before.
    Always,
}

enum Entry {
    Text(Vec<u8>),
    /// Answered once everything before is written.
    Flush(oneshot::Sender<()>),
}

/// Prints a line to standard output and waits until it is written.
///
/// # Errors
/// The failure with which the command ends: without a text if the reader closed the pipe, as in `… | head -1`.
pub(crate) async fn print(text: impl Into<String>) -> Result<(), Failure> {
    write(text.into() + "\n", Wait::No).await.map(drop)
}

/// As [`print`], and waits until the reader of a pipe has read the line; false if it is too slow to be waited for.
///
/// # Errors
/// As [`print`]; also if the reader closed the pipe before it read the line.
pub(crate) async fn print_read(text: impl Into<String>) -> Result<bool, Failure> {
    write(text.into() + "\n", Wait::UnlessSlow).await
}

/// Whether everything printed was read.
///
/// # Errors
/// As [`print_read`].
pub(crate) async fn is_read() -> Result<bool, Failure> {
    write(String::new(), Wait::UnlessSlow).await
}

/// As [`is_read`], and waits some seconds for a slow reader, too: for the end of a command.
///
/// # Errors
/// As [`print_read`].
pub(crate) async fn all_read() -> Result<bool, Failure> {
    write(String::new(), Wait::Always).await
}

/// Replaces control characters, with which a peer could write anything on the terminal.
pub(crate) fn printable(text: &str) -> String {
    let safe = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(safe).collect()
}

/// Escapes the characters that change the direction of text, end lines, or are controls of 8 bits, with which a peer could
/// change what a terminal shows. The escape is that of JSON, whose values stay the same.
fn escape_unsafe(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let escape = |escaped: String, c: char| match is_unsafe(c) {
        true => format!("{escaped}\\u{:04x}", u32::from(c)),
        false => escaped + c.encode_utf8(&mut [0; 4]),
    };
    text.chars().fold(String::new(), escape).into()
}

/// A line of the log without a control character but its end and tabs: what a peer wrote neither begins a line of its own
/// nor changes the terminal.
fn log_line(line: &str) -> String {
    let (text, end) = line
        .strip_suffix('\n')
        .map_or((line, ""), |text| (text, "\n"));
    let mut escaped = String::with_capacity(line.len());
    for c in escape_unsafe(text).chars() {
        if c.is_ascii_control() && c != '\t' {
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped + end
}

/// A value of the API as one line of JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::other(format!("cannot write JSON: {error}")))
}

async fn write(text: String, wait: Wait) -> Result<bool, Failure> {
    let text = escape_unsafe(&text).into_owned();
    let (written, outcome) = oneshot::channel();
    let line = Line {
        text,
        wait,
        written,
    };
    let gone = || io::Error::other("its thread has ended");
    let outcome = match OUT.send(line).await {
        Ok(()) => outcome.await.unwrap_or_else(|_| Err(gone())),
        Err(_) => Err(gone()),
    };
    outcome.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::closed_pipe(),
        _ => Failure::other(format!("cannot write to standard output: {error}")),
    })
}

/// Prints a line to standard error; waits at most for `limit` until there is room for it.
pub(crate) fn say(text: &str, limit: Duration) {
    let text = format!("{}\n", escape_unsafe(text));
    queue(Entry::Text(text.into_bytes()), limit);
}

/// Shows a text in the last line of a terminal at standard error, in place of the one before; drops it if there is no room.
pub(crate) fn say_in_place(text: &str) {
    let text = format!("\r\u{1b}[2K{}", escape_unsafe(text));
    queue(Entry::Text(text.into_bytes()), Duration::ZERO);
}

/// Fails if standard output was closed when the process started: the runtime of Rust then opens the null device for reading
/// and writing, which shells open for writing only.
pub(crate) fn check_open() -> Result<(), Failure> {
    #[cfg(unix)]
    {
        use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, stat};
        let out = io::stdout();
        let (Ok(opened), Ok(null), Ok(flags)) = (fstat(&out), stat("/dev/null"), fcntl_getfl(&out))
        else {
            return Ok(());
        };
        let is_null = FileType::from_raw_mode(opened.st_mode).is_char_device()
            && opened.st_rdev == null.st_rdev;
        if is_null && flags.contains(OFlags::RDWR) {
            return Err(Failure::other(
                "standard output is closed, so nobody reads the messages and none is acked; to discard them: > /dev/null"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

/// Waits until standard error has been written, at most for `limit`.
pub(crate) fn flush(limit: Duration) {
    let (done, mut written) = oneshot::channel();
    queue(Entry::Flush(done), limit);
    let mut waited = Duration::ZERO;
    // After the limit, what is left is lost with the process.
    while waited < limit && written.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
        thread::sleep(RETRY);
        waited += RETRY;
    }
}

fn queue(mut entry: Entry, limit: Duration) {
    let mut waited = Duration::ZERO;
    while let Err(TrySendError::Full(back)) = ERR.try_send(entry) {
        if waited >= limit {
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        thread::sleep(RETRY);
        waited += RETRY;
        entry = back;
    }
}

/// Where the log goes: standard error, without waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        queue(Entry::Text(log_line(&text).into_bytes()), Duration::ZERO);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    // Without the thread its channel is closed, which callers report.
    let _thread = thread::Builder::new().name(name.to_owned()).spawn(run);
}

fn write_lines(mut lines: Receiver<Line>) {
    let mut out = io::stdout();
    let mut reader = PipeReader::default();
    while let Some(line) = lines.blocking_recv() {
        let outcome = out
            .write_all(line.text.as_bytes())
            .and_then(|()| out.flush())
            .and_then(|()| match line.wait {
                Wait::No => Ok(true),
                Wait::UnlessSlow => reader.wait(&out, false),
                Wait::Always => reader.wait(&out, true),
            });
        // A caller that no longer waits has been interrupted.
        let _gone = line.written.send(outcome);
    }
}

fn write_log(mut entries: Receiver<Entry>, mut out: impl Write, lost: &AtomicU64) {
    // An error is ignored: there is no other place to report it, and the node goes on without its log.
    while let Some(entry) = entries.blocking_recv() {
        match entry {
            Entry::Text(text) => {
                let count = lost.swap(0, Ordering::Relaxed);
                if count > 0 {
                    let _ = writeln!(
                        out,
                        "{count} log lines were lost: standard error was not read"
                    );
                }
                let _ = out.write_all(&text);
            }
            Entry::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With every channel of the node and of this program full, some task can still move.
    #[test]
    fn channels_have_no_waiting_cycle() {
        let mut channels = dht_node::channels();
        channels.extend([&LINES, &LOG_LINES]);
        assert_eq!(dht_stack::waiting_cycle(&channels), None);
        // The test would notice: a node that waited for standard output would close the circle.
        const ECHO: Channel = Channel {
            name: "echo",
            from: &[("standard output", WhenFull::Wait)],
            to: "application",
            capacity: 1,
        };
        channels.push(&ECHO);
        let cycle = dht_stack::waiting_cycle(&channels).unwrap();
        assert_eq!(cycle, ["application", "standard output"]);
    }

    #[test]
    fn direction_marks_are_escaped() {
        let text = "gr\u{fc}\u{df}e \u{5d0} \u{202e}exe.txt\u{2069}";
        let escaped = escape_unsafe(text);
        assert_eq!(escaped, "gr\u{fc}\u{df}e \u{5d0} \\u202eexe.txt\\u2069");
        let json = serde_json::to_string(text).unwrap();
        let read: String = serde_json::from_str(&escape_unsafe(&json)).unwrap();
        assert_eq!(read, text);
    }

    #[test]
    fn log_lines_hold_no_controls() {
        let line = log_line("reason=a\tb\u{1b}[31m\r\nINFO forged\u{202e}\n");
        assert_eq!(
            line,
            "reason=a\tb\\u001b[31m\\u000d\\u000aINFO forged\\u202e\n"
        );
    }

    #[test]
    fn eight_bit_controls_are_escaped() {
        let escaped = escape_unsafe("a\u{9b}31m\u{9d}0;title\u{7f}\u{2028}\n");
        assert_eq!(escaped, "a\\u009b31m\\u009d0;title\\u007f\\u2028\n");
    }

    #[test]
    fn lost_lines_are_counted() {
        let (sender, entries) = LOG_LINES.open_for(4);
        let lost = AtomicU64::new(7);
        for text in ["a\n", "b\n"] {
            sender.try_send(Entry::Text(text.into())).unwrap();
        }
        drop(sender);
        let mut written = Vec::new();
        write_log(entries, &mut written, &lost);
        let written = String::from_utf8(written).unwrap();
        assert_eq!(
            written,
            "7 log lines were lost: standard error was not read\na\nb\n"
        );
        assert_eq!(lost.into_inner(), 0);
    }
}
