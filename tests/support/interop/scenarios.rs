//! The scenarios, by subject.

mod connections;
mod gossip;
mod hostile;
mod messages;
mod overlay;
mod stored;

use super::world::Scenario;

/// All scenarios.
pub const SCENARIOS: [&[Scenario]; 6] = [
    connections::SCENARIOS,
    messages::SCENARIOS,
    gossip::SCENARIOS,
    overlay::SCENARIOS,
    stored::SCENARIOS,
    hostile::SCENARIOS,
];
