//! The limit of open files, which bounds connections.

/// Descriptors besides connections: files of the home, standard streams, the runtime, sockets that are being dialled.
#[cfg(unix)]
const OTHERS: usize = 64;

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
        // Some systems refuse; then `fit` tells.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// Lowers the connections that a node may have to what the limit allows, beside those of its API, with a warning.
pub(crate) fn fit(node: &mut dht_node::Config, api_connections: usize) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let Some(limit) = getrlimit(Resource::Nofile).current else {
            return;
        };
        let others = OTHERS + api_connections;
        let allowed = usize::try_from(limit).unwrap_or(usize::MAX);
        if let Some(needed) = node.transport.fit(allowed.saturating_sub(others)) {
            let needed = needed + others;
            let (connections, handshakes) = (
                node.transport.max_connections,
                node.transport.max_handshakes,
            );
            tracing::warn!(
                "{limit} open files are allowed, and the settings need {needed}: transport.max_connections is {connections} and transport.max_handshakes {handshakes} until the limit is raised (ulimit -n, LimitNOFILE)"
            );
        }
    }
    #[cfg(not(unix))]
    let _ = (node, api_connections);
}
