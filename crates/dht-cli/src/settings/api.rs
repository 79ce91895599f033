//! Settings of the local API: the section `[api]`.

use std::{net::SocketAddr, path::PathBuf};

use dht_api::Limits;
use dht_node::ConfigError;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// File of the bearer token within a home.
const DEFAULT_TOKEN_FILE: &str = "api.token";

/// Where the local API and the metrics are served, besides the unix socket of the home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ApiSettings {
    /// Loopback address of the API, for clients that show the token; none by default.
    #[serde(serialize_with = "show", deserialize_with = "parse")]
    pub(crate) listen: Option<SocketAddr>,
    /// File of the token; relative to the home. Defaults to `api.token`.
    pub(crate) token_file: PathBuf,
    /// Address of `/metrics`, `/healthy` and `/ready`; none by default.
    #[serde(serialize_with = "show", deserialize_with = "parse")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Limits of each server.
    pub(crate) limits: Limits,
}

impl ApiSettings {
    /// Checks every range, that the API is served on this machine only, and that its token has a file.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.limits.validate()?;
        let unusable = |key, value, why: &str| {
            let why = why.to_owned();
            Err(ConfigError::Unusable { key, value, why })
        };
        match self.listen {
            Some(address) if !address.ip().is_loopback() => unusable(
                "api.listen",
                address.to_string(),
                "which is not a loopback address, as 127.0.0.1:18190 is",
            ),
            _ if self.token_file.file_name().is_none() => unusable(
                "api.token_file",
                format!("\"{}\"", self.token_file.display()),
                "which is not the name of a file, as api.token is",
            ),
            _ => Ok(()),
        }
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            listen: None,
            token_file: DEFAULT_TOKEN_FILE.into(),
            metrics: None,
            limits: Limits::default(),
        }
    }
}

/// No address is the empty text: every setting has a default that can be shown.
fn show<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = address.map(|address| address.to_string());
    serializer.serialize_str(&text.unwrap_or_default())
}

fn parse<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let text = text.escape_debug();
        D::Error::custom(format_args!(
            "`{text}` is not an address with port, as in 127.0.0.1:18190"
        ))
    })
}
