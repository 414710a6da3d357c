//! The app, and who stands in front of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::process;
use crate::clock::Moment;
use crate::gateway::{Gateway, Metrics};
use crate::plan::Profile;

const START_MAX_SECONDS: f64 = 10.0;
/// How long a proxy may take to end by itself.
const END_MAX_SECONDS: f64 = 2.0;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The app itself: what is left for a proxy to lose.
    Direct,
    Relay,
    Haproxy,
    Nginx,
    Pulsegate,
    /// Another build of pulsegate.
    Baseline,
    /// Somebody else's, of which only an address is known.
    #[value(skip)]
    Url,
}

impl Kind {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Direct, Kind::Relay, Kind::Haproxy, Kind::Nginx, Kind::Pulsegate, Kind::Baseline];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Direct => "no proxy",
            Kind::Relay => "relay",
            Kind::Haproxy => "HAProxy",
            Kind::Nginx => "nginx",
            Kind::Pulsegate => "pulsegate",
            Kind::Baseline => "baseline",
            Kind::Url => "url",
        }
    }

    /// Whether it is one that pulsegate is compared with.
    pub(crate) fn is_rival(self) -> bool {
        matches!(self, Kind::Relay | Kind::Haproxy | Kind::Nginx)
    }

    /// Whether it is one whose processes are measured.
    pub(crate) fn is_proxy(self) -> bool {
        !matches!(self, Kind::Direct | Kind::Url)
    }
}

/// The app behind all; killed on drop.
pub(crate) struct App {
    _child: Killed,
    pub(crate) address: SocketAddr,
}

/// A proxy that runs; killed on drop with all of its processes.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    running: Running,
}

enum Running {
    /// Nothing of its own: clients connect to the app.
    App,
    Child(Killed),
    Gateway(Box<Gateway>),
}

/// Which programs there are.
#[derive(Debug)]
pub(crate) struct Programs {
    gateway: PathBuf,
    baseline: Option<PathBuf>,
    nginx: Option<PathBuf>,
    haproxy: Option<PathBuf>,
}

/// A process and its descendants, killed on drop.
struct Killed {
    child: Child,
    /// What it was configured with; removed on drop.
    folder: Option<PathBuf>,
}

impl Programs {
    /// # Errors
    /// There is no gateway.
    pub(crate) fn find(baseline: Option<PathBuf>) -> Result<Programs> {
        let (nginx, haproxy) = (find("nginx"), find("haproxy"));
        Ok(Programs { gateway: crate::gateway::binary()?, baseline, nginx, haproxy })
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Nginx => self.nginx.is_some(),
            Kind::Haproxy => self.haproxy.is_some(),
            Kind::Baseline => self.baseline.is_some(),
            Kind::Direct | Kind::Relay | Kind::Pulsegate | Kind::Url => true,
        }
    }

    /// What a program says that it is; nothing of our own ones.
    pub(crate) fn version(&self, kind: Kind) -> Option<String> {
        let (program, order) = match kind {
            Kind::Nginx => (self.nginx.as_ref()?, "-v"),
            Kind::Haproxy => (self.haproxy.as_ref()?, "-v"),
            Kind::Pulsegate => (&self.gateway, "version"),
            Kind::Baseline => (self.baseline.as_ref()?, "version"),
            Kind::Direct | Kind::Relay | Kind::Url => return None,
        };
        let told = Command::new(program).arg(order).output().ok()?;
        let text = [told.stdout, told.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    }
}

impl App {
    /// # Errors
    /// It does not start.
    pub(crate) fn start() -> Result<App> {
        let (child, address) = own_process(&["echo-app"])?;
        Ok(App { _child: child, address })
    }
}

