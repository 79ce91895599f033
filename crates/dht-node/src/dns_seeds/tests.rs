use std::{future::Future, net::Ipv4Addr, sync::Arc};

use dht_core::{Address, SecretKey, test_util::public_key};
use proptest::prelude::*;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord,
    rdata::{CNAME, RData, TXT},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::{resolver::read_answer, *};
use crate::{Config, Node};

const NAME: &str = "seeds.example.com";

/// The answer to a query, with these texts.
fn answer(query: &[u8], texts: &[&str]) -> Vec<u8> {
    let mut packet = Packet::parse(query).unwrap().into_reply();
    *packet.opt_mut() = None;
    let record = |data| ResourceRecord::new(Name::new_unchecked(NAME), CLASS::IN, 60, data);
    let alias = RData::CNAME(CNAME(Name::new_unchecked("alias.example.com")));
    packet.answers.push(record(alias));
    for text in texts {
        // Each string of a record holds 255 bytes at most.
        let mut parts = TXT::new();
        for part in text.as_bytes().chunks(60) {
            let part = std::str::from_utf8(part).unwrap();
            parts.add_string(part).unwrap();
        }
        packet.answers.push(record(RData::TXT(parts)));
    }
    packet.build_bytes_vec().unwrap()
}

/// A name server, whose answers to each datagram a script makes.
async fn server(
    script: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, impl Future<Output = ()> + Send) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let run = async move {
        let mut query = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut query).await.unwrap();
            for answer in script(&query[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    };
    (address, run)
}

/// Answer of a resolver with these servers while one of them runs.
async fn texts(
    servers: Vec<SocketAddr>,
    run: impl Future<Output = ()>,
) -> Result<Vec<String>, resolver::LookUpError> {
    let resolver = Resolver::new(servers);
    tokio::select! {
        texts = resolver.texts(NAME, || 0x1234_5678) => texts,
        () = run => unreachable!("the server does not end"),
    }
}

#[tokio::test]
async fn texts_of_a_name_are_whole() {
    let long = "x".repeat(200);
    let expected = ["short".to_owned(), long.clone()];
    let (address, run) = server(move |query| vec![answer(query, &["short", &long])]).await;
    assert_eq!(texts(vec![address], run).await.unwrap(), expected);
}

/// Answers with another id or question, and what is none, are not taken for the answer that comes after them.
#[tokio::test]
async fn forged_answers_are_ignored() {
    let (address, run) = server(|query| {
        let other = |change: fn(&mut Packet<'_>)| {
            let bytes = answer(query, &["forged"]);
            let mut packet = Packet::parse(&bytes).unwrap();
            change(&mut packet);
            packet.build_bytes_vec().unwrap()
        };
        vec![
            b"nonsense".to_vec(),
            query.to_vec(),
            other(|packet| packet.set_id(packet.id() ^ 1)),
            other(|packet| packet.questions[0].qname = Name::new_unchecked("b.example.com")),
            other(|packet| packet.questions.clear()),
            answer(query, &["true"]),
        ]
    })
    .await;
    assert_eq!(texts(vec![address], run).await.unwrap(), ["true"]);
}

#[tokio::test]
async fn cut_answers_are_asked_over_tcp() {
    // A port that is free for both.
    let (listener, address, run) = loop {
        let (address, run) = server(|query| {
            let bytes = answer(query, &[]);
            let mut packet = Packet::parse(&bytes).unwrap();
            packet.set_flags(PacketFlag::TRUNCATION);
            vec![packet.build_bytes_vec().unwrap()]
        })
        .await;
        if let Ok(listener) = TcpListener::bind(address).await {
            break (listener, address, run);
        }
    };
    let over_tcp = async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await.unwrap();
        let texts = vec!["y".repeat(200); 10];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let answer = answer(&query, &texts);
        let length = u16::try_from(answer.len()).unwrap();
        stream.write_u16(length).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        std::future::pending::<()>().await
    };
    let run = async {
        tokio::join!(run, over_tcp);
    };
    assert_eq!(texts(vec![address], run).await.unwrap().len(), 10);
}

/// The next server is asked where one is gone or fails; a name that does not exist has no texts.
#[tokio::test]
async fn next_server_is_asked() {
    let (gone, stopped) = server(|_| Vec::new()).await;
    drop(stopped);
    let code = |code: RCODE| {
        move |query: &[u8]| {
            let bytes = answer(query, &[]);
            let mut packet = Packet::parse(&bytes).unwrap();
            *packet.rcode_mut() = code;
            vec![packet.build_bytes_vec().unwrap()]
        }
    };
    let (failing, failing_runs) = server(code(RCODE::ServerFailure)).await;
    let (unknown, unknown_runs) = server(code(RCODE::NameError)).await;
    let run = async {
        tokio::join!(failing_runs, unknown_runs);
    };
    let found = texts(vec![gone, failing, unknown], run).await.unwrap();
    assert!(found.is_empty());
    let error = texts(vec![gone], std::future::pending()).await.unwrap_err();
    assert!(matches!(error, resolver::LookUpError::Io(_)), "{error}");
    let error = Resolver::new(vec![gone]).texts(&"a".repeat(70), || 1).await;
    assert!(matches!(error, Err(resolver::LookUpError::Name)));
}

