//! The attacks.

mod blame;
mod dials;
mod directory;
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
    storage::SCENARIOS,
    pages::SCENARIOS,
    sync::SCENARIOS,
    volume::SCENARIOS,
    mux::SCENARIOS,
    blame::SCENARIOS,
    faults::SCENARIOS,
];
