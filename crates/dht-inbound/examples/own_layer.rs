//! A layer of the application's own between dedup and protocol: it drops messages that no key has signed.

use std::{convert::Infallible, sync::Arc};

use dht_core::{
    Clock as _, Disposition, DropReason, Entropy as _, Features, NodeIdentity, OsEntropy,
    RemotePeer, SealRequest, SealSecrets, SecretKey, SystemClock, encode_parts, seal,
};
use dht_inbound::{Delivered, Inbound, InboundConfig, InboundRuntime, OpenedMessage};
use dht_peers::InboundFrame;
use dht_stack::{FilterLayer, check_fn};
use tower::{BoxError, ServiceExt as _, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let (clock, rng) = (Arc::new(SystemClock), &mut OsEntropy.rng());
    let [key, alice] = [(); 2].map(|()| SecretKey::random(rng));
    let me = NodeIdentity::new(key, Features::NODE, vec![], clock.now(), rng);
    let runtime = InboundRuntime::new(Arc::new(me), clock, Arc::new(OsEntropy));
    let application = service_fn(async |_: Delivered| Ok::<_, Infallible>(Disposition::Delivered));
    let signed_only = check_fn(|message: OpenedMessage| match message.opened.origin() {
        Some(_) => Ok(message),
        None => Err(DropReason::Unauthenticated),
    });
    let stack = Inbound::new(InboundConfig::default(), runtime, application)
        .push_protocol()
        .push_forward()
        .push(FilterLayer::new(signed_only))
        .push_crypto()
        .push_filters()
        .into_inner();
    let request = SealRequest::new(encode_parts(&["hello".into()]), &alice); // not signed
    let frame = seal(request, SealSecrets::random(rng))?.to_frame();
    let source = RemotePeer::new(alice.public_key(), Features::NODE);
    let outcome = stack.oneshot(InboundFrame::new(source, frame)).await?;
    println!("an unsigned message: {}", outcome.name());
    assert_eq!(outcome, Disposition::Dropped(DropReason::Unauthenticated));
    Ok(())
}
