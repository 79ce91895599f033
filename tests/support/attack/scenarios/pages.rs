//! Attacks by those who store messages for the node.

use std::time::Duration;

use bytes::Bytes;
use dht_core::{Clock as _, MessageType, PublicKey, RawEnvelope, SystemClock};
use dht_proto::store_forward::{StoredMessage, StoredMessagesRequest, StoredMessagesResponse};
use dht_transport::BoxFuture;
use prost::Message as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::super::stage::{Scenario, Stage};
use crate::{frames, load::Peer, loopback::ip, target::secret};

/// Hostile holders. The node takes five hundred pages of one at once, and a further one waits until it asks again.
const HOLDERS: u8 = 4;

/// Rows of a page.
const ROWS: usize = 50;

/// Requests that wait for the holder; it answers one at a time.
const WAITING: usize = 64;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "bad-pages",
    "four holders answer each request with a page of messages whose signatures do not hold",
    bad_pages,
)];

fn bad_pages(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let key = stage.key();
        let wanted = stage.scale(1_024, 64);
        let rows = rows(&key)?;
        let (pages, answered) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for network in 0..HOLDERS {
            let (asks, mut asked) = mpsc::channel(WAITING);
            let holder = stage
                .hostile_that(ip(66 + network, 1, 1), move |message| {
                    // One too many is not answered.
                    let _full = asks.try_send(message.frame);
                })
                .await?;
            let (rows, pages) = (rows.clone(), pages.clone());
            tasks.spawn(async move {
                while let Some(frame) = asked.recv().await {
                    if let Some(page) = page(&holder, &key, frame, &rows)
                        && holder.send(page).is_ok()
                    {
                        pages.send_modify(|pages| *pages += 1);
                    }
                }
            });
        }
        let before = stage.status()?.counted;
        let start = Instant::now();
        let limit = Duration::from_secs(if stage.is_quick() { 20 } else { 60 });
        let mut slowest = Duration::ZERO;
        while *answered.borrow() < wanted && start.elapsed() < limit {
            let begun = Instant::now();
            let _refused = tokio::task::block_in_place(|| stage.process().fetch())?;
            slowest = slowest.max(begun.elapsed());
        }
        let pages = *answered.borrow();
        stage.check(format!("{pages}/{wanted} pages answered"), pages >= wanted);
        let delivered = stage.status()?.counted - before;
        stage.check(format!("{delivered} rows delivered"), delivered == 0);
        let slowest = slowest.as_secs_f64();
        stage.check(format!("slowest fetch {slowest:.1} s"), slowest < 60.0);
        stage.newcomers_are_served(2).await
    })
}

/// Messages for `to` whose signatures do not hold.
fn rows(to: &PublicKey) -> anyhow::Result<Vec<StoredMessage>> {
    let sender = secret(1 << 41);
    let mut rows = Vec::new();
    for number in 0..ROWS {
        let sealed = RawEnvelope::parse(frames::post(&sender, to, format!("count bad {number}"))?)?;
        let sealed = sealed.into_sealed()?;
        let mut header = sealed.header().to_proto();
        let mut signature = header.message_signature.to_vec();
        if let Some(last) = signature.last_mut() {
            *last ^= 1;
        }
        header.message_signature = signature.into();
        rows.push(StoredMessage {
            stored_at: SystemClock.now().0,
            version: header.major,
            dht_header: Some(header),
            body: sealed.body().clone(),
        });
    }
    Ok(rows)
}

/// The answer to a request for stored messages; `None` for any other message.
fn page(holder: &Peer, to: &PublicKey, frame: Bytes, rows: &[StoredMessage]) -> Option<Bytes> {
    let sealed = RawEnvelope::parse(frame).ok()?.into_sealed().ok()?;
    if sealed.header().message_type != MessageType::SafRequestMessages {
        return None;
    }
    let opened = sealed.verify().ok()?.open(holder.identity()).ok()?;
    let request = StoredMessagesRequest::decode(opened.parts()?.first()?.clone()).ok()?;
    let limit = usize::try_from(request.limit).ok()?;
    let limit = if limit == 0 { ROWS } else { limit };
    let response = StoredMessagesResponse {
        messages: rows.iter().take(limit).cloned().collect(),
        request_id: request.request_id,
        response_type: 0,
    };
    let part = response.encode_to_vec().into();
    let sender = holder.identity().secret_key();
    frames::protocol(sender, to, MessageType::SafStoredMessages, part).ok()
}
