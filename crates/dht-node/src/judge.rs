//! The application's say about gossip.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use dht_core::{DomainHeader, NodeId, PublicKey};
use dht_inbound::{Judge, Verdict};
use futures::future::{BoxFuture, Either, Ready, ready};

use crate::{Message, Received};

/// What the application says about a message.
type Thinking = Arc<dyn Fn(Received) -> BoxFuture<'static, Verdict> + Send + Sync>;

/// The application's judge, or none, which accepts everything.
#[derive(Clone, Default)]
pub(crate) struct AppJudge(Option<Thinking>);

impl AppJudge {
    pub(crate) fn new<F>(judge: impl Fn(Received) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        Self(Some(Arc::new(move |message| Box::pin(judge(message)))))
    }
}

impl fmt::Debug for AppJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AppJudge").field(&self.0.is_some()).finish()
    }
}

impl Judge for AppJudge {
    type Future = Either<Ready<Verdict>, BoxFuture<'static, Verdict>>;

    fn judge(&self, message: &dht_inbound::Message) -> Self::Future {
        let Some(judge) = &self.0 else {
            return Either::Left(ready(Verdict::Accept));
        };
        let parts = message.opened.parts().unwrap_or_default();
        match received(
            parts,
            message.opened.origin().copied(),
            message.source.node_id,
        ) {
            Some(message) => Either::Right(judge(message)),
            // Without any part it is refused further on, whatever anybody thinks of it.
            None => Either::Left(ready(Verdict::Ignore)),
        }
    }
}

/// A message as the application gets it: by convention the first part is a header, unless the sender left it out.
pub(crate) fn received(
    parts: &[Bytes],
    sender: Option<PublicKey>,
    via: NodeId,
) -> Option<Received> {
    let first = parts.first()?;
    let header = DomainHeader::decode(first).unwrap_or_default();
    let payload = parts.get(1).unwrap_or(first).clone();
    Some(Received {
        sender,
        via,
        message: Message {
            message_type: header.message_type,
            payload,
        },
    })
}
