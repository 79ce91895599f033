//! Progress of a command that takes more than a second, on standard error.

use std::{io::IsTerminal as _, time::Duration};

use tokio::time::{Instant, interval_at};

use crate::output::{say, say_in_place};

/// Time after which progress is shown on a terminal, and then between two updates of its line.
const TICK: Duration = Duration::from_secs(1);
/// The same for the lines of a file or pipe.
const LINE_TICK: Duration = Duration::from_secs(5);

/// Waits for a future, and shows for how many seconds: in one line of a terminal, or in lines of a file or pipe.
pub(crate) async fn shown<T>(what: &str, future: impl Future<Output = T>) -> T {
    shown_as(|| what.to_owned(), future).await
}

/// As [`shown`], with a text that changes.
pub(crate) async fn shown_as<T>(what: impl Fn() -> String, future: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        let line = |seconds| say(&format!("{}: {seconds} s", what()), Duration::ZERO);
        return ticked(LINE_TICK, future, line).await;
    }
    let mut has_line = false;
    let outcome = ticked(TICK, future, |seconds| {
        has_line = true;
        say_in_place(&format!("{}: {seconds} s; ctrl-C stops", what()));
    })
    .await;
    if has_line {
        say_in_place("");
    }
    outcome
}

/// Calls `tick` with the seconds waited, again and again.
async fn ticked<T>(
    interval: Duration,
    future: impl Future<Output = T>,
    mut tick: impl FnMut(u64),
) -> T {
    let start = Instant::now();
    let mut seconds = interval_at(start + interval, interval);
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            biased;
            outcome = &mut future => return outcome,
            now = seconds.tick() => tick(now.duration_since(start).as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_waits_show_their_seconds() {
        for (tick, wait, expected) in [
            (TICK, 900, vec![]),
            (TICK, 2_500, vec![1, 2]),
            (LINE_TICK, 10_500, vec![5, 10]),
        ] {
            let mut shown = Vec::new();
            let wait = sleep(Duration::from_millis(wait));
            ticked(tick, wait, |seconds| shown.push(seconds)).await;
            assert_eq!(shown, expected);
        }
    }
}
