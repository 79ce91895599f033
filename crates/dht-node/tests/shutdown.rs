//! A node stops within its limit, whatever holds it up.

use std::{pin::pin, sync::mpsc, time::Duration};

use dht_core::{Entropy as _, SecretKey, SeededEntropy};
use dht_node::{Node, SHUTDOWN_LIMIT};
use tokio::time::{Instant, advance};

/// The only thread of the blocking pool hangs, as on a device that does not answer.
#[test]
fn hanging_files_delay_no_shutdown() {
    const STEP: Duration = Duration::from_millis(50);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let (release, hanging) = mpsc::channel::<()>();
    runtime.block_on(async {
        let node = Node::builder(SecretKey::random(&mut SeededEntropy::new(1).rng()))
            .start()
            .await
            .unwrap();
        tokio::task::spawn_blocking(move || hanging.recv());
        let start = Instant::now();
        let mut stopping = pin!(node.shutdown());
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                () = advance(STEP) => {}
            }
            assert!(start.elapsed() <= SHUTDOWN_LIMIT + STEP, "it waits");
        }
    });
    drop(release);
}
