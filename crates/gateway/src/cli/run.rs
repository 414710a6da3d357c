//! `pulsegate run`

use super::exit::{self, Failure};
use super::settings::Settings;
use super::{files, output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let loaded = arguments.settings.load_or_tell()?;
    if let Err(error) = files::raise() {
        output::say(&format!("the limit of open files stays as it is: {error}"));
    }
    match crate::serve::run(loaded.config).await {
        Ok(()) => Ok(exit::OK),
        Err(error) => Err(Failure::new(error.exit_code(), error.to_string())),
    }
}
