//! `pulsegate sessions ls|get|kick`

use super::api::Api;
use super::exit::{self, Failure};
use super::output::Format;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Lists sessions.
    Ls(List),
    /// Shows one session, also after its end while it is remembered.
    Get(Get),
    /// Ends a session.
    Kick(Kick),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) format: Format,
    /// Only sessions in this state: live or suspect
    #[arg(long, env = "PULSEGATE_SESSIONS_STATE")]
    pub(super) state: Option<String>,
    /// Only sessions with this label; all that are given must match
    #[arg(long, value_name = "KEY=VALUE", value_parser = label, env = "PULSEGATE_SESSIONS_LABEL")]
    pub(super) label: Vec<(String, String)>,
    /// Most sessions shown
    #[arg(long, default_value_t = 100, env = "PULSEGATE_SESSIONS_LIMIT")]
    pub(super) limit: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) format: Format,
    /// The session's id
    pub(super) id: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Kick {
    #[command(flatten)]
    pub(super) api: Api,
    /// The session's id
    pub(super) id: String,
    /// Close code that both sides see
    #[arg(long, default_value_t = 1008, env = "PULSEGATE_KICK_CODE")]
    pub(super) code: u16,
    /// Reason that both sides see
    #[arg(long, default_value = "kicked", env = "PULSEGATE_KICK_REASON")]
    pub(super) reason: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    Err(Failure::new(exit::CONTROL_UNREACHABLE, format!("not built yet: {:?}", arguments.command)))
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        Some(_) | None => Err("write name=value".into()),
    }
}
