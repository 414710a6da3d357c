//! `pulsegate check`

use std::io::{ErrorKind, IsTerminal};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::dial::{DialError, dial};
use super::exit::{self, Failure};
use super::output::{self, Format, Output, print, print_json};
use super::settings::Settings;
use super::{files, output::colour};
use crate::config::{Config, ControlAddr, Loaded, show_duration};
use crate::control::{Secret, socket_path};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file; wins over --config
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Path of the app's WebSocket endpoint
    #[arg(long, default_value = "/", value_parser = endpoint, env = "PULSEGATE_CHECK_PATH")]
    path: String,
    #[command(flatten)]
    format: Format,
}

/// What one check found.
struct Finding {
    name: &'static str,
    state: State,
    detail: String,
    /// What to do about it.
    help: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Doubtful,
    Bad,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let Arguments { file, mut settings, path, format } = arguments;
    settings.config = file.map(PathBuf::into_os_string).or(settings.config);
    let (findings, code) = match settings.load() {
        Err(faults) => {
            let bad = |fault: crate::config::Fault| {
                let help = fault.help.clone();
                Finding::bad("config", crate::config::Fault { help: None, ..fault }.to_string(), help)
            };
            (faults.into_iter().map(bad).collect(), exit::CONFIG_INVALID)
        }
        Ok(loaded) => {
            let findings = findings(&settings, &loaded, &path).await;
            let failed = findings.iter().any(|finding| finding.state == State::Bad);
            (findings, if failed { exit::FAILURE } else { exit::OK })
        }
    };
    match format.output {
        Output::Table => {
            let colour = colour(&std::io::stdout());
            print(&findings.iter().map(|finding| finding.text(colour)).collect::<String>())?;
        }
        Output::Json => {
            let checks: Vec<_> = findings.iter().map(Finding::json).collect();
            print_json(&json!({ "ok": code == exit::OK, "checks": checks }))?;
        }
    }
    if code != exit::OK && std::io::stderr().is_terminal() {
        output::say("the check failed: see the lines with ×");
    }
    Ok(code)
}

async fn findings(settings: &Settings, loaded: &Loaded, path: &str) -> Vec<Finding> {
    let config = &loaded.config;
    let source = match &settings.config {
        Some(path) if !path.is_empty() => format!("{} is valid", path.display()),
        Some(_) | None => "valid; no file was named, so defaults, environment and flags hold".into(),
    };
    let silence_max = show_duration(config.liveness.bounds().client_silence_max());
    let mut findings = vec![
        Finding::good("config", source),
        Finding::good("liveness", format!("a silent client is declared dead within {silence_max}")),
        listener("data", config.listen.data),
        listener("ops", config.listen.ops),
    ];
    findings.extend(control(config).await);
    findings.push(open_files(config, files::limit()));
    findings.push(app(config, path).await);
    findings
}

/// Binds and lets go at once.
fn listener(name: &'static str, address: SocketAddr) -> Finding {
    let error = match TcpListener::bind(address) {
        Ok(_) => return Finding::good(name, format!("{address} can be listened on")),
        Err(error) => error,
    };
    let key = format!("listen.{name}");
    let kind = error.kind();
    let help = if kind == ErrorKind::AddrInUse {
        let port = address.port();
        format!(
            "stop what listens there (`ss -ltnp 'sport = :{port}'` shows it), or set {key} to another port"
        )
    } else if kind == ErrorKind::PermissionDenied {
        format!("ports below 1024 need a privilege: set {key} to a higher port")
    } else if kind == ErrorKind::AddrNotAvailable {
        format!("set {key} to an address of this machine (`ip address` shows them)")
    } else {
        format!("set {key} to an address that can be listened on")
    };
    Finding::bad(name, format!("{address} can't be listened on: {error}"), Some(help))
}

async fn control(config: &Config) -> Vec<Finding> {
    let listener = match &config.listen.control {
        ControlAddr::Tcp(address) => listener("control", *address),
        ControlAddr::Unix(path) => socket(path).await,
        ControlAddr::Off => return vec![Finding::good("control", "off".into())],
    };
    let token = config.control.token_file.as_deref().map(token);
    std::iter::once(listener).chain(token).collect()
}

async fn socket(path: &Path) -> Finding {
    let shown = path.display();
    if let Err(error) = socket_path(path).await {
        let help = "stop what listens there, or set listen.control to another path";
        return Finding::bad("control", format!("{shown} can't be listened on: {error}"), Some(help.into()));
    }
    if path.parent().is_none_or(|parent| !parent.is_dir()) {
        let help = "make the directory, or set listen.control to another path";
        return Finding::bad("control", format!("the directory of {shown} is missing"), Some(help.into()));
    }
    Finding::good("control", format!("{shown} is free"))
}

