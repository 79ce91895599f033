//! The scenarios, by subject.

mod connections;
mod gossip;
mod messages;
mod overlay;
mod stored;

use super::world::Scenario;

/// All scenarios.
pub const SCENARIOS: [&[Scenario]; 5] = [
    connections::SCENARIOS,
    messages::SCENARIOS,
    gossip::SCENARIOS,
    overlay::SCENARIOS,
    stored::SCENARIOS,
];
