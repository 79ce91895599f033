//! The scenarios, by subject.

mod connections;
mod gossip;
mod messages;
mod stored;

use super::world::Scenario;

/// All scenarios.
pub const SCENARIOS: [&[Scenario]; 4] = [
    connections::SCENARIOS,
    messages::SCENARIOS,
    gossip::SCENARIOS,
    stored::SCENARIOS,
];
