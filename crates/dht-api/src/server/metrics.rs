//! Metrics and health, on an address of their own.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    BindError,
    error::json,
    http,
    serving::Serving,
    state::{Parts, problem},
};
use crate::{
    limits::Limits,
    types::{Health, Problem, Version},
};

/// How often histograms are emptied into summaries, so that they do not grow between two scrapes: 5 s.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Another recorder of metrics is installed in this process.
#[derive(Debug, thiserror::Error)]
#[error("metrics are not recorded")]
pub struct MetricsError(#[source] BuildError);

/// Serves `/metrics`, `/healthy` and `/ready` until it is shut down or dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    serving: Serving,
}

struct Served {
    metrics: Metrics,
    parts: Parts,
    stopping: watch::Receiver<bool>,
}

impl Metrics {
    /// Records what the crates report through the `metrics` facade from now on, for the life of the process.
    ///
    /// # Errors
    /// [`MetricsError`] if another recorder is installed.
    pub fn install() -> Result<Self, MetricsError> {
        let handle = PrometheusBuilder::new()
            .install_recorder()
            .map_err(MetricsError)?;
        dht_node::describe_metrics();
        Ok(Self(handle))
    }

    /// The metrics in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl MetricsServer {
    /// Serves at the address. It shows counts, no keys and no contents; every client that can connect can read them.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(
        address: SocketAddr,
        metrics: Metrics,
        parts: Parts,
        limits: Limits,
    ) -> Result<Self, BindError> {
        let refused = |source| BindError::io(address, source);
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (stopping, stop) = watch::channel(false);
        let served = std::sync::Arc::new(Served {
            metrics: metrics.clone(),
            parts,
            stopping: stop.clone(),
        });
        let router = Router::new()
            .route("/metrics", get(render))
            .route("/healthy", get(healthy))
            .route("/ready", get(ready))
            .with_state(served);
        let service = http::Service {
            router,
            token: None,
            // One that waits for its next request would hold a place that anybody can take.
            keep_alive: false,
            limits,
        };
        let serve = http::serve(listener, service, stop);
        let serving = Serving::start(stopping, async move {
            tokio::select! {
                () = serve => {}
                () = upkeep(metrics) => {}
            }
        });
        Ok(Self { address, serving })
    }

    /// Address served on, with its real port.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Ends when the server serves no more, which it does before [`shutdown`](Self::shutdown) only if its task panicked.
    pub async fn ended(&self) {
        self.serving.ended().await;
    }

    /// Stops in order, within [`STOP_LIMIT`](super::STOP_LIMIT).
    pub async fn shutdown(self) {
        self.serving.stop().await;
    }
}

async fn upkeep(metrics: Metrics) {
    let mut ticks = interval(UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.0.run_upkeep();
    }
}

type Shared = State<std::sync::Arc<Served>>;

async fn render(State(served): Shared) -> Response {
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, format)], served.metrics.render()).into_response()
}

/// Whether the process is to be kept: it answers, is not stopping, and every part of the node runs.
async fn healthy(State(served): Shared) -> Response {
    let mut problems: Vec<_> = served.parts.failures().collect();
    problems.extend(served.stopping());
    health(&Health {
        version: Version,
        ok: problems.is_empty(),
        problems,
    })
}

/// Whether the node can do its work.
async fn ready(State(served): Shared) -> Response {
    let mut ready = served.parts.health();
    if let Some(stopping) = served.stopping() {
        ready.ok = false;
        ready.problems.push(stopping);
    }
    health(&ready)
}

impl Served {
    fn stopping(&self) -> Option<Problem> {
        let stopping = *self.stopping.borrow();
        stopping.then(|| problem("stopping", "the node is stopping"))
    }
}

fn health(health: &Health) -> Response {
    let status = if health.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, health)
}
