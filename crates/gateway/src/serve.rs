//! A whole gateway: binds its listeners, runs until it is told to stop, and leaves in order.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ControlAddr};
use crate::control::{self, ControlListener, Secret};
use crate::front::{self, Acceptor};
use crate::shared::{Shared, clock};
use crate::workers::Workers;
use crate::{drain, ops};

/// How often samples are put into their buckets and old tombstones forgotten.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Time for answers under way on the ops and control ports once the last session is gone.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(1);

/// Why a gateway could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken, not ours, or not allowed.
    #[error("can't listen on {address} ({what}): {source}")]
    Bind {
        /// Which listener: `data`, `ops` or `control`.
        what: &'static str,
        /// Where it should have listened.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// No threads or descriptors for those who serve clients.
    #[error("can't start the workers: {0}")]
    Workers(io::Error),
    /// One of those who serve clients has failed while the gateway ran, and with it the sessions that it served.
    #[error("a worker has failed")]
    WorkerFailed,
    /// The control API may not start as configured.
    #[error(transparent)]
    Control(Box<dyn Error + Send + Sync>),
}

impl ServeError {
    /// Returns the exit code that stands for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServeError::Workers(_) | ServeError::WorkerFailed => 1,
            ServeError::Bind { .. } => 4,
            ServeError::Control(_) => 3,
        }
    }
}

/// Where a gateway listens, with the ports that port 0 became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// WebSocket and plain HTTP.
    pub data: SocketAddr,
    /// `/metrics` and health.
    pub ops: SocketAddr,
    /// Control API: an address, `unix:/path` or `off`.
    pub control: String,
}

/// A gateway whose listeners are bound.
pub struct Gateway {
    shared: Arc<Shared>,
    workers: Workers,
    data: TcpListener,
    ops: TcpListener,
    control: Option<(ControlListener, Option<Secret>)>,
    addresses: Addresses,
}

impl Gateway {
    /// Binds all listeners of `config`.
    ///
    /// # Errors
    /// The first listener that can't be bound.
    pub async fn bind(config: Config) -> Result<Gateway, ServeError> {
        let data = front::listen(config.listen.data).map_err(unbound("data", config.listen.data))?;
        let ops = TcpListener::bind(config.listen.ops).await.map_err(unbound("ops", config.listen.ops))?;
        let control = bind_control(&config).await?;
        let addresses = Addresses {
            data: local("data", &data)?,
            ops: local("ops", &ops)?,
            control: control
                .as_ref()
                .map_or_else(|| "off".to_owned(), |(listener, _)| shown(&listener.address())),
        };
        let workers = Workers::new().map_err(ServeError::Workers)?;
        Ok(Gateway { shared: Arc::new(Shared::new(config)), workers, data, ops, control, addresses })
    }

    /// Returns where the gateway listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Returns whether the app accepts TCP connections, after at most a second.
    pub async fn app_answers(&self) -> bool {
        front::probe_upstream(&self.shared).await
    }

    /// Serves until `stop` is cancelled, then drains; `hurry` cuts the draining short.
    ///
    /// # Errors
    /// The system gives no threads, and nobody was served; or a worker has failed while the gateway ran.
    pub async fn run(self, stop: CancellationToken, hurry: CancellationToken) -> Result<(), ServeError> {
        let Gateway { shared, workers, data, ops, control, addresses } = self;
        let (bound, finish) = (CancellationToken::new(), CancellationToken::new());
        // The workers end also when this future is dropped.
        let _last = finish.clone().drop_guard();
        let background = TaskTracker::new();
        let acceptor = Arc::new(Acceptor::new(&shared, workers.team()));
        let failed =
            workers.start(&acceptor, data, &finish, &background.token()).map_err(ServeError::Workers)?;
        background.spawn(ops::serve(Arc::clone(&shared), ops, bound.clone(), finish.clone()));
        if let Some((listener, token)) = control {
            background.spawn(control::serve(Arc::clone(&shared), listener, token, finish.clone()));
        }
        background.spawn(upkeep(Arc::clone(&shared), finish.clone()));
        bound.cancel();
        tracing::info!(data = %addresses.data, ops = %addresses.ops, control = %addresses.control, "listening");
        tokio::select! {
            () = stop.cancelled() => {}
            () = failed.cancelled() => return Err(ServeError::WorkerFailed),
        }
        drain::drain(&shared, hurry).await;
        finish.cancel();
        background.close();
        let _ = timeout(LAST_ANSWERS_MAX, background.wait()).await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Runs a gateway until SIGTERM or SIGINT; a second signal cuts the draining short.
///
/// # Errors
/// Those of [`Gateway::run`].
pub async fn run_until_signal(gateway: Gateway) -> Result<(), ServeError> {
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::spawn(signals(stop.clone(), hurry.clone()));
    let ended = gateway.run(stop, hurry).await;
    signals.abort();
    ended
}

async fn signals(stop: CancellationToken, hurry: CancellationToken) {
    for token in [stop, hurry] {
        let name = next_signal().await;
        tracing::info!(signal = name, "signal received");
        token.cancel();
    }
}

#[cfg(unix)]
async fn next_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the default action of both signals ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(not(unix))]
async fn next_signal() -> &'static str {
    match tokio::signal::ctrl_c().await {
        Ok(()) => "ctrl-c",
        Err(_) => std::future::pending().await,
    }
}

async fn upkeep(shared: Arc<Shared>, finish: CancellationToken) {
    let mut ticks = interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            () = finish.cancelled() => return,
            _ = ticks.tick() => {
                shared.metrics.run_upkeep();
                shared.registry.forget(clock());
                shared.messages.forget(clock());
            }
        }
    }
}

fn unbound(what: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Bind { what, address: address.to_string(), source }
}

/// Binds the control API and reads its token; both are refused before anything is served.
async fn bind_control(config: &Config) -> Result<Option<(ControlListener, Option<Secret>)>, ServeError> {
    let token = match &config.control.token_file {
        Some(path) => Some(Secret::read(path).map_err(refused)?),
        None => None,
    };
    let address = &config.listen.control;
    let listener = ControlListener::bind(address).await.map_err(|source| ServeError::Bind {
        what: "control",
        address: shown(address),
        source,
    })?;
    let Some(listener) = listener else { return Ok(None) };
    listener.check_token(token.as_ref()).map_err(refused)?;
    Ok(Some((listener, token)))
}

fn refused(why: impl Error + Send + Sync + 'static) -> ServeError {
    ServeError::Control(Box::new(why))
}

fn shown(address: &ControlAddr) -> String {
    match address {
        ControlAddr::Tcp(address) => address.to_string(),
        ControlAddr::Unix(path) => format!("unix:{}", path.display()),
        ControlAddr::Off => "off".to_owned(),
    }
}

fn local(what: &'static str, listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::Bind { what, address: "?".to_owned(), source })
}
