//! An onion service of a running Tor, kept alive over its control port.
//!
//! [`OnionKey`] is the key of the service, from which its address follows. [`OnionService`] has Tor serve it, and adds it
//! again whenever the control connection or Tor was lost.
//!
//! ```no_run
//! use std::sync::Arc;
//! use dht_core::OsEntropy;
//! use dht_tor::{Authentication, OnionConfig, OnionKey, OnionService};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), dht_tor::KeyError> {
//! let key = OnionKey::read_or_make("onion_key".as_ref(), &OsEntropy)?;
//! println!("{}", key.address(18_141));
//! let config = OnionConfig {
//!     authentication: Authentication::Auto,
//!     port: 18_141,
//!     target: ([127, 0, 0, 1], 18_189).into(),
//! };
//! let control = std::net::SocketAddr::from(([127, 0, 0, 1], 9051));
//! let service = OnionService::new(control, config, key, Arc::new(OsEntropy));
//! // It ends with the program.
//! match service.run().await {}
//! # }
//! ```

mod authenticate;
mod control;
mod error;
mod key;
mod metrics;
mod reply;
mod service;

pub use authenticate::Authentication;
pub use error::{ControlError, KeyError};
pub use key::OnionKey;
pub use metrics::describe_metrics;
pub use service::{ControlPort, OnionConfig, OnionService, OnionState};
