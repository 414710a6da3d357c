//! `pulsegate demo`: a browser, a line that can be broken, the gateway and an app, all on one machine.
//!
//! ```text
//! browser ── fault proxy ── front ─┬─ /ws ──── gateway ── echo app
//!            (page's port)         └─ the page, the buttons, the control API
//! ```
//!
//! # One origin
//! All that the page opens goes to one port, and that port is the fault proxy's: the plain HTTP requests and
//! the WebSocket alike. Faults are set for single connections, so the page's WebSocket can be dead while its
//! requests go through. Behind the proxy, `front` reads the request line and no more: `/ws` goes byte for
//! byte to the gateway, the rest is answered by `site`. Each page (browser tab) makes up a name for itself and
//! puts it into the query of its socket; the gateway makes a label of it, and so the page finds its session
//! in the control API, and its own line.
//!
//! # What is real
//! The browser's WebSocket, the gateway (the same as `pulsegate run`, in this process) and the app (it logs
//! what its own handlers see). The page shows the gateway's knowledge from the control API alone. A pulled
//! plug is imitated on both sides of the line: the fault proxy passes nothing on, and the kernel's end of
//! the connection toward the gateway goes deaf (see `deaf`), so that the gateway finds what it would find in
//! front of a pulled cable: no byte, and no acknowledgement either.

mod app;
mod assets;
mod deaf;
mod front;
mod journal;
mod line;
mod site;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pulsegate_chaos::FaultProxy;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ControlAddr, Drain, Listen, Profile};
use crate::serve::{Gateway, ServeError};

use self::app::EchoApp;
use self::front::Front;
use self::journal::Journal;
use self::line::Lines;
use self::site::{Facts, Site};

/// At the end nobody needs a gentle spread of the closes.
const DRAIN_WINDOW: Duration = Duration::from_millis(100);
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// How the demo is started.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Liveness bounds: fast (3 s), balanced (10 s) or battery (40 s)
    #[arg(long, env = "PULSEGATE_DEMO_PROFILE", default_value = "fast")]
    pub(crate) profile: Profile,
    /// Port of the page on the loopback; 0 takes a free one
    #[arg(long, env = "PULSEGATE_DEMO_PORT", default_value_t = 0)]
    pub(crate) port: u16,
}

/// Why the demo did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// The page's port, or another one, is not to be had.
    #[error("cannot listen on 127.0.0.1:{port}: {source}")]
    Bind { port: u16, source: io::Error },
    /// The gateway failed.
    #[error(transparent)]
    Gateway(#[from] ServeError),
    /// The echo app failed.
    #[error("the demo's echo app ended: {0}")]
    App(io::Error),
}

/// A demo whose ports are bound.
struct Demo {
    gateway: Gateway,
    app: Arc<EchoApp>,
    app_listener: TcpListener,
    front: Arc<Front>,
    front_listener: TcpListener,
    facts: Facts,
    port: u16,
}

/// Runs the demo until Ctrl-C, or SIGTERM.
///
/// # Errors
/// A port is taken, or the echo app failed.
#[allow(clippy::print_stdout, reason = "the links are this command's result")]
pub(crate) async fn run(args: DemoArgs) -> Result<(), DemoError> {
    let demo = Demo::bind(args).await?;
    println!("{}", demo.links());
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let watch = async {
        asked_to_stop().await;
        stop.cancel();
        asked_to_stop().await;
        hurry.cancel();
    };
    tokio::select! {
        ended = demo.run(stop.clone(), hurry.clone()) => ended,
        () = watch => Ok(()),
    }
}

/// Returns the value of `tab` in a query.
fn tab_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("tab="))
}

impl Demo {
    async fn bind(args: DemoArgs) -> Result<Demo, DemoError> {
        let journal = Arc::new(Journal::new());
        let (app, app_listener) = EchoApp::bind(Arc::clone(&journal))
            .await
            .map_err(|source| DemoError::Bind { port: 0, source })?;
        let config = config(args.profile, app.address());
        let bound = config.liveness.bounds().silence_max();
        let gateway = Gateway::bind(config).await?;
        let addresses = gateway.addresses().clone();

        let page_listener = listen(args.port).await?;
        let front_listener = listen(0).await?;
        let port = port_of(&page_listener, args.port)?;
        let behind = SocketAddr::from(([127, 0, 0, 1], port_of(&front_listener, 0)?));
        let lines = Lines::new(FaultProxy::start(page_listener, behind), Arc::clone(&journal));
        let facts = Facts {
            profile: args.profile.name(),
            bound_seconds: bound.as_secs_f64(),
            metrics_url: format!("http://{}/metrics", addresses.ops),
            control_url: format!("http://{}/v1/sessions", addresses.control),
        };
        let site = site::router(Site {
            lines: Arc::clone(&lines),
            app: Arc::clone(&app),
            journal,
            facts: facts.clone(),
            control: addresses.control,
            port,
        });
        let front = Arc::new(Front { lines, gateway: addresses.data, site });
        Ok(Demo { gateway, app, app_listener, front, front_listener, facts, port })
    }

    fn links(&self) -> String {
        let Facts { profile, bound_seconds, metrics_url, control_url } = &self.facts;
        format!(
            "pulsegate demo, profile {profile}: a silent client is declared dead within {bound_seconds} s\n\
             page         http://127.0.0.1:{}/\n\
             metrics      {metrics_url}\n\
             control API  {control_url}\n\
             Open the page and pull the plug. Ctrl-C ends the demo.",
            self.port
        )
    }

    async fn run(self, stop: CancellationToken, hurry: CancellationToken) -> Result<(), DemoError> {
        let Demo { gateway, app, app_listener, front, front_listener, .. } = self;
        tokio::select! {
            ended = gateway.run(stop, hurry) => ended.map_err(DemoError::Gateway),
            ended = app.run(app_listener) => ended.map_err(DemoError::App),
            () = front.run(front_listener) => Ok(()),
        }
    }
}

/// The gateway of the demo: the defaults, on free ports of the loopback.
fn config(profile: Profile, app: SocketAddr) -> Config {
    let mut config = Config::default();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    config.upstream.url = format!("http://{app}");
    config.listen = Listen { data: any, ops: any, control: ControlAddr::Tcp(any) };
    config.liveness.profile = profile;
    config.registry.labels.insert("tab".into(), "query:tab".into());
    config.drain = Drain { window: DRAIN_WINDOW, deadline: DRAIN_DEADLINE };
    config
}

async fn listen(port: u16) -> Result<TcpListener, DemoError> {
    TcpListener::bind(("127.0.0.1", port)).await.map_err(|source| DemoError::Bind { port, source })
}

fn port_of(listener: &TcpListener, port: u16) -> Result<u16, DemoError> {
    listener.local_addr().map(|address| address.port()).map_err(|source| DemoError::Bind { port, source })
}

async fn asked_to_stop() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = tokio::signal::ctrl_c() => return,
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // No signal can be waited for: run until killed.
        std::future::pending::<()>().await;
    }
}
