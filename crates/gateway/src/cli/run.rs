//! `pulsegate run`

use std::io::{IsTerminal, stderr};

use super::exit::{self, Failure};
use super::settings::Settings;
use super::{files, log, output};
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
    run_until_signal(gateway).await;
    Ok(exit::OK)
}

pub(super) fn failure(error: ServeError) -> Failure {
    Failure::new(error.exit_code(), error.to_string())
}

/// What listens where, whether the app answers, and the bound in words: six lines.
fn banner(config: &Config, addresses: &Addresses, app_answers: bool) -> String {
    let bounds = config.liveness.bounds();
    let app = if app_answers { "answers" } else { "does not answer yet" };
    format!(
        "pulsegate {version}\n\
         \x20 clients  ws://{data}  ->  {url} ({app})\n\
         \x20 liveness a silent client is known within {bound} ({interval} + {verdict}), a frozen app within {frozen}\n\
         \x20 metrics  http://{ops}/metrics   health /livez /readyz /startupz\n\
         \x20 control  {control}",
        version = env!("CARGO_PKG_VERSION"),
        data = addresses.data,
        url = config.upstream.url,
        bound = show_duration(bounds.silence_max()),
        interval = show_duration(bounds.ping_interval),
        verdict = show_duration(bounds.verdict_after),
        frozen = show_duration(bounds.app_frozen_after.max(bounds.silence_max())),
        ops = addresses.ops,
        control = control_link(&addresses.control),
    )
}

fn control_link(address: &str) -> String {
    let is_link = address == "off" || address.starts_with("unix:");
    if is_link { address.to_owned() } else { format!("http://{address}/v1/sessions") }
}
