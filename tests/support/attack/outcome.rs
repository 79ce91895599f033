//! Result of a scenario.

use std::fmt;

use serde::Serialize;

/// Least share of the messages of honest nodes that must come back, in thousandths.
const LEAST_SERVED: u64 = 999;

/// Something that must hold under an attack.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Measurement, with its bound.
    pub what: String,
    /// Whether it held.
    pub held: bool,
}

/// Result of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Name of the scenario.
    pub name: &'static str,
    /// Description of the attack.
    pub attack: &'static str,
    /// Messages of honest nodes that came back.
    pub served: u64,
    /// Messages that honest nodes sent.
    pub sent: u64,
    /// Growth of the node's memory in MiB.
    pub growth_mib: f64,
    /// Most that it may grow, in MiB.
    pub growth_limit_mib: f64,
    /// Bans of honest nodes by honest nodes.
    pub bans: Vec<String>,
    /// Other things that must hold.
    pub checks: Vec<Check>,
    /// Error that ended the scenario early.
    pub error: Option<String>,
    /// Seconds it took.
    pub seconds: f64,
}

impl Outcome {
    /// Whether everything held.
    #[must_use]
    pub fn held(&self) -> bool {
        self.error.is_none() && self.all().iter().all(|check| check.held)
    }

    /// The checks of every scenario, and those of this one.
    #[must_use]
    pub fn all(&self) -> Vec<Check> {
        let check = |what: String, held| Check { what, held };
        let mut all = vec![
            check(
                format!("honest {}/{}", self.served, self.sent),
                self.sent > 0 && self.served * 1_000 >= self.sent * LEAST_SERVED,
            ),
            check(
                format!(
                    "+{:.0} of {:.0} MiB",
                    self.growth_mib, self.growth_limit_mib
                ),
                self.growth_mib <= self.growth_limit_mib,
            ),
            check(
                match self.bans.as_slice() {
                    [] => "no honest node banned".to_owned(),
                    bans => format!("banned: {}", bans.join(", ")),
                },
                self.bans.is_empty(),
            ),
        ];
        all.extend_from_slice(&self.checks);
        all
    }
}

/// One line: the name, whether it held, what was measured.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.held() { "held" } else { "FAILED" };
        let measured: Vec<String> = self
            .all()
            .into_iter()
            .map(|check| {
                format!(
                    "{}{}",
                    if check.held { "" } else { "NOT HELD: " },
                    check.what
                )
            })
            .chain(self.error.iter().map(|error| format!("error: {error}")))
            .collect();
        write!(
            f,
            "{:<24} {state:<6} {:>5.1} s  {}",
            self.name,
            self.seconds,
            measured.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Outcome {
        Outcome {
            name: "nothing",
            attack: "nobody does anything",
            served: 999,
            sent: 1_000,
            growth_mib: 3.0,
            growth_limit_mib: 4.0,
            bans: Vec::new(),
            checks: Vec::new(),
            error: None,
            seconds: 1.0,
        }
    }

    #[test]
    fn every_condition_can_fail() {
        assert!(good().held());
        let failed = Check {
            what: "ten of ten".to_owned(),
            held: false,
        };
        let bad = [
            Outcome {
                served: 998,
                ..good()
            },
            Outcome {
                served: 0,
                sent: 0,
                ..good()
            },
            Outcome {
                growth_mib: 4.1,
                ..good()
            },
            Outcome {
                bans: vec!["alice: flood".to_owned()],
                ..good()
            },
            Outcome {
                checks: vec![failed],
                ..good()
            },
            Outcome {
                error: Some("the node has died".to_owned()),
                ..good()
            },
        ];
        for outcome in bad {
            assert!(!outcome.held(), "{outcome}");
            assert!(outcome.to_string().contains("FAILED"));
        }
    }
}
