//! Stores and fetches mail without any network: `cargo run -p dht-saf --example mailbox [DIRECTORY]`.
//!
//! Alice writes to Bob, who is away. A third party keeps the sealed messages; Bob returns, asks twice, and with his
//! second question proves that he has what the first one brought.
#![allow(clippy::print_stdout, reason = "it is an example")]

use std::error::Error;

use dht_core::{
    Destination, Encryption, Entropy, Features, MessageTag, MessageType, NodeIdentity,
    ProtocolVersion, RawEnvelope, SealRequest, SealSecrets, SecretKey, SeededEntropy, Signing,
    UnixSeconds, encode_envelope, encode_parts, seal,
};
use dht_saf::{
    Candidate, Decision, Neighbour, NewRecord, Pager, PagerConfig, Recipient, Request, Store,
    StoreConfig, Surroundings, decide,
};
use prost::Message;

/// A node that keeps mail for everybody.
struct Keeper(dht_core::PublicKey);

impl Surroundings for Keeper {
    fn stores(&self) -> bool {
        true
    }
    fn own_key(&self) -> &dht_core::PublicKey {
        &self.0
    }
    fn is_banned(&self, _: &dht_core::PublicKey) -> bool {
        false
    }
    fn in_region(&self, _: &dht_core::PublicKey) -> bool {
        true
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(|| temporary.path().into(), std::path::PathBuf::from);
    let store = Store::open(&directory, StoreConfig::default())?;

    // An operating-system generator outside of examples.
    let mut rng = SeededEntropy::new(1).rng();
    let mut now = UnixSeconds(1_700_000_000);
    let alice = SecretKey::random(&mut rng);
    let keeper = Keeper(SecretKey::random(&mut rng).public_key());
    let bob = NodeIdentity::new(
        SecretKey::random(&mut rng),
        Features::NODE,
        vec![],
        now,
        &mut rng,
    );
    let mailbox = Recipient::from(bob.public_key());

    println!("Bob is away. Alice sends 120 messages; the keeper cannot read them, and keeps them.");
    for number in 0..120 {
        let request = SealRequest {
            body: encode_parts(&[format!("message {number}").into()]),
            message_type: MessageType::None,
            destination: Destination::PublicKey(*bob.public_key()),
            encryption: Encryption::EncryptFor(*bob.public_key()),
            sender: &alice,
            signing: Signing::Anonymous,
            expires: Some(now.saturating_add(3 * 60 * 60)),
            tag: MessageTag(number),
            version: ProtocolVersion::V2,
        };
        let sealed = seal(request, SealSecrets::random(&mut rng))?;
        // What passes the keeper is an envelope it has verified and cannot open.
        let message = RawEnvelope::parse(encode_envelope(&sealed.header, &sealed.body))?
            .into_sealed()?
            .verify()?;
        let candidate = Candidate {
            hits: 1,
            body_bytes: message.body().len() as u64,
            expires: message.header().expires,
            message_type: message.header().message_type,
            destination: &message.header().destination,
            origin: None,
            readable: false,
            signed: !message.header().signature.is_empty(),
        };
        let Decision::Store(retention) = decide(&candidate, &keeper, 524_288, now) else {
            return Err("the keeper should keep it".into());
        };
        let record = NewRecord {
            recipient: mailbox,
            neighbour: Neighbour::from(&alice.public_key()),
            hash: message.dedup_hash(),
            retention,
            expires: message.header().expires,
            header: dht_proto::encode(&message.header().to_proto()),
            body: message.body().clone(),
        };
        store.insert(record, now).await?;
        if number % 10 == 9 {
            now.0 += 1;
        }
    }
    println!("The keeper holds {:?}.", store.stats());

    println!("Bob returns and asks until an answer is not full.");
    let mut pager = Pager::new(PagerConfig::default());
    let mut since = None;
    let mut got = 0;
    loop {
        let plan = pager.plan(
            Request {
                requester: mailbox,
                since,
                limit: 0,
            },
            now,
        );
        let deleted = store.delete(plan.proven.clone(), Some(mailbox)).await?;
        let mut page = store.fetch(&pager.query(&plan, now))?;
        pager.arrange(&plan, &mut page);
        pager.handed_over(&plan, &page);
        for record in &page.records {
            let header = dht_proto::envelope::DhtHeader::decode(record.header.clone())?;
            let header = dht_core::Header::from_proto(&header)?;
            let frame = encode_envelope(&header, &record.body);
            let opened = RawEnvelope::parse(frame)?
                .into_sealed()?
                .verify()?
                .open(&bob)?;
            got += usize::from(opened.origin() == Some(&alice.public_key()));
        }
        since = page
            .records
            .iter()
            .map(|record| record.stored_at)
            .max()
            .max(since);
        println!(
            "  {} messages; {deleted} that were proven to have arrived are deleted",
            page.records.len()
        );
        if page.records.len() < 50 {
            break;
        }
    }
    println!("Bob has opened {got} messages.");
    store.close();
    if got == 120 {
        Ok(())
    } else {
        Err("some are missing".into())
    }
}