fn token(path: &Path) -> Finding {
    let shown = path.display();
    let help = Some("write the token into the first line, readable for the gateway's user".into());
    match Secret::read(path) {
        Ok(_) => Finding::good("token", format!("{shown} has a token")),
        Err(error) => Finding::bad("token", error.to_string(), help),
    }
}

/// Two sockets for each session, one for every other connection.
fn open_files(config: &Config, limit: Option<u64>) -> Finding {
    let limits = &config.limits;
    let sessions = limits.sessions_max as u64;
    let others = limits.connections_max.saturating_sub(limits.sessions_max) as u64;
    let needed = sessions * 2 + others + files::FILES_SPARE;
    let Some(limit) = limit.filter(|limit| *limit < needed) else {
        return Finding::good(
            "files",
            format!("{needed} open files are allowed, enough for {sessions} sessions"),
        );
    };
    let help = format!(
        "raise the limit (`ulimit -Hn {needed}`, LimitNOFILE={needed} in systemd), or lower limits.sessions_max"
    );
    let detail = format!("{limit} open files are allowed, but {sessions} sessions need {needed}");
    Finding::bad("files", detail, Some(help))
}

/// A real upgrade, as a client's would be.
async fn app(config: &Config, path: &str) -> Finding {
    let url = config.upstream.url.trim_end_matches('/');
    let websocket = format!("ws{}{path}", url.strip_prefix("http").unwrap_or(url));
    let limit = config.upstream.connect_timeout.saturating_add(config.upstream.handshake_timeout);
    let error = match dial(&websocket, limit).await {
        Ok(mut dialed) => {
            let _ = tokio::time::timeout(config.limits.close_timeout, dialed.socket.close(None)).await;
            let took = dialed.took.as_secs_f64() * 1e3;
            let status = dialed.response.status().as_u16();
            return Finding::good("app", format!("{websocket} answered {status} in {took:.1} ms"));
        }
        Err(error) => error,
    };
    let detail = format!("{websocket}: {error}");
    match error {
        DialError::Refused(status) if status.is_server_error() => {
            Finding::bad("app", detail, Some("see the app's own log".into()))
        }
        DialError::Refused(_) => Finding {
            name: "app",
            state: State::Doubtful,
            detail,
            help: Some(
                "name the app's WebSocket endpoint: --path /ws; an app may also ask for a login".into(),
            ),
        },
        DialError::Connect { .. } => {
            Finding::bad("app", detail, Some("start the app, or set upstream.url to where it listens".into()))
        }
        DialError::Slow { connected: false, .. } => {
            let help = "packets are dropped on the way: look at the address and at firewalls";
            Finding::bad("app", detail, Some(help.into()))
        }
        DialError::Slow { connected: true, .. } => {
            let help =
                "it accepts TCP but does not answer: is the app stuck, or is this another service's port?";
            Finding::bad("app", detail, Some(help.into()))
        }
        DialError::Handshake(_) => {
            let help = "what listens there does not speak WebSocket (RFC 6455): look at upstream.url";
            Finding::bad("app", detail, Some(help.into()))
        }
        DialError::Url(_) => Finding::bad("app", detail, Some("look at upstream.url and --path".into())),
    }
}

impl Finding {
    fn good(name: &'static str, detail: String) -> Finding {
        Finding { name, state: State::Good, detail, help: None }
    }

    fn bad(name: &'static str, detail: String, help: Option<String>) -> Finding {
        Finding { name, state: State::Bad, detail, help }
    }

    fn text(&self, colour: bool) -> String {
        let (sign, ansi) = match self.state {
            State::Good => ("√", "32"),
            State::Doubtful => ("‼", "33"),
            State::Bad => ("×", "31"),
        };
        let sign = if colour { format!("\u{1b}[{ansi}m{sign}\u{1b}[0m") } else { sign.into() };
        let mut text = format!("{sign} {}: {}\n", self.name, self.detail.replace('\n', "\n  "));
        if let Some(help) = &self.help {
            text += &format!("    → {help}\n");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let state = match self.state {
            State::Good => "ok",
            State::Doubtful => "warn",
            State::Bad => "fail",
        };
        json!({ "name": self.name, "status": state, "detail": self.detail, "help": self.help })
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok() {
        Ok(text.into())
    } else {
        Err("a path begins with /".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_two_for_each_session() {
        let mut config = Config::default();
        config.limits.sessions_max = 100;
        config.limits.connections_max = 150;
        let needed = 2 * 100 + 50 + files::FILES_SPARE;
        assert!(open_files(&config, None).state == State::Good);
        assert!(open_files(&config, Some(needed)).state == State::Good);
        let finding = open_files(&config, Some(needed - 1));
        assert!(finding.state == State::Bad && finding.help.unwrap().contains(&needed.to_string()));
    }
}