#[tokio::test]
async fn unreadable_settings_are_named() {
    let error = resolver::system_servers("/nowhere/resolv.conf").await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("cannot read /nowhere/resolv.conf: "),
        "{error}"
    );
}

/// Texts that are no seeds are counted, and addresses that lead into this node's own network left out.
#[test]
fn malformed_texts_are_counted() {
    let seed = |address: &str| format!("{}::{address}", public_key(1));
    let mut texts = vec![
        seed("/ip4/1.2.3.4/tcp/1::/ip4/10.0.0.1/tcp/1"),
        seed("/ip4/192.168.0.1/tcp/1"),
        seed("/dns4/router.local/tcp/1"),
        seed("/ip4/1.2.3.4/tcp/0"),
        "v=spf1 -all".to_owned(),
        String::new(),
    ];
    let (seeds, malformed) = parse(&texts, &ClaimPolicy::default());
    assert_eq!((seeds.len(), malformed), (1, 5));
    assert_eq!(seeds[0].to_string(), seed("/ip4/1.2.3.4/tcp/1"));
    texts.resize(10_000, texts[0].clone());
    let (seeds, malformed) = parse(&texts, &ClaimPolicy::default());
    assert_eq!(
        (seeds.len() + usize::try_from(malformed).unwrap()),
        MAX_RECORDS
    );
}

#[test]
fn names_follow_the_network() {
    let mut config = Config {
        dns_seeds: vec![DEFAULT_DNS_SEEDS.to_owned(), "a.example.com".to_owned()],
        ..Config::default()
    };
    assert_eq!(config.seed_names(), ["a.example.com"]);
    config.network = Network::Esmeralda;
    let expected = ["seeds.esmeralda.tari.com", "a.example.com"];
    assert_eq!(config.seed_names(), expected);
    config.dns_servers = vec![(Ipv4Addr::LOCALHOST, 53).into(); 4];
    assert!(config.validate().is_err());
    let error = toml::from_str::<Config>("dns_servers = ['dns.example']").unwrap_err();
    assert!(error.to_string().contains("as in 9.9.9.9:53"), "{error}");
}

/// A node that nobody told of another one finds it by name, and enters no more than hearsay.
#[tokio::test]
async fn nodes_join_through_dns() {
    let secret = |n: u8| SecretKey::from_uniform_bytes(&[n; 64]).unwrap();
    let listen: Address = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    let seed = Node::builder(secret(1)).listen(listen.clone()).start();
    let seed = seed.await.unwrap();
    let stranger = format!("{}::/ip4/127.0.0.1/tcp/1", secret(3).public_key());
    let records = [
        seed.peer_address().to_string(),
        stranger,
        "nonsense".to_owned(),
    ];
    let (address, run) = server(move |query| {
        let records = records.each_ref().map(String::as_str);
        vec![answer(query, &records)]
    })
    .await;
    let config = Config {
        listen: vec![listen],
        dns_seeds: vec![NAME.to_owned()],
        dns_servers: vec![address],
        ..Config::default()
    };
    let node = Node::builder(secret(2))
        .config(config)
        .start()
        .await
        .unwrap();
    let node = Arc::new(node);
    let mut events = node.events();
    let joined = async {
        while !node
            .peers()
            .iter()
            .any(|peer| peer.public_key == *seed.public_key())
        {
            events.recv().await.unwrap();
        }
    };
    tokio::select! {
        () = joined => {}
        () = run => unreachable!("the server does not end"),
    }
    let stranger = node
        .directory()
        .find_by_key(&secret(3).public_key())
        .unwrap();
    assert!(!stranger.is_proven() && !stranger.is_seed());
    node.shutdown().await;
    seed.shutdown().await;
}

proptest! {
    /// Whatever a server sends, also an answer of which some bytes are others.
    #[test]
    fn arbitrary_answers_never_panic(
        noise in prop::collection::vec(any::<u8>(), 0..100),
        changes in prop::collection::vec((0..200_usize, any::<u8>()), 0..8),
        cut in 0..200_usize,
    ) {
        let question = resolver::question(NAME).unwrap();
        let mut query = Packet::new_query(7);
        query.questions.push(question.clone());
        let mut bytes = answer(&query.build_bytes_vec().unwrap(), &["a text", "another"]);
        let whole = read_answer(&bytes, 7, &question).unwrap().unwrap();
        prop_assert_eq!(whole.len(), 2);
        for (at, byte) in changes {
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut / 2));
        let _ = read_answer(&bytes, 7, &question);
        let _ = read_answer(&noise, 7, &question);
    }
}
