//! A mailbox without any network: `cargo run -p dht-saf --example keeper [DIRECTORY]`.
//!
//! Alice writes to Bob, who is away. A keeper, who cannot read them, stores the sealed messages. It is restarted.
//! Bob returns and asks page by page; each question proves that he has what the one before brought. What nobody
//! fetches expires.
#![allow(clippy::print_stdout, reason = "it is an example")]

use std::{error::Error, path::PathBuf};

use dht_core::{
    Destination, Encryption, Entropy, Features, Header, MessageTag, MessageType, NodeIdentity,
    ProtocolVersion, PublicKey, RawEnvelope, SealRequest, SealSecrets, SecretKey, SeededEntropy,
    Signing, UnixSeconds, Verified, encode_envelope, encode_parts, seal,
};
use dht_mailbox::{Neighbour, NewRecord, Recipient, Store, StoreConfig, StoredRecord};
use dht_saf::{Candidate, Decision, Pager, PagerConfig, Request, Surroundings, decide};
use prost::Message;
use rand_core::CryptoRng;

type Outcome<T> = Result<T, Box<dyn Error>>;

const HOUR: u64 = 60 * 60;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(|| temporary.path().into(), PathBuf::from);
    // An operating-system generator and a clock outside of examples.
    let mut rng = SeededEntropy::new(1).rng();
    let mut now = UnixSeconds(1_700_000_000);
    let alice = SecretKey::random(&mut rng);
    let keeper = Keeper(SecretKey::random(&mut rng).public_key());
    let bob = SecretKey::random(&mut rng);
    let bob = NodeIdentity::new(bob, Features::NODE, vec![], now, &mut rng);

    println!(
        "1. Bob is away. Alice sends 120 messages, ten a second; the keeper stores what it cannot read."
    );
    let store = Store::open(&directory, StoreConfig::default())?;
    for number in 0..120 {
        let message = write(&alice, bob.public_key(), number, now, &mut rng)?;
        keep(&store, &keeper, &alice.public_key(), &message, now).await?;
        if number % 10 == 9 {
            now.0 += 1;
        }
    }
    show(&store);

    println!("2. The keeper stops and starts again with the same directory.");
    store.close();
    drop(store);
    let store = Store::open(&directory, StoreConfig::default())?;
    show(&store);

    println!("3. Bob returns, and asks until an answer is not full.");
    let got = fetch_all(&store, &bob, &alice.public_key(), now).await?;
    println!("   Bob has opened {got} messages.");
    show(&store);

    println!("4. Alice's messages end three hours after she sent them, fetched or not.");
    now.0 += 3 * HOUR;
    println!("   {} messages expired.", store.expire(now).await?);
    show(&store);
    store.close();

    if got == 120 {
        Ok(())
    } else {
        Err("some are missing".into())
    }
}

/// One message of Alice, sealed for Bob, as it passes whoever relays it: verified, and not to be opened.
fn write(
    alice: &SecretKey,
    bob: &PublicKey,
    number: u64,
    now: UnixSeconds,
    rng: &mut impl CryptoRng,
) -> Outcome<Verified> {
    let request = SealRequest {
        body: encode_parts(&[format!("message {number}").into()]),
        message_type: MessageType::None,
        destination: Destination::PublicKey(*bob),
        encryption: Encryption::EncryptFor(*bob),
        sender: alice,
        signing: Signing::Anonymous,
        expires: Some(now.saturating_add(3 * HOUR)),
        tag: MessageTag(number),
        version: ProtocolVersion::V2,
    };
    let sealed = seal(request, SealSecrets::random(rng))?;
    let frame = encode_envelope(&sealed.header, &sealed.body);
    Ok(RawEnvelope::parse(frame)?.into_sealed()?.verify()?)
}

/// The keeper decides whether to store a message, and stores it. When this returns it is on the disk.
async fn keep(
    store: &Store,
    keeper: &Keeper,
    from: &PublicKey,
    message: &Verified,
    now: UnixSeconds,
) -> Outcome<()> {
    let header = message.header();
    let candidate = Candidate {
        hits: 1,
        body_bytes: message.body().len() as u64,
        expires: header.expires,
        message_type: header.message_type,
        destination: &header.destination,
        origin: None,
        readable: false,
        signed: !header.signature.is_empty(),
    };
    let Decision::Store(retention) = decide(&candidate, keeper, 524_288, now) else {
        return Err("the keeper should keep it".into());
    };
    let Destination::PublicKey(recipient) = &header.destination else {
        return Err("it is addressed to nobody".into());
    };
    let record = NewRecord {
        recipient: Recipient::from(recipient),
        neighbour: Neighbour::from(from),
        hash: message.dedup_hash(),
        retention,
        expires: header.expires,
        header: dht_proto::encode(&header.to_proto()),
        body: message.body().clone(),
    };
    store.insert(record, now).await?;
    Ok(())
}

/// Bob asks from the newest second he has seen; the keeper deletes what that proves to have arrived.
async fn fetch_all(
    store: &Store,
    bob: &NodeIdentity,
    alice: &PublicKey,
    now: UnixSeconds,
) -> Outcome<usize> {
    let mailbox = Recipient::from(bob.public_key());
    let mut pager = Pager::new(PagerConfig::default());
    let (mut since, mut opened) = (None, 0);
    loop {
        let request = Request {
            requester: mailbox,
            since,
            limit: 0,
        };
        let plan = pager.plan(request, now);
        let deleted = store.delete(plan.proven.clone(), Some(mailbox)).await?;
        let mut page = store.fetch(&pager.query(&plan, now))?;
        pager.arrange(&plan, &mut page);
        pager.handed_over(&plan, &page);
        println!(
            "   {} messages; {deleted} of earlier answers have arrived and are deleted",
            page.records.len()
        );
        for record in &page.records {
            opened += usize::from(open(record, bob)? == Some(*alice));
            since = since.max(Some(record.stored_at));
        }
        if !page.more {
            return Ok(opened);
        }
    }
}

/// Bob opens a stored message; answers who wrote it.
fn open(record: &StoredRecord, bob: &NodeIdentity) -> Outcome<Option<PublicKey>> {
    let header = dht_proto::envelope::DhtHeader::decode(record.header.clone())?;
    let frame = encode_envelope(&Header::from_proto(&header)?, &record.body);
    let verified = RawEnvelope::parse(frame)?.into_sealed()?.verify()?;
    Ok(verified.open(bob)?.origin().copied())
}

fn show(store: &Store) {
    let held = store.stats();
    println!(
        "   The keeper holds {} messages, {} bytes, in {} mailboxes.",
        held.rows, held.bytes, held.mailboxes
    );
}

/// A node that keeps mail for everybody.
struct Keeper(PublicKey);

impl Surroundings for Keeper {
    fn stores(&self) -> bool {
        true
    }
    fn own_key(&self) -> &PublicKey {
        &self.0
    }
    fn is_banned(&self, _: &PublicKey) -> bool {
        false
    }
    fn in_region(&self, _: &PublicKey) -> bool {
        true
    }
}
