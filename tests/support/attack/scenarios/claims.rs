//! Attacks by claims: what is signed, when, and of whom.

use std::ops::Range;

use bytes::Bytes;
use dht_core::{Address, Claim, PublicKey, SecretKey};
use dht_peers::{MAX_CLAIM_ADDRESSES, MAX_STATED_ADDRESSES};
use dht_transport::BoxFuture;

use super::super::stage::{Scenario, Stage, claiming, pump};
use crate::{
    frames,
    loopback::{closed, ip},
    target::secret,
};

/// Joins that one hostile peer hands over: who signs a forgery with its own key is banned.
const EACH: usize = 10;

/// Seeds of the keys whose claims are bad.
const BAD: Range<u64> = 1 << 43..(1 << 43) + 20;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "claims-too-long",
        "joins whose claims have up to a hundred thousand addresses",
        too_long,
    )
    .within_mib(32.0),
    Scenario::new(
        "claims-from-the-future",
        "joins whose claims are newer than now, by more than a day, weeks, years",
        from_the_future,
    ),
    Scenario::new(
        "claims-of-others",
        "joins with the key of an honest node, whose claims another key signed, or which are old",
        of_others,
    ),
    Scenario::new(
        "claims-signed-again",
        "a peer that signs a claim of another address again and again",
        signed_again,
    ),
];

/// Hands over joins, [`EACH`] from an address; the number that was sent.
async fn hand_over(stage: &mut Stage, joins: &[Bytes]) -> anyhow::Result<usize> {
    let mut sent = 0;
    for (at, some) in joins.chunks(EACH).enumerate() {
        let from = ip(66, u8::try_from(at % 200)?, u8::try_from(at / 200 + 1)?);
        let peer = stage.hostile(from).await?;
        sent += pump(&peer, some.iter().cloned()).await?;
    }
    Ok(sent)
}

fn too_long(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let most = stage.scale(100_000, 20_000);
        let addresses: Vec<Address> = (0..most)
            .map(|at| closed(u16::try_from(at % 65_536).unwrap_or_default(), 18_189))
            .collect();
        // From just too many on.
        let lengths = [MAX_CLAIM_ADDRESSES + 1, MAX_STATED_ADDRESSES + 1, most];
        let mut joins = Vec::new();
        for (seed, length) in BAD.zip(lengths.into_iter().cycle()) {
            let some = addresses.iter().take(length).cloned().collect();
            let peer = claiming(secret(seed), some, 0);
            joins.push(frames::join(&peer, seed, &[])?);
        }
        // The last is as long as a claim may be: what is handed over this way is entered.
        let some = addresses.iter().take(MAX_CLAIM_ADDRESSES).cloned();
        let longest = claiming(secret(BAD.end), some.collect(), 0);
        joins.push(frames::join(&longest, 0, &[])?);
        let sent = hand_over(stage, &joins).await?;
        stage.check(format!("{sent} joins sent"), sent > 0);
        stage.newcomers_are_served(2).await?;
        let kept = stage.process().addresses(longest.public_key())?.len();
        stage.check(
            format!("{kept} addresses kept of the longest claim"),
            kept == MAX_CLAIM_ADDRESSES,
        );
        let mut known = 0;
        for seed in BAD {
            let key = secret(seed).public_key();
            known += usize::from(stage.process().knows(&key)?);
        }
        stage.check(format!("{known} of too many known"), known == 0);
        Ok(())
    })
}

fn from_the_future(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        // Clocks may differ by a day.
        const AHEAD: [i64; 4] = [90_000, 86_400 * 7, 86_400 * 365, 86_400 * 365 * 100];
        let mut joins = Vec::new();
        for (seed, ahead) in BAD.zip(AHEAD.into_iter().cycle()) {
            let peer = claiming(secret(seed), vec![closed(3, 18_189)], ahead);
            joins.push(frames::join(&peer, seed, &[])?);
        }
        // The last is of now: what is handed over this way is entered.
        let good = claiming(secret(BAD.end), vec![closed(3, 18_189)], 0);
        joins.push(frames::join(&good, 0, &[])?);
        let sent = hand_over(stage, &joins).await?;
        stage.check(format!("{sent} joins sent"), sent > 0);
        stage.newcomers_are_served(2).await?;
        let known = stage.process().knows(good.public_key())?;
        stage.check("one of now is known", known);
        let mut known = 0;
        for seed in BAD {
            let key = secret(seed).public_key();
            known += usize::from(stage.process().knows(&key)?);
        }
        stage.check(format!("{known} of the future known"), known == 0);
        Ok(())
    })
}

