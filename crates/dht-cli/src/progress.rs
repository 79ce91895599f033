//! Progress of a command that takes more than a second, for people at a terminal.

use std::{io::IsTerminal as _, time::Duration};

use tokio::time::{Instant, interval_at};

use crate::output::say_in_place;

/// Time after which progress is shown, and then between two updates.
const TICK: Duration = Duration::from_secs(1);

/// Waits for a future, and shows for how many seconds in a line of standard error, if that is a terminal.
pub(crate) async fn shown<T>(what: &str, future: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return future.await;
    }
    let mut has_line = false;
    let outcome = ticked(future, |seconds| {
        has_line = true;
        say_in_place(&format!("{what}: {seconds} s; ctrl-C stops"));
    })
    .await;
    if has_line {
        say_in_place("");
    }
    outcome
}

/// Calls `tick` with the seconds waited, each second.
async fn ticked<T>(future: impl Future<Output = T>, mut tick: impl FnMut(u64)) -> T {
    let start = Instant::now();
    let mut seconds = interval_at(start + TICK, TICK);
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
        for (wait, expected) in [(900, vec![]), (2_500, vec![1, 2])] {
            let mut shown = Vec::new();
            ticked(sleep(Duration::from_millis(wait)), |seconds| {
                shown.push(seconds)
            })
            .await;
            assert_eq!(shown, expected);
        }
    }
}
