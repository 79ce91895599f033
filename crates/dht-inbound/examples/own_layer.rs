//! An inbound stack with a layer of the application's own between dedup and protocol: it drops messages that no key
//! has signed, before the protocol sees them.

use std::{convert::Infallible, error::Error, sync::Arc};

use bytes::Bytes;
use dht_core::{
    Clock as _, Destination, Disposition, DropReason, Encryption, Entropy as _, Features,
    MessageTag, MessageType, NodeIdentity, OnDelivery, OsEntropy, Outbox, OutboxError,
    ProtocolVersion, RemotePeer, SealRequest, SealSecrets, SecretKey, SendRequest, Signing,
    SystemClock, encode_envelope, encode_parts, seal,
};
use dht_inbound::{
    Delivered, DiscoveryAnswer, DiscoveryHook, Inbound, InboundConfig, InboundFrame,
    InboundRuntime, OpenedMessage,
};
use dht_peers::{
    Directory,
    policy::{AttributionProfile, BanPolicy, BanTerms},
};
use dht_stack::{BytePermit, Check, FilterLayer};
use tower::{ServiceExt as _, service_fn};

/// The foreign layer.
#[derive(Clone)]
struct SignedOnly;

impl Check<OpenedMessage> for SignedOnly {
    type Out = OpenedMessage;
    type Reject = DropReason;

    fn check(&self, message: OpenedMessage) -> Result<OpenedMessage, DropReason> {
        let signed = message.opened.origin().is_some();
        if signed {
            Ok(message)
        } else {
            Err(DropReason::Unauthenticated)
        }
    }
}

/// This node sends nothing.
struct Mute;

impl Outbox for Mute {
    fn try_send(&self, _: SendRequest) -> Result<(), OutboxError> {
        Ok(())
    }
    fn try_send_reporting(&self, _: SendRequest, _: OnDelivery) -> Result<(), OutboxError> {
        Ok(())
    }
}

impl DiscoveryHook for Mute {
    fn on_response(&self, _: DiscoveryAnswer) -> Result<(), OutboxError> {
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    let mut rng = entropy.rng();
    let [me, alice] = [(); 2].map(|()| SecretKey::random(&mut rng));
    let me = NodeIdentity::new(me, Features::NODE, vec![], clock.now(), &mut rng);
    let directory = Directory::new(*me.node_id());
    let bans = BanPolicy::new(
        AttributionProfile::Strict,
        BanTerms::default(),
        directory.clone(),
        clock.clone(),
    );
    let (me, mute) = (Arc::new(me), Arc::new(Mute));
    let runtime = InboundRuntime::new(me, directory, clock, entropy, bans, mute.clone(), mute);
    let application = service_fn(async |_: Delivered| Ok::<_, Infallible>(Disposition::Delivered));
    let stack = Inbound::new(InboundConfig::default(), runtime, application)
        .push_protocol()
        .push_forward()
        .push(FilterLayer::new(SignedOnly))
        .push_crypto()
        .push_filters()
        .into_inner();

    let source = Arc::new(RemotePeer::new(alice.public_key(), Features::NODE));
    let mut frame = |signing| -> Result<InboundFrame, Box<dyn Error + Send + Sync>> {
        let request = SealRequest {
            body: encode_parts(&[
                Bytes::from_static(b"\x08\x01"),
                Bytes::from_static(b"hello"),
            ]),
            message_type: MessageType::None,
            destination: Destination::Unknown,
            encryption: Encryption::Clear,
            sender: &alice,
            signing,
            expires: None,
            tag: MessageTag(1),
            version: ProtocolVersion::V2,
        };
        let sealed = seal(request, SealSecrets::random(&mut rng))?;
        let frame = encode_envelope(&sealed.header, &sealed.body);
        let (source, permit) = (Arc::clone(&source), BytePermit::none());
        Ok(InboundFrame {
            source,
            frame,
            permit,
        })
    };
    let signed = stack.clone().oneshot(frame(Signing::Origin)?).await?;
    let unsigned = stack.oneshot(frame(Signing::Anonymous)?).await?;
    println!("signed: {}, unsigned: {}", signed.name(), unsigned.name());
    assert_eq!(signed, Disposition::Delivered);
    assert_eq!(unsigned, Disposition::Dropped(DropReason::Unauthenticated));
    Ok(())
}
