//! Results of a run, compared with the criteria.

use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;
use serde::Serialize;

/// Memory beside the budget, in MiB: code, tables, connections, the allocator's slack.
const BESIDE_BUDGET_MB: f64 = 64.0;

/// The least share of the capacity that must remain.
const LEAST_GOODPUT: f64 = 0.8;

/// The longest a control message may wait, in milliseconds.
const CONTROL_LIMIT_MS: f64 = 1_000.0;

/// Memory that an idle node may take beyond what it took before and what its tables count, in MiB: smaller caches, buffers
/// of connections, the allocator's slack.
const IDLE_SLACK_MB: f64 = 32.0;

/// Memory that an idle node may take, in MiB: as much as before, the tables of messages that it remembers (03 F-15), the messages
/// it stores for others, as it counts the bytes of both, and [`IDLE_SLACK_MB`].
pub(crate) fn idle_limit_mb(idle_rss_mb: f64, remembered_mb: f64, stored_mb: f64) -> f64 {
    idle_rss_mb + remembered_mb + stored_mb + IDLE_SLACK_MB
}

/// Figures of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seconds: f64,
    pub(crate) peers: u64,
    pub(crate) budget_mb: usize,
    pub(crate) idle_rss_mb: f64,
    pub(crate) peak_rss_mb: f64,
    pub(crate) idle_rss_after_mb: f64,
    pub(crate) idle_after_seconds: f64,
    /// Memory of the messages that the node remembers in the end.
    pub(crate) remembered_mb: f64,
    /// Memory of the messages that it stores for others in the end.
    pub(crate) stored_mb: f64,
    pub(crate) capacity_per_second: f64,
    pub(crate) offered_per_second: f64,
    pub(crate) refused_by_senders: u64,
    pub(crate) goodput_per_second: f64,
    pub(crate) goodput_ratio: f64,
    pub(crate) received: u64,
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) unsent: u64,
    pub(crate) control_asked: usize,
    pub(crate) control_p50_ms: f64,
    pub(crate) control_p99_ms: f64,
    pub(crate) control_max_ms: f64,
    pub(crate) deadlocks: u64,
    pub(crate) lost_peers: usize,
    /// The criteria that are not met.
    pub(crate) failed: Vec<String>,
}

impl Report {
    /// Adds the times of the control answers and judges.
    pub(crate) fn with_control(mut self, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an index"
            )]
            let index = ((times.len().max(1) - 1) as f64 * share).ceil() as usize;
            let time = times.get(index).copied().unwrap_or_default();
            time.as_secs_f64() * 1e3
        };
        self.control_asked = times.len();
        self.control_p50_ms = at(0.5);
        self.control_p99_ms = at(0.99);
        self.control_max_ms = at(1.0);
        self.failed = self.judge();
        self
    }

    fn judge(&self) -> Vec<String> {
        let most = self.budget_mb as f64 + BESIDE_BUDGET_MB;
        let idle = idle_limit_mb(self.idle_rss_mb, self.remembered_mb, self.stored_mb);
        let criteria = [
            (
                self.peak_rss_mb > 0.0 && self.peak_rss_mb <= most,
                format!("memory at most {most:.0} MiB"),
            ),
            (
                self.goodput_ratio >= LEAST_GOODPUT,
                format!("goodput at least {LEAST_GOODPUT} of capacity"),
            ),
            (
                self.control_asked > 0 && self.control_max_ms <= CONTROL_LIMIT_MS,
                format!("control messages answered within {CONTROL_LIMIT_MS} ms"),
            ),
            (self.deadlocks == 0, "no deadlock".to_owned()),
            (self.lost_peers == 0, "no peer lost".to_owned()),
            (
                self.idle_rss_after_mb <= idle,
                format!("back to at most {idle:.0} MiB within 30 s"),
            ),
        ];
        criteria
            .into_iter()
            .filter(|(met, _)| !met)
            .map(|(_, what)| what)
            .collect()
    }

    /// Prints the figures; an error if a criterion is not met.
    #[expect(clippy::print_stdout, reason = "this is what the user asked for")]
    pub(crate) fn show(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
        } else {
            println!("{}", self.table());
        }
        if self.failed.is_empty() {
            return Ok(());
        }
        bail!("not met: {}", self.failed.join("; "))
    }

    fn table(&self) -> String {
        let drops: Vec<String> = self
            .drops
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let rows = [
            (
                "overload",
                format!(
                    "{:.0} s, {} peers, {:.0} messages/s offered",
                    self.seconds, self.peers, self.offered_per_second
                ),
            ),
            (
                "capacity",
                format!("{:.0} useful messages/s", self.capacity_per_second),
            ),
            (
                "goodput",
                format!(
                    "{:.0} useful messages/s, ratio {:.2}",
                    self.goodput_per_second, self.goodput_ratio
                ),
            ),
            (
                "memory",
                format!(
                    "{:.0} MiB idle, {:.0} MiB at most, budget {} MiB",
                    self.idle_rss_mb, self.peak_rss_mb, self.budget_mb
                ),
            ),
            (
                "memory after",
                format!(
                    "{:.0} MiB, {:.1} s later; {:.0} of it messages seen, {:.0} stored ones",
                    self.idle_rss_after_mb,
                    self.idle_after_seconds,
                    self.remembered_mb,
                    self.stored_mb
                ),
            ),
            (
                "control",
                format!(
                    "{} asked, median {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
                    self.control_asked,
                    self.control_p50_ms,
                    self.control_p99_ms,
                    self.control_max_ms
                ),
            ),
            ("deadlocks", self.deadlocks.to_string()),
            ("received", self.received.to_string()),
            (
                "held back",
                format!(
                    "{} refused by the senders' own queues",
                    self.refused_by_senders
                ),
            ),
            ("dropped", drops.join(", ")),
            ("unsent", self.unsent.to_string()),
        ];
        let lines: Vec<String> = rows
            .into_iter()
            .map(|(name, value)| format!("{name:<14}{value}"))
            .collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            budget_mb: 256,
            idle_rss_mb: 10.0,
            peak_rss_mb: 300.0,
            idle_rss_after_mb: 20.0,
            goodput_ratio: 0.9,
            ..Report::default()
        }
    }

    #[test]
    fn each_criterion_can_fail() {
        let quick = vec![Duration::from_millis(20); 10];
        assert_eq!(good().with_control(quick.clone()).failed, [""; 0]);
        let bad = [
            Report {
                peak_rss_mb: 321.0,
                ..good()
            },
            Report {
                goodput_ratio: 0.79,
                ..good()
            },
            Report {
                deadlocks: 1,
                ..good()
            },
            Report {
                lost_peers: 1,
                ..good()
            },
            Report {
                idle_rss_after_mb: 48.0,
                remembered_mb: 2.0,
                stored_mb: 3.0,
                ..good()
            },
        ];
        for report in bad {
            assert_eq!(report.with_control(quick.clone()).failed.len(), 1);
        }
        let mut slow = quick;
        slow.push(Duration::from_millis(1_001));
        assert_eq!(good().with_control(slow).failed.len(), 1);
        assert_eq!(good().with_control(Vec::new()).failed.len(), 1);
    }
}
