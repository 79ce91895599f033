//! Answers a request for stored messages: 05 section 6.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use dht_core::{
    Clock as _, CompressedKey, Disposition, DropReason, PublicKey, RemotePeer, SendQueue,
    SharedClock, UnixSeconds,
};
use dht_mailbox::{Page, Query, Recipient, Store, StoredRecord};
use dht_proto::{
    envelope::DhtHeader,
    store_forward::{
        StoredMessage, StoredMessagesRequest, StoredMessagesResponse,
        stored_messages_response::SafResponseType,
    },
};
use dht_stack::ByteBudget;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Semaphore;

use super::{
    in_flight::InFlight,
    paging::{PagePlan, PageRequest, Pager, PagerConfig},
};
use crate::{blocking::blocking, config::Config, metrics, rates::Rates, send};

/// Requests that read from the store at one time, each up to the bytes of one response.
const READERS: usize = 4;

/// Serves the messages stored for a peer when that peer asks.
pub(crate) struct Server {
    clock: SharedClock,
    store: Store,
    send_queue: Arc<dyn SendQueue>,
    pager: Arc<Mutex<Pager>>,
    rates: Rates<PublicKey>,
    readers: Semaphore,
    in_flight: InFlight,
}

/// A response before it is encoded.
struct Response {
    /// Label of the outcome in metrics.
    outcome: &'static str,
    page: Option<(PagePlan, Page)>,
}

impl Server {
    pub(crate) fn new(
        clock: SharedClock,
        store: Store,
        send_queue: Arc<dyn SendQueue>,
        responses: ByteBudget,
        seed: [u8; 16],
        config: &Config,
    ) -> Self {
        Self {
            clock,
            store,
            send_queue,
            pager: Arc::new(Mutex::new(Pager::new(PagerConfig {
                order: config.order(),
                max_returned: config.max_messages(),
                ..PagerConfig::default()
            }))),
            rates: Rates::new(config.requester_rate(), seed),
            readers: Semaphore::new(READERS),
            in_flight: InFlight::new(responses),
        }
    }

    /// Answers a request with exactly one message, which is empty if there is nothing to serve.
    pub(crate) async fn serve(&self, requester: &RemotePeer, part: Option<&Bytes>) -> Disposition {
        let request = part.and_then(|part| dht_proto::decode(part.clone()).ok());
        let Some(request) = request else {
            metrics::request("malformed");
            return Disposition::Dropped(DropReason::BadProtocolMessage);
        };
        match self.respond(requester, &request).await {
            Some(response) => self.send(requester, request.request_id, response),
            // An empty response would say that nothing is stored.
            None => {
                metrics::request("failed");
                Disposition::Dropped(DropReason::Internal)
            }
        }
    }

    /// The connection to a requester has ended: its last response may not have arrived.
    pub(crate) fn disconnected(&self, requester: &CompressedKey) {
        let requester = Recipient::from_bytes(*requester.as_bytes());
        self.pager.lock().disconnected(requester);
    }

    /// Deletes what the request proves, and reads the next page. `None` if the store cannot be read.
    async fn respond(
        &self,
        requester: &RemotePeer,
        request: &StoredMessagesRequest,
    ) -> Option<Response> {
        let now = self.clock.now();
        if !self.rates.admit(&requester.public_key, now) {
            return Some(Response::empty("rate"));
        }
        let request = PageRequest {
            requester: Recipient::from(&requester.public_key),
            since: (request.since != 0).then_some(UnixSeconds(request.since)),
            limit: request.limit,
            continued: request.continued,
        };
        let mut plan = self.pager.lock().plan(request, now);
        let proven = std::mem::take(&mut plan.proven);
        if !proven.is_empty() {
            let deleted = self.store.delete(proven, Some(request.requester)).await;
            if let Err(error) = deleted {
                tracing::warn!(%error, "received messages were not deleted");
            }
        }
        let query = self.pager.lock().query(&plan, now);
        let mut page = self.fetch(query).await?;
        self.pager.lock().arrange(&plan, &mut page);
        let query = self.pager.lock().query_passed(&plan, &page, now);
        if let Some(query) = query {
            let passed = self.fetch(query).await?;
            self.pager
                .lock()
                .append_passed(&mut plan, &mut page, passed);
        }
        Some(Response {
            outcome: "answered",
            page: Some((plan, page)),
        })
    }

    async fn fetch(&self, query: Query) -> Option<Page> {
        // The semaphore is never closed.
        let _reader = self.readers.acquire().await.ok()?;
        let store = self.store.clone();
        blocking("store", store.blocks(), move || store.fetch(&query)).await
    }

    fn send(&self, requester: &RemotePeer, request_id: u32, mut response: Response) -> Disposition {
        // Held until the response has left or is lost.
        let mut permit = None;
        if let Some((_, page)) = &response.page {
            permit = self.in_flight.try_acquire(requester.into(), page.bytes);
            if permit.is_none() {
                response = Response::empty("unread");
            }
        }
        let Response { outcome, mut page } = response;
        let (part, messages) = encode(page.as_ref(), request_id);
        if let Some((plan, page)) = &mut page {
            // The encoded response holds the bytes; from here on only the positions of the rows matter.
            for record in &mut page.records {
                (record.header, record.body) = (Bytes::new(), Bytes::new());
            }
            // Before the response has left: the next request may arrive before the report of the delivery.
            self.pager.lock().handed_over(plan, page);
        }
        let request = send::answer(requester, part);
        let undo = page.clone();
        let sent = match page {
            // Nothing is kept for a request that was not served.
            None => self.send_queue.try_send(request),
            Some((plan, page)) => {
                let pager = Arc::clone(&self.pager);
                let report = move |sent: bool| {
                    drop(permit);
                    if !sent {
                        pager.lock().not_sent(&plan, &page);
                    }
                };
                self.send_queue
                    .try_send_reporting(request, Box::new(report))
            }
        };
        if sent.is_err() {
            if let Some((plan, page)) = undo {
                self.pager.lock().not_sent(&plan, &page);
            }
            metrics::request("unsent");
            return Disposition::Dropped(DropReason::Overload);
        }
        metrics::request(outcome);
        metrics::served(messages);
        Disposition::Answered
    }
}

impl Response {
    const fn empty(outcome: &'static str) -> Self {
        Self {
            outcome,
            page: None,
        }
    }
}

/// The response on the wire, and how many messages it holds: stored headers and bodies byte for byte.
fn encode(page: Option<&(PagePlan, Page)>, request_id: u32) -> (Bytes, usize) {
    let messages = page.into_iter().flat_map(|(plan, page)| {
        let records = page.records.iter();
        records.filter_map(|record| stored_message(record, plan.stored_at(record)))
    });
    let response = StoredMessagesResponse {
        messages: messages.collect(),
        request_id,
        response_type: SafResponseType::ForMe.into(),
    };
    (dht_proto::encode(&response), response.messages.len())
}

/// `None` for a header that does not decode, which no layer of this crate stores.
fn stored_message(record: &StoredRecord, stored_at: UnixSeconds) -> Option<StoredMessage> {
    let header = DhtHeader::decode(record.header.clone()).ok()?;
    Some(StoredMessage {
        stored_at: stored_at.0,
        version: header.major,
        dht_header: Some(header),
        body: record.body.clone(),
    })
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
