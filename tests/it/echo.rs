//! A node recognises its own messages when they come back.

use bytes::Bytes;
use dht_core::{Payload, SendParams, SendRequest, encode_parts};

use crate::net::{self, connect, message, node, receive, until, within};

/// `payload` as the only part, followed by a field that no re-encoding keeps.
fn odd_body(payload: &[u8]) -> Bytes {
    let body = encode_parts(&[Bytes::copy_from_slice(payload)]);
    Bytes::from([&body[..], &[0x10, 0x01]].concat())
}

/// The echo of a body in an unusual encoding is not delivered, in any encoding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b055_odd_echo_is_never_delivered() {
    let (alice, bob) = (node(1).await, node(2).await);
    connect(&alice, &bob).await;
    let (mut to_alice, mut to_bob) = (alice.subscribe(), bob.subscribe());
    let flood = || SendParams::builder().flood(vec![]).finish();
    let odd = odd_body(b"echo");
    let send = async |from: &dht_node::Node, body: Bytes| {
        let sent = within(
            from.outbound()
                .send(SendRequest::new(flood(), Payload::Body(body))),
        )
        .await;
        assert_eq!(sent.unwrap().len(), 1);
    };
    send(&alice, odd.clone()).await;
    assert_eq!(receive(&mut to_bob).await.message.payload, "echo");

    // The same bytes again, and the same parts encoded as they should be.
    send(&bob, odd).await;
    until(|| alice.stats().duplicates_dropped == 1).await;
    send(&bob, encode_parts(&[Bytes::from_static(b"echo")])).await;
    until(|| alice.stats().duplicates_dropped == 2).await;

    within(net::send(&bob, alice.public_key(), message("end")))
        .await
        .unwrap();
    assert_eq!(receive(&mut to_alice).await.message, message("end"));
}
