//! A sender, a holder and a recipient as three processes that are killed at random moments under traffic, and the checker
//! of what arrives.
//!
//! [`run`] starts this program again as each of them ([`live`]), with a home each and real sockets between them. It gives
//! the sender numbered messages, kills the processes without warning and starts them again, and hears what they say: the
//! sender how far its outbox reports a message, the recipient what the consumer of its inbox read and acked.
//!
//! The moments come from a seed. The same seed asks for the same moments; what the processes are doing then is up to
//! the machine.

mod account;
mod life;
mod line;
mod process;
mod rounds;

pub use account::Account;
pub use life::{Network, Role, live};
pub use line::Line;
pub use rounds::{Chain, Outcome, run};
