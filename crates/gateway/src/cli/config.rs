//! `pulsegate config default|print|schema`

use super::exit::{self, Failure};
use super::output::{Format, Output, print, print_json};
use super::settings::Settings;
use crate::config::document;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints a file with every key, its default and one line why.
    Default,
    /// Prints every value in force and where it was written.
    Print(Print),
    /// Prints a JSON Schema (draft 2020-12) of the file.
    Schema,
}

#[derive(Debug, clap::Args)]
struct Print {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.command {
        Command::Default => print(&document::default_file())?,
        Command::Schema => print_json(&document::schema())?,
        Command::Print(Print { settings, format }) => {
            let loaded = settings.load_or_tell()?;
            match format.output {
                Output::Table => print(&document::effective(&loaded))?,
                Output::Json => print_json(&document::effective_json(&loaded))?,
            }
        }
    }
    Ok(exit::OK)
}
