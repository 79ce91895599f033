//! Serving a request: section 6.

use bytes::Bytes;
use dht_core::{
    Clock as _, Disposition, DropReason, MessageType, Priority, RemotePeer, UnixSeconds,
};
use dht_mailbox::{Neighbour, Page, Recipient, Store, StoredRecord};
use dht_proto::{
    envelope::DhtHeader,
    store_forward::{
        StoredMessage, StoredMessagesRequest, StoredMessagesResponse,
        stored_messages_response::SafResponseType,
    },
};
use dht_stack::BytePermit;
use prost::Message as _;

use crate::{
    metrics,
    outlets::send_request,
    paging::{Plan, Request},
    saf::{ANSWER_BYTES, Saf, blocking},
};

/// Bytes of answers that may be on their way to one requester: one that does not read leaves room for the others.
const ONE_REQUESTER_BYTES: usize = ANSWER_BYTES / 8;

/// What to answer, and what to note once it has left.
struct Answer {
    outcome: &'static str,
    served: Option<(Plan, Page)>,
}

impl Answer {
    const fn empty(outcome: &'static str) -> Self {
        Self {
            outcome,
            served: None,
        }
    }
}

/// One answer on its way.
struct UnderWay {
    saf: Saf,
    requester: Recipient,
    bytes: usize,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut answering = self.saf.0.answering.lock();
        if let Some(held) = answering.get_mut(&self.requester) {
            *held = held.saturating_sub(self.bytes);
            if *held == 0 {
                answering.remove(&self.requester);
            }
        }
    }
}

impl Saf {
    /// Answers a request, with one message, whatever there is.
    pub(crate) async fn serve(&self, source: &RemotePeer, part: Option<&Bytes>) -> Disposition {
        let Some(store) = self.0.store.clone() else {
            metrics::request("not_a_store");
            return Disposition::Dropped(DropReason::RoleFilter);
        };
        let request = part.and_then(|part| dht_proto::decode(part.clone()).ok());
        let Some(request) = request else {
            metrics::request("malformed");
            return Disposition::Dropped(DropReason::BadProtocolMessage);
        };
        match self.answer(source, &request, &store).await {
            Some(answer) => self.send_answer(source, request.request_id, answer),
            // An empty answer would say that there is nothing.
            None => {
                metrics::request("failed");
                Disposition::Dropped(DropReason::Internal)
            }
        }
    }

    async fn answer(
        &self,
        source: &RemotePeer,
        request: &StoredMessagesRequest,
        store: &Store,
    ) -> Option<Answer> {
        let now = self.0.clock.now();
        let neighbour = Neighbour::from(&source.public_key);
        if !self.0.requesters.lock().admit(neighbour, now) {
            return Some(Answer::empty("rate"));
        }
        let request = Request {
            requester: Recipient::from(&source.public_key),
            since: (request.since != 0).then_some(UnixSeconds(request.since)),
            limit: request.limit,
        };
        let mut plan = self.0.pager.lock().plan(request, now);
        let proven = std::mem::take(&mut plan.proven);
        if !proven.is_empty() {
            let deleted = store.delete(proven, Some(request.requester)).await;
            if let Err(error) = deleted {
                tracing::warn!(%error, "delivered mail was not deleted");
            }
        }
        let query = self.0.pager.lock().query(&plan, now);
        // Closed never.
        let reader = self.0.readers.acquire().await.ok()?;
        let store = store.clone();
        let mut page = blocking("store", move || store.fetch(&query)).await?;
        drop(reader);
        self.0.pager.lock().arrange(&plan, &mut page);
        Some(Answer {
            outcome: "answered",
            served: Some((plan, page)),
        })
    }

    fn send_answer(&self, source: &RemotePeer, request_id: u32, mut answer: Answer) -> Disposition {
        let bytes = answer.served.as_ref().map_or(0, |(_, page)| page.bytes);
        // Held until the answer has left or is lost.
        let permit = if bytes == 0 {
            None
        } else {
            let permit = self.under_way(source, bytes);
            if permit.is_none() {
                answer = Answer::empty("memory");
            }
            permit
        };
        let records = answer.served.as_ref().map(|(_, page)| &page.records[..]);
        let response = respond(records.unwrap_or_default(), request_id);
        let messages = response.messages.len();
        let part = dht_proto::encode(&response);
        drop(response);
        let (saf, mut served) = (self.clone(), answer.served);
        if let Some((_, page)) = &mut served {
            // From here on only their places matter; the bytes lie in the answer.
            for record in &mut page.records {
                (record.header, record.body) = (Bytes::new(), Bytes::new());
            }
        }
        if let Some((plan, page)) = &served {
            // Now, not when it has left: the next request may be faster than the report.
            self.0.pager.lock().handed_over(plan, page);
        }
        let undo = served.clone();
        let message_type = MessageType::SafStoredMessages;
        let sent = self.0.outbox.try_send_reporting(
            send_request(source, message_type, Priority::Stored, part),
            Box::new(move |sent| {
                drop(permit);
                if !sent && let Some((plan, page)) = served {
                    saf.0.pager.lock().not_sent(&plan, &page);
                }
            }),
        );
        if sent.is_err() {
            if let Some((plan, page)) = undo {
                self.0.pager.lock().not_sent(&plan, &page);
            }
            metrics::request("unsent");
            return Disposition::Dropped(DropReason::Overload);
        }
        metrics::request(answer.outcome);
        metrics::served(messages);
        Disposition::Answered
    }

    /// Room for an answer, if there is any and this requester does not hold too much of it.
    fn under_way(&self, source: &RemotePeer, bytes: usize) -> Option<(UnderWay, BytePermit)> {
        let permit = self.0.answers.try_acquire(bytes)?;
        let requester = Recipient::from(&source.public_key);
        let mut answering = self.0.answering.lock();
        let held = answering.get(&requester).copied().unwrap_or(0);
        let all = held.saturating_add(bytes);
        if held > 0 && all > ONE_REQUESTER_BYTES {
            return None;
        }
        answering.insert(requester, all);
        drop(answering);
        let under_way = UnderWay {
            saf: self.clone(),
            requester,
            bytes,
        };
        Some((under_way, permit))
    }
}

/// The answer on the wire: stored headers and bodies byte for byte.
fn respond(records: &[StoredRecord], request_id: u32) -> StoredMessagesResponse {
    StoredMessagesResponse {
        messages: records.iter().filter_map(stored_message).collect(),
        request_id,
        response_type: SafResponseType::ForMe.into(),
    }
}

/// `None` for a header that does not decode, which no layer of ours stores.
fn stored_message(record: &StoredRecord) -> Option<StoredMessage> {
    let header = DhtHeader::decode(record.header.clone()).ok()?;
    Some(StoredMessage {
        stored_at: record.stored_at.0,
        version: header.major,
        dht_header: Some(header),
        body: record.body.clone(),
    })
}
