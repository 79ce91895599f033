use dht_api::{
    Limits, Parts,
    types::{Ack, Arrival, ErrorCode, NewConsumer, NewGossip, StartAt},
};

use crate::served::{Served, home_node, node, within};

fn texts(count: usize) -> impl Iterator<Item = Vec<u8>> {
    (1..=count).map(|n| format!("text {n}").into_bytes())
}

#[tokio::test]
async fn messages_come_until_they_are_acked() {
    let served = Served::start().await;
    served.receive(texts(5)).await;
    let page = served.client.inbox("default", None, Some(2)).await.unwrap();
    assert_eq!(page.messages[0].text.as_deref(), Some("text 1"));
    assert_eq!(
        (page.messages[1].arrival, page.next),
        (Arrival::Stored, Some(2))
    );
    let again = served.client.inbox("default", None, Some(2)).await.unwrap();
    assert_eq!(again, page);

    let state = served.client.ack(&Ack::up_to("default", 2)).await.unwrap();
    assert_eq!((state.cursor, state.pending), (2, 3));
    let state = served.client.ack(&Ack::one("default", 4)).await.unwrap();
    assert_eq!((state.cursor, state.pending), (2, 2));
    let rest = served.client.inbox("default", None, None).await.unwrap();
    assert_eq!(
        rest.messages.iter().map(|m| m.id).collect::<Vec<_>>(),
        [3, 5]
    );
}

#[tokio::test]
async fn a_stream_resumes_after_a_restart() {
    let mut served = Served::start().await;
    served.receive(texts(3)).await;
    let mut stream = served.client.inbox_stream("default", None);
    assert_eq!(stream.next().await.unwrap().unwrap().id, 1);
    assert_eq!(stream.next().await.unwrap().unwrap().id, 2);

    served = served.restart().await;
    served.receive(texts(1)).await;
    let mut ids = Vec::new();
    while ids.len() < 2 {
        // The end in order is told once; what was read already may come before it.
        ids.extend(stream.next().await.unwrap().map(|message| message.id));
    }
    assert_eq!(ids, [3, 4]);

    // Read is not acked: another stream of the consumer begins with the first.
    let mut other = served.client.inbox_stream("default", None);
    assert_eq!(other.next().await.unwrap().unwrap().id, 1);
}

/// As after the loss of the inbox: a place that no message has had yet would skip the next ones.
#[tokio::test]
async fn places_behind_the_newest_are_refused() {
    let served = Served::start().await;
    served.receive(texts(2)).await;
    let page = served.client.inbox("default", Some(2), None).await.unwrap();
    assert!(page.messages.is_empty());
    let error = served.client.inbox("default", Some(3), None).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    assert_eq!(error.to_string(), "no such id");
    let error = served.client.inbox_stream("default", Some(3)).next().await;
    assert_eq!(error.unwrap_err().code(), Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn unknown_acks_are_named() {
    let served = Served::start().await;
    served.receive(texts(3)).await;
    let ack = Ack {
        ids: vec![1, 9, 3, 8],
        ..Ack::one("default", 1)
    };
    let error = served.client.ack(&ack).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    assert_eq!(error.to_string(), "no such id: 9, 8; the others are acked");
    let page = served.client.inbox("default", None, None).await.unwrap();
    assert_eq!(page.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_stream_brings_later_messages() {
    let served = Served::start().await;
    let mut stream = served.client.inbox_stream("default", None);
    let receiving = async {
        // A later request is answered: the stream most likely waits.
        served.client.status().await.unwrap();
        served.receive(texts(1)).await;
    };
    let (next, ()) = within(async { tokio::join!(stream.next(), receiving) }).await;
    assert_eq!(next.unwrap().unwrap().id, 1);
}

#[tokio::test]
async fn consumers_have_cursors_of_their_own() {
    let served = Served::start().await;
    served.receive(texts(2)).await;
    let archive = NewConsumer {
        name: "archive".into(),
        start: StartAt::Newest,
    };
    assert!(served.client.add_consumer(&archive).await.unwrap().changed);
    assert!(!served.client.add_consumer(&archive).await.unwrap().changed);
    served.receive(texts(1)).await;
    let page = served.client.inbox("archive", None, None).await.unwrap();
    assert_eq!(page.messages[0].id, 3);
    served.client.ack(&Ack::up_to("archive", 3)).await.unwrap();

    let list = served.client.consumers().await.unwrap().consumers;
    let pending: Vec<_> = list.iter().map(|c| (c.name.as_str(), c.pending)).collect();
    assert_eq!(pending, [("archive", 0), ("default", 3)]);

    served.client.remove_consumer("archive").await.unwrap();
    let error = served
        .client
        .inbox("archive", None, None)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    let error = served.client.remove_consumer("default").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Conflict));
}

#[tokio::test]
async fn peer_text_stays_in_its_line() {
    let served = Served::start().await;
    let hostile = b"x\r\n\r\nid: 99\nevent: end\ndata: {}\n\n\x1b[2J".to_vec();
    served.receive([hostile.clone()]).await;
    let message = served
        .client
        .inbox_stream("default", None)
        .next()
        .await
        .unwrap()
        .unwrap();
    assert_eq!((message.id, &message.payload.0[..]), (1, &hostile[..]));

    let request = "GET /v1/inbox HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = served.raw(request).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(body.contains(r"x\r\n\r\nid: 99\nevent: end"), "{body}");
    assert!(!body.contains(|c: char| c.is_control()), "{body:?}");
}

#[tokio::test]
async fn what_a_node_receives_is_there() {
    let home = tempfile::tempdir().unwrap();
    let (alice, bob) = (node().await, home_node(home.path()).await);
    let served = Served::over(Parts::new(bob), Limits::default()).await;
    let address = served.parts.node.peer_address();
    alice.connect(&address).await.unwrap();
    let mut stream = served.client.inbox_stream("default", None);
    let gossip = NewGossip {
        message_type: 3,
        text: Some("hello".into()),
        payload: None,
    };
    let sender = Served::over(Parts::new(alice), Limits::default()).await;
    assert_eq!(sender.client.gossip(&gossip).await.unwrap().peers, 1);
    let message = within(stream.next()).await.unwrap().unwrap();
    assert_eq!(
        (message.message_type, message.text.as_deref()),
        (3, Some("hello"))
    );
    assert_eq!((message.from, message.arrival), (None, Arrival::Live));
}
