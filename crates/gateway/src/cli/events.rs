//! `pulsegate events`

use super::api::Api;
use super::exit::{self, Failure};
use super::output::Format;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) format: Format,
    /// Goes on with what happens; `--follow=false` ends after the events that are kept
    #[arg(
        long,
        default_value_t = true,
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        action = clap::ArgAction::Set,
        env = "PULSEGATE_EVENTS_FOLLOW"
    )]
    pub(super) follow: bool,
    /// Begins after this event
    #[arg(long, value_name = "ID", env = "PULSEGATE_EVENTS_LAST_EVENT_ID")]
    pub(super) last_event_id: Option<String>,
    /// Only events of this session
    #[arg(long, value_name = "ID", env = "PULSEGATE_EVENTS_SESSION")]
    pub(super) session: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    Err(Failure::new(exit::CONTROL_UNREACHABLE, format!("not built yet: {arguments:?}")))
}