/// A claim that another key signed.
fn forged(by: &SecretKey, at: u64) -> Claim {
    let false_address = closed(u16::try_from(at).unwrap_or_default(), 18_189);
    (*claiming(by.clone(), vec![false_address], 0).claim()).clone()
}

fn of_others(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let to = stage.target().clone();
        let friend = stage.honest(ip(10, 0, 1), 0).await?;
        let served = friend.is_served(&to).await;
        let (key, own) = (*friend.node().public_key(), friend.node().claim());
        let hers = secret(friend.seed());
        stage.check("the friend is served", served);
        let before = stage.process().addresses(&key)?;
        stage.check(
            format!("addresses of the friend: {before:?}"),
            before.len() == 1,
        );
        let mut joins = Vec::new();
        for seed in BAD {
            let attacker = secret(seed);
            let by_another = forged(&attacker, seed % 1_000);
            let altered = Claim {
                addresses: by_another.addresses.clone(),
                ..(*own).clone()
            };
            for claim in [&by_another, &altered] {
                joins.push(frames::join_of(&attacker, (&key, claim), seed, &[])?);
            }
            // She had other addresses once: as she sent it, and handed over by another.
            let old = claiming(hers.clone(), vec![closed(4, 18_189)], -3_600);
            joins.push(frames::join(&old, seed, &[])?);
            let claim = old.claim();
            joins.push(frames::join_of(&attacker, (&key, &claim), seed, &[])?);
        }
        let sent = hand_over(stage, &joins).await?;
        stage.check(format!("{sent} joins sent"), sent > joins.len() / EACH);
        stage.newcomers_are_served(2).await?;
        let after = stage.process().addresses(&key)?;
        stage.check(format!("after it: {after:?}"), after == before);
        // She is away, and reached where she was.
        let offline = stage.honest_at(2)?;
        offline.node().remove_peer(&to.public_key.node_id());
        let dialled = reach(stage, &key)?;
        stage.check(format!("reached again: {dialled:?}"), dialled.is_ok());
        Ok(())
    })
}

/// The node dials a key at the addresses that it knows.
fn reach(stage: &mut Stage, key: &PublicKey) -> anyhow::Result<Result<(), String>> {
    let addresses = stage.process().addresses(key)?;
    let addresses: Result<_, _> = addresses.iter().map(|known| known.parse()).collect();
    let peer = dht_core::PeerAddress {
        public_key: *key,
        addresses: addresses?,
    };
    tokio::task::block_in_place(|| stage.process().connect(&peer))
}

fn signed_again(stage: &mut Stage) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let count = u16::try_from(stage.scale(10_000, 1_000))?;
        let peer = stage.hostile(ip(66, 1, 1)).await?;
        let own = peer.identity().secret_key().clone();
        let joins = (0..count).map_while(|at| {
            // Each second one is newer than all before, the others are older.
            let ahead = i64::from(at) * if at % 2 == 0 { 1 } else { -1 };
            let again = claiming(own.clone(), vec![closed(at, 18_189)], ahead);
            frames::join(&again, at.into(), &[]).ok()
        });
        let sent = pump(&peer, joins).await?;
        stage.check(format!("{sent}/{count} joins sent"), sent > 100);
        stage.newcomers_are_served(2).await?;
        // Each claim takes the place of the one before, of whose address nobody knows that it works.
        let first = peer.identity().claim().addresses.clone();
        let kept = stage.process().addresses(&own.public_key())?;
        let is_new = |kept: &String| first.iter().all(|old| old.to_string() != *kept);
        stage.check(
            format!("{} of 1 address kept", kept.len()),
            kept.len() == 1 && kept.iter().all(is_new),
        );
        let dials: u64 = stage.status()?.dials.attempts.values().sum();
        stage.check(format!("{dials} of 100 dials"), dials <= 100);
        Ok(())
    })
}
