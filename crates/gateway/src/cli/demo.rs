//! `pulsegate demo`

use super::exit::{self, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the demo's page listens; loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7080", env = "PULSEGATE_DEMO_LISTEN")]
    listen: std::net::SocketAddr,
    /// Liveness bounds: fast, balanced or battery
    #[arg(long, default_value = "fast", env = "PULSEGATE_DEMO_PROFILE")]
    profile: crate::config::Profile,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let Arguments { listen, profile } = arguments;
    Err(Failure::new(exit::FAILURE, format!("the demo on {listen} ({}) is not built yet", profile.name())))
}
