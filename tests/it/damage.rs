//! Nodes with a home whose files are damaged.

use std::{collections::BTreeSet, path::Path};

use dht_core::UnixSeconds;
use dht_node::{Node, inbox_file};
use dht_spool::{EntryOptions, NewEntry};

use crate::net::{
    builder, config, connect, nothing_more, number, numbered, receive, secret, until, within,
};

/// A node that keeps its files here and asks peers for stored messages.
async fn at_home(home: &Path) -> Node {
    let builder = builder(3).config(config(true)).home(home);
    within(builder.start()).await.unwrap()
}

/// Flips a bit of the payload of a message, wherever the file has it: pages of earlier commits are still there.
fn damage(file: &Path, number: u32) {
    let mut bytes = std::fs::read(file).unwrap();
    let payload = numbered(number, 2000).payload;
    let mut copies = 0;
    while let Some(at) = bytes.windows(2000).position(|it| it == payload) {
        bytes[at + 1000] ^= 1;
        copies += 1;
    }
    assert!(copies > 0, "{number}");
    std::fs::write(file, bytes).unwrap();
}

/// Messages that a damaged inbox has lost arrive again from a holder, once; those that were acked or are still there do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_messages_arrive_again() {
    let home = tempfile::tempdir().unwrap();
    let (alice, bob) = (crate::net::node(1).await, crate::net::node(2).await);
    connect(&alice, &bob).await;
    let carol = at_home(home.path()).await;
    let key = secret(3).public_key();
    within(carol.shutdown()).await;
    drop(carol);
    let mut deliveries = Vec::new();
    for number in 0..5 {
        let sent = alice.send(&key, numbered(number, 2000), Default::default());
        deliveries.push(within(sent).await.unwrap());
    }
    for mut delivery in deliveries {
        within(delivery.wait(dht_node::StateKind::Stored))
            .await
            .unwrap();
    }
    until(|| bob.saf_stats().unwrap().rows == 5).await;
    let carol = at_home(home.path()).await;
    connect(&carol, &bob).await;
    let mut inbox = carol.subscribe();
    let mut left: BTreeSet<u32> = (0..5).collect();
    for _ in 0..2 {
        assert!(left.remove(&number(&receive(&mut inbox).await)));
    }
    until(|| carol.inbox().unwrap().stats().rows == 3).await;
    drop(inbox);
    within(carol.shutdown()).await;
    drop(carol);

    let lost = left.pop_first().unwrap();
    damage(&inbox_file(home.path()), lost);
    let carol = at_home(home.path()).await;
    let stats = carol.inbox().unwrap().stats();
    assert_eq!((stats.rows, stats.damaged_files), (2, 1));
    let mut inbox = carol.subscribe();
    connect(&carol, &bob).await;
    for _ in 0..2 {
        assert!(left.remove(&number(&receive(&mut inbox).await)));
    }
    assert_eq!(number(&receive(&mut inbox).await), lost);
    nothing_more(&carol, &mut inbox).await;
    assert!(carol.inbox().unwrap().lost().is_empty());
}

/// Overwrites all but the header of a file that is open.
#[cfg(unix)]
fn ruin(file: &Path) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().write(true).open(file).unwrap();
    let bytes = usize::try_from(file.metadata().unwrap().len()).unwrap();
    file.write_all_at(&vec![0xff; bytes - 4096], 4096).unwrap();
}

/// The file is damaged under the running node, and the application reads it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_inbox_fails_running_node() {
    const COUNT: u32 = 100;
    let home = tempfile::tempdir().unwrap();
    let mut settings = config(false);
    // Less than the messages take, so that they are read from the disk.
    settings.inbox.writer.cache_bytes = 1 << 16;
    let carol = builder(3).config(settings).home(home.path());
    let carol = within(carol.start()).await.unwrap();
    for at in 0..COUNT {
        let sent = carol.send(carol.public_key(), numbered(at, 2000), Default::default());
        within(sent).await.unwrap();
    }
    until(|| carol.inbox().unwrap().stats().rows == u64::from(COUNT)).await;
    assert!(carol.failures().is_empty());

    ruin(&inbox_file(home.path()));
    let mut inbox = carol.subscribe();
    while within(inbox.recv()).await.is_some() {}
    until(|| !carol.failures().is_empty()).await;
    assert!(carol.failures().contains_key("inbox file"));
    within(carol.shutdown()).await;
}

/// As for the inbox, of which an outbox differs by who reads it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_outbox_fails_running_node() {
    // More than the memory for pages of the file.
    const COUNT: u8 = 24;
    let home = tempfile::tempdir().unwrap();
    let alice = at_home(home.path()).await;
    let outbox = alice.outbox().unwrap();
    let mut ids = Vec::new();
    for at in 0..COUNT {
        let put = outbox.put(NewEntry {
            key: None,
            recipient: secret(at + 10).public_key(),
            message_type: 7,
            payload: vec![at; 1 << 20].into(),
            options: EntryOptions::default(),
            created_at: UnixSeconds(0),
            frame: None,
        });
        ids.push(within(put).await.unwrap().id());
    }
    assert!(alice.failures().is_empty());

    ruin(&home.path().join("outbox.redb"));
    let read: Result<Vec<_>, _> = ids.into_iter().map(|id| outbox.content(id)).collect();
    assert!(read.is_err());
    until(|| !alice.failures().is_empty()).await;
    assert!(alice.failures().contains_key("outbox file"));
    within(alice.shutdown()).await;
}
