//! `crash`: the mailbox, and the way of a message from sender to recipient, under kill -9.

use anyhow::Result;
use clap::Args;

use crate::repo;

/// Kill a writer of the mailbox at random moments and check that nothing acknowledged is lost
///
/// Each round starts a process that inserts, deletes and expires, kills it without warning, opens the store and
/// compares every row, index and counter with what was acknowledged. Prints a line a round and ends with
/// `acknowledged N, lost L, inconsistent I`; fails unless both are 0 and every opening took under a second.
///
/// With `--chain`, sender, holder and recipient are a process each, and every round kills each of them once or twice
/// under traffic. Ends with `acknowledged N, lost L, twice T`: messages that the sender's outbox reported as received or
/// stored, those of them that the consumer of the recipient's inbox never got, and messages that it got again after its
/// ack. Fails unless both are 0.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask crash                           50 rounds on 100 000 rows\n  \
                        cargo xtask crash --rounds 500 --seed 7     more, at the moments of an earlier run\n  \
                        cargo xtask crash --chain --rounds 200      sender, holder and recipient"
)]
pub(crate) struct Crash {
    /// Kill a sender, a holder and a recipient instead
    #[arg(long, conflicts_with = "records")]
    chain: bool,
    /// How often to kill
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Seed of the moments of the kills; printed, and random if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Rows that are there before the first round
    #[arg(long, default_value_t = 100_000)]
    records: u64,
}

impl Crash {
    pub(crate) fn run(self) -> Result<()> {
        let mut command = repo::cargo([
            "run",
            "--release",
            "--package",
            "dht-tests",
            "--bin",
            "crash",
            "--",
        ]);
        command.args(["--rounds", &self.rounds.to_string()]);
        command.args(["--records", &self.records.to_string()]);
        if self.chain {
            command.arg("--chain");
        }
        if let Some(seed) = self.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        repo::run(&mut command)
    }
}
