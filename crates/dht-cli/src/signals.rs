//! Signals: SIGINT and SIGTERM stop the command in order; SIGHUP reads the configuration of a running node again and stops
//! any other command. A thread of its own serves them, whatever the node does.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use crate::{
    exit::{Failure, INTERRUPTED},
    output,
};

/// Longest time between the first signal and the end of the process.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Time within which signals count as one: less than people need for a second one.
const TOGETHER: Duration = Duration::from_millis(100);
/// Time for the last words on standard error.
const LAST_WORDS: Duration = Duration::from_millis(100);

static STOP: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));
static RELOAD: LazyLock<Notify> = LazyLock::new(Notify::new);

/// Whether this command reloads its settings on SIGHUP. Others stop, as on SIGTERM: their terminal is gone.
static RELOADS: AtomicBool = AtomicBool::new(false);

/// Ends once the process was told to stop.
pub(crate) async fn stopped() {
    let mut stop = STOP.subscribe();
    // The sender is static, so this ends with the signal only.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// From now on SIGHUP does not stop this command; it ends [`reload`].
pub(crate) fn serve_reloads() {
    RELOADS.store(true, Ordering::Relaxed);
}

/// Ends once the process was told to read its configuration again, after [`serve_reloads`].
pub(crate) async fn reload() {
    RELOAD.notified().await;
}

/// Runs a command that needs no orderly end, until it ends or is interrupted.
pub(crate) async fn or_interrupted<T>(
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        outcome = command => outcome,
        () = stopped() => Err(Failure::interrupted()),
    }
}

/// Catches the signals from now on.
pub(crate) fn catch() -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::other(format!("cannot catch the signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::new().map_err(failed)?
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let _ended = StopOnPanic;
            runtime.block_on(serve(&mut signals));
        })
        .map_err(failed)?;
    Ok(())
}

/// Stops the command if the thread of the signals panics: no signal could.
struct StopOnPanic;

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            output::say("error: signals are served no more: stopping", LAST_WORDS);
            STOP.send_replace(true);
        }
    }
}

async fn serve(signals: &mut Signals) {
    signals.stop().await;
    STOP.send_replace(true);
    let (reason, code) = forced_end(async || signals.stop().await).await;
    output::say(&format!("error: {reason}"), LAST_WORDS);
    output::flush(LAST_WORDS);
    std::process::exit(code.into())
}

/// Ends when the process must end, whatever the node does: the reason and the exit code.
async fn forced_end(signal: impl AsyncFnMut()) -> (String, u8) {
    match interrupted_again(signal).await {
        true => ("interrupted twice: stopped at once".to_owned(), INTERRUPTED),
        false => (format!("not stopped within {STOP_LIMIT:?}: ended"), 1),
    }
}

/// Whether a second signal comes before the time to stop is over. Signals that come with the first are one with it, as of
/// `timeout`, which sends its signal to the command and to its group.
async fn interrupted_again(mut signal: impl AsyncFnMut()) -> bool {
    let first = Instant::now();
    loop {
        if timeout_at(first + STOP_LIMIT, signal()).await.is_err() {
            return false;
        }
        if first.elapsed() >= TOGETHER {
            return true;
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ends with the next SIGINT or SIGTERM, or with SIGHUP if the command reloads nothing.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => {
                    if !RELOADS.load(Ordering::Relaxed) {
                        return;
                    }
                    RELOAD.notify_one();
                }
            }
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn stop(&mut self) {
        // Without signals only the end of the process stops the node.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn end_is_forced_after_five_seconds() {
        let first = Instant::now();
        let (reason, code) = forced_end(async || pending().await).await;
        assert_eq!(first.elapsed(), Duration::from_secs(5));
        assert_eq!((&*reason, code), ("not stopped within 5s: ended", 1));
        let (reason, code) = forced_end(async || sleep(TOGETHER).await).await;
        assert_eq!(first.elapsed(), Duration::from_millis(5_100));
        assert_eq!(
            (&*reason, code),
            ("interrupted twice: stopped at once", 130)
        );
    }

    /// Signals at these milliseconds after the first one.
    async fn again(after: &[u64]) -> bool {
        let (first, mut after) = (Instant::now(), after.iter());
        let signal = async || match after.next() {
            Some(ms) => tokio::time::sleep_until(first + Duration::from_millis(*ms)).await,
            None => sleep(Duration::MAX).await,
        };
        interrupted_again(signal).await
    }

    #[tokio::test(start_paused = true)]
    async fn signals_together_are_one() {
        assert!(!again(&[]).await);
        assert!(!again(&[0, 1, 99]).await);
        assert!(again(&[0, 150]).await);
        assert!(again(&[4_999]).await);
        assert!(!again(&[5_001]).await);
    }
}
