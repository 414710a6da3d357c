//! `pulsegate run`

use std::io::{IsTerminal, stderr};

use super::exit::{self, Failure};
use super::settings::Settings;
use super::{
    files, log,
    output::{self, reachable},
};
use crate::config::{Config, show_duration};
use crate::serve::{Addresses, Gateway, ServeError, run_until_signal};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let config = arguments.settings.load_or_tell()?.config;
    let _guard = log::start(&config.log)?;
    if let Err(error) = files::raise() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let told = config.clone();
    let gateway = Gateway::bind(config).await.map_err(failure)?;
    if stderr().is_terminal() {
        output::say(&banner(&told, gateway.addresses(), gateway.app_answers().await));
    }
    run_until_signal(gateway).await.map_err(failure)?;
    Ok(exit::OK)
}

pub(super) fn failure(error: ServeError) -> Failure {
    Failure::new(error.exit_code(), error.to_string())
}

/// What listens where, whether the app answers, and the bound in words: at most six lines.
fn banner(config: &Config, addresses: &Addresses, app_answers: bool) -> String {
    let bounds = config.liveness.bounds();
    let app = if app_answers { "answers" } else { "does not answer yet" };
    format!(
        "pulsegate {version}\n\
         \x20 clients  ws://{data}{everywhere}  ->  {url} ({app})\n\
         \x20 liveness a silent client is known within {client}, a silent app within {silent}, a frozen one within {frozen}\n\
         \x20 metrics  http://{ops}/metrics   health /livez /readyz /startupz\n\
         \x20 control  {control}",
        version = env!("CARGO_PKG_VERSION"),
        data = reachable(addresses.data),
        everywhere = if addresses.data.ip().is_unspecified() { " (and all other addresses)" } else { "" },
        url = config.upstream.url,
        client = show_duration(bounds.client_silence_max()),
        silent = show_duration(bounds.silence_max()),
        frozen = show_duration(bounds.app_silence_max()),
        ops = reachable(addresses.ops),
        control = control_link(&addresses.control),
    )
}

/// A link, unless it is `off` or `unix:/path`.
fn control_link(address: &str) -> String {
    match address.parse() {
        Ok(address) => format!("http://{}/v1/sessions", reachable(address)),
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_banner_states_the_bounds_in_force_and_links_that_lead_somewhere() {
        let mut config = Config::default();
        config.liveness.client_frozen_after = Some(Duration::from_secs(20));
        let control = "0.0.0.0:7082".to_owned();
        let addresses = Addresses { data: config.listen.data, ops: config.listen.ops, control };
        let text = banner(&config, &addresses, false);
        assert!(text.lines().count() <= 6, "{text}");
        for part in [
            "ws://127.0.0.1:7080 (and all other addresses)  ->  http://127.0.0.1:3000 (does not answer yet)",
            "a silent client is known within 20s, a silent app within 10s, a frozen one within 30s",
            "http://127.0.0.1:7081/metrics",
            "http://127.0.0.1:7082/v1/sessions",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert_eq!(control_link("unix:/run/p.sock"), "unix:/run/p.sock");
    }
}
