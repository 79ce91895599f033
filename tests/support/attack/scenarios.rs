//! The attacks.

mod blame;
mod directory;
mod faults;
mod storage;
mod volume;

use super::stage::Scenario;

/// Every attack, in the order in which they are run.
pub const SCENARIOS: &[&[Scenario]] = &[
    directory::SCENARIOS,
    storage::SCENARIOS,
    volume::SCENARIOS,
    blame::SCENARIOS,
    faults::SCENARIOS,
];
