//! A directory, its closest peers, and a ban: `cargo run -p dht-peers --example ban_policy`.
#![allow(clippy::print_stdout, reason = "it is an example")]

use std::sync::Arc;

use dht_core::{Features, ManualClock, SecretKey, UnixSeconds};
use dht_peers::{
    Directory, PeerFilter, PeerRecord,
    policy::{AttributionProfile, BanPolicy, BanTerms, Offence, Parties, rules},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = UnixSeconds(1_700_000_000);
    let key = |n| SecretKey::from_bytes(&[n; 32]).map(|secret| secret.public_key());
    let directory = Directory::new(key(1)?.node_id());
    for n in 2..10 {
        directory.add_or_update(PeerRecord::seed(key(n)?, Features::NODE, [], now), now);
    }
    let target = key(15)?.node_id();
    let closest = directory.closest(&target, 3, &PeerFilter::reachable(now));
    println!("closest to {target}:");
    for peer in &closest {
        println!("  {}", peer.node_id());
    }

    let policy = BanPolicy::new(
        AttributionProfile::Strict,
        BanTerms::default(),
        directory.clone(),
        Arc::new(ManualClock::new(now)),
    );
    let nearest = closest.first().ok_or("no peer")?;
    let ban = policy.report(
        Offence::JoinForOther,
        Parties::origin(*nearest.public_key()),
    );
    let ban = ban.ok_or("the table bans for it")?;
    println!(
        "banned {} until {}: {}",
        ban.node_id, ban.until.0, ban.reason
    );
    let left = directory.closest(&target, 3, &PeerFilter::reachable(now));
    assert!(left.iter().all(|peer| peer.node_id() != nearest.node_id()));
    println!("{} offences are in the table", rules().len());
    Ok(())
}
