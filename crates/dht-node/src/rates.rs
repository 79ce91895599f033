//! How much a neighbour may send, as plain data.

use std::num::NonZeroU32;

use dht_inbound::RateLimits;
use dht_stack::Rate;
use serde::{Deserialize, Serialize};

/// How much of each kind one neighbour may send: the section `[rates]` of the configuration.
///
/// What exceeds a rate is dropped and counted; nobody is banned for it. Exact copies of messages already seen cost
/// nothing. [`flood_messages`](crate::Config::flood_messages) bans for the sum of it all.
///
/// ```
/// let text = "[rates]\njoin = { per_second = 10, burst = 100 }\nmail_request = { per_second = 2 }";
/// let config: dht_node::Config = toml::from_str(text)?;
/// assert_eq!(config.rates.join.per_second.get(), 10);
/// assert_eq!(config.rates.mail_request.burst, 0); // no more at once than in a second
/// assert!(toml::from_str::<dht_node::Config>("[rates]\njoin = { per_second = 0 }").is_err());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateSettings {
    /// Application messages. Defaults to 20 000 a second, half of what two cores verify.
    pub application: RateSetting,
    /// Joins, its own and those it passes on. Defaults to 50 a second, 2 000 at once.
    pub join: RateSetting,
    /// Discoveries, its own and those it passes on. Defaults to 50 a second, 2 000 at once.
    pub discovery: RateSetting,
    /// Answers to discoveries, which are only ever its own. Defaults to 20 a second, 500 at once.
    pub discovery_response: RateSetting,
    /// Requests for stored mail, each of which reads the store. Defaults to 5 a second, 100 at once.
    pub mail_request: RateSetting,
    /// Messages of stored mail, of up to a hundred each. Defaults to 20 a second, 500 at once.
    pub mail: RateSetting,
    /// Bytes that are no message; a neighbour beyond it is not listened to until it has made up for it. Defaults to
    /// 256 KiB a second, 4 MiB at once.
    pub undecodable_bytes: RateSetting,
}

/// One rate of [`RateSettings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSetting {
    /// Messages, or bytes, a second.
    pub per_second: NonZeroU32,
    /// Messages, or bytes, at once; less than `per_second` means as many as that. Defaults to 0.
    #[serde(default)]
    pub burst: u32,
}

impl Default for RateSettings {
    fn default() -> Self {
        let RateLimits {
            application,
            join,
            discovery,
            discovery_response,
            mail_request,
            mail,
            undecodable_bytes,
        } = RateLimits::default();
        Self {
            application: application.into(),
            join: join.into(),
            discovery: discovery.into(),
            discovery_response: discovery_response.into(),
            mail_request: mail_request.into(),
            mail: mail.into(),
            undecodable_bytes: undecodable_bytes.into(),
        }
    }
}

impl RateSettings {
    /// The limits of the inbound stack.
    #[must_use]
    pub fn limits(&self) -> RateLimits {
        RateLimits {
            application: self.application.into(),
            join: self.join.into(),
            discovery: self.discovery.into(),
            discovery_response: self.discovery_response.into(),
            mail_request: self.mail_request.into(),
            mail: self.mail.into(),
            undecodable_bytes: self.undecodable_bytes.into(),
        }
    }
}

impl From<Rate> for RateSetting {
    /// A rate of nothing becomes one a second.
    fn from(rate: Rate) -> Self {
        Self {
            per_second: NonZeroU32::new(rate.per_second).unwrap_or(NonZeroU32::MIN),
            burst: rate.burst,
        }
    }
}

impl From<RateSetting> for Rate {
    fn from(setting: RateSetting) -> Self {
        Self {
            per_second: setting.per_second.get(),
            burst: setting.burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_stack() {
        assert_eq!(RateSettings::default().limits(), RateLimits::default());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut settings = RateSettings::default();
        settings.mail.burst = 7;
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<RateSettings>(&text), Ok(settings));
    }

    #[test]
    fn each_setting_is_the_limit_of_its_name() {
        let text = "application = { per_second = 1 }\njoin = { per_second = 2 }\ndiscovery = { per_second = 3 }\n\
                    discovery_response = { per_second = 4 }\nmail_request = { per_second = 5 }\n\
                    mail = { per_second = 6 }\nundecodable_bytes = { per_second = 7, burst = 8 }";
        let limits = toml::from_str::<RateSettings>(text).unwrap().limits();
        let rate = |per_second, burst| Rate { per_second, burst };
        let expected = RateLimits {
            application: rate(1, 0),
            join: rate(2, 0),
            discovery: rate(3, 0),
            discovery_response: rate(4, 0),
            mail_request: rate(5, 0),
            mail: rate(6, 0),
            undecodable_bytes: rate(7, 8),
        };
        assert_eq!(limits, expected);
    }
}
