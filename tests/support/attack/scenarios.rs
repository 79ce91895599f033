//! The attacks.

mod blame;
mod claims;
mod dials;
mod directory;
mod eclipse;
mod faults;
mod mux;
mod pages;
mod slots;
mod storage;
mod sync;
mod volume;

use super::stage::Scenario;

/// Every attack, in the order in which they are run.
pub const SCENARIOS: &[&[Scenario]] = &[
    slots::SCENARIOS,
    dials::SCENARIOS,
    directory::SCENARIOS,
    claims::SCENARIOS,
    eclipse::SCENARIOS,
    storage::SCENARIOS,
    pages::SCENARIOS,
    sync::SCENARIOS,
    volume::SCENARIOS,
    mux::SCENARIOS,
    blame::SCENARIOS,
    faults::SCENARIOS,
];