impl Server {
    /// Starts a proxy in front of `app` and waits until it listens.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn start(kind: Kind, programs: &Programs, app: SocketAddr) -> Result<Server> {
        let (address, running) = match kind {
            Kind::Direct => (app, Running::App),
            Kind::Relay => {
                let (child, address) = own_process(&["copy-relay", "--app", &app.to_string()])?;
                (address, Running::Child(child))
            }
            Kind::Nginx => {
                let program = programs.nginx.as_ref().context("there is no nginx")?;
                configured(program, &["-e", "stderr", "-c"], app, nginx_conf)?
            }
            Kind::Haproxy => {
                let program = programs.haproxy.as_ref().context("there is no haproxy")?;
                configured(program, &["-db", "-q", "-f"], app, haproxy_cfg)?
            }
            Kind::Pulsegate => pulsegate(&programs.gateway, app).await?,
            Kind::Baseline => pulsegate(programs.baseline.as_ref().context("there is none")?, app).await?,
            Kind::Url => bail!("it runs already"),
        };
        let mut server = Server { address, running };
        server.wait_until_it_listens().await?;
        Ok(server)
    }

    /// All processes of the proxy.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match &self.running {
            Running::App => Vec::new(),
            Running::Child(killed) => process::tree(killed.child.id()),
            Running::Gateway(gateway) => process::tree(gateway.pid()),
        }
    }

    /// The metrics of pulsegate; `None` of others.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn metrics(&self) -> Result<Option<Metrics>> {
        match &self.running {
            Running::Gateway(gateway) => gateway.metrics().await.map(Some),
            Running::App | Running::Child(_) => Ok(None),
        }
    }

    async fn wait_until_it_listens(&mut self) -> Result<()> {
        let start = Moment::now();
        while TcpStream::connect(self.address).is_err() {
            if let Running::Child(killed) = &mut self.running
                && let Some(status) = killed.child.try_wait()?
            {
                bail!("the proxy ended at once: {status}");
            }
            if Moment::now().seconds_since(start) > START_MAX_SECONDS {
                bail!("the proxy does not listen on {}", self.address);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let all = process::tree(self.child.id());
        // A signal fails only for who is gone already. The parent is asked first: it knows how to end its workers,
        // and would start them again.
        signal(self.child.id(), Signal::TERM);
        let start = Moment::now();
        while matches!(self.child.try_wait(), Ok(None))
            && Moment::now().seconds_since(start) < END_MAX_SECONDS
        {
            std::thread::sleep(LOOK_EVERY);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            all.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            let _ = self.child.wait();
        }
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

/// A program on the path, or where Debian has its servers.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places.map(|place| place.join(name)).find(|program| program.is_file())
}

/// This program again, as a server that says its address.
fn own_process(args: &[&str]) -> Result<(Killed, SocketAddr)> {
    let child = Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", args[0]))?;
    let mut killed = Killed { child, folder: None };
    let mut line = String::new();
    BufReader::new(killed.child.stdout.take().expect("it is piped")).read_line(&mut line)?;
    let address = line.trim().parse().with_context(|| format!("{} did not start", args[0]))?;
    Ok((killed, address))
}

/// With its default configuration, but for the line that it logs of each session: the others log nothing either.
async fn pulsegate(binary: &Path, app: SocketAddr) -> Result<(SocketAddr, Running)> {
    let gateway = Gateway::start(binary, app, Profile::Balanced).await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, gateway.port()));
    Ok((address, Running::Gateway(Box::new(gateway))))
}

/// A server with a configuration of our own.
fn configured(
    program: &Path,
    args: &[&str],
    app: SocketAddr,
    text: impl Fn(&Path, SocketAddr, SocketAddr) -> String,
) -> Result<(SocketAddr, Running)> {
    // Nobody else takes the port in the moment until the server does.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let folder = std::env::temp_dir().join(format!("pulsegate-bench-{}", address.port()));
    fs::create_dir_all(&folder)?;
    let file = folder.join("server.conf");
    fs::write(&file, text(&folder, address, app))?;
    let child = Command::new(program)
        .args(args)
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok((address, Running::Child(Killed { child, folder: Some(folder) })))
}

/// As its documentation has it for WebSockets; no access log, time limits above any pause of a measurement.
fn nginx_conf(folder: &Path, listen: SocketAddr, app: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
events {{ worker_connections 19000; }}
http {{
  access_log off;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://{app};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $host;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
    }}
  }}
}}
"
    )
}

/// As many threads as cores, which is its default; no log.
fn haproxy_cfg(_folder: &Path, listen: SocketAddr, app: SocketAddr) -> String {
    format!(
        "global
  maxconn 9500
defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
  timeout tunnel 1h
frontend websockets
  bind {listen} backlog 4096
  default_backend app
backend app
  server app {app}
"
    )
}
