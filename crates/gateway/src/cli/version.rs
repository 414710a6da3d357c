//! `pulsegate version`

use super::exit::{self, Failure};
use super::output::{Format, Output, print, print_json};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match arguments.format.output {
        Output::Table => print(&format!("pulsegate {version}\n"))?,
        Output::Json => print_json(&serde_json::json!({ "name": "pulsegate", "version": version }))?,
    }
    Ok(exit::OK)
}
