//! The limit of open files, which bounds connections.

use crate::settings::Settings;

/// Descriptors besides connections: files of the home, standard streams, the runtime, sockets that are being dialled.
#[cfg(unix)]
const OTHERS: u64 = 64;

/// Raises the limit to the most that this process may have.
pub(crate) fn raise() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        // Some systems refuse; then `check` tells.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// Warns if the connections of the settings need more than the limit.
pub(crate) fn check(settings: &Settings) {
    #[cfg(unix)]
    {
        use dht_transport::limits::{EVICTION_OVERLAP, OUTBOUND_RESERVE};
        use rustix::process::{Resource, getrlimit};
        let transport = &settings.node.transport;
        let connections = [
            transport.max_connections,
            // Above the limit: dials of this node, and connections that others are closed for.
            OUTBOUND_RESERVE + EVICTION_OVERLAP,
            transport.max_handshakes,
            settings.api.limits.connections,
        ];
        let needed = connections
            .iter()
            .fold(OTHERS, |sum, count| sum.saturating_add(*count as u64));
        if let Some(limit) = getrlimit(Resource::Nofile).current
            && limit < needed
        {
            tracing::warn!(
                "{limit} open files are allowed, and the settings need {needed}: raise the limit (ulimit -n, LimitNOFILE), or lower transport.max_connections"
            );
        }
    }
    #[cfg(not(unix))]
    let _ = settings;
}
