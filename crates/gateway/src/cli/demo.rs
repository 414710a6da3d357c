//! `pulsegate demo`

use super::exit::{self, Failure};
use super::run::failure;
use crate::demo::{self, DemoArgs, DemoError};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    demo: DemoArgs,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    match demo::run(arguments.demo).await {
        Ok(()) => Ok(exit::OK),
        Err(DemoError::Gateway(error)) => Err(failure(error)),
        Err(error @ DemoError::Bind { .. }) => Err(Failure::new(exit::CANNOT_BIND, error.to_string())),
        Err(error @ DemoError::App(_)) => Err(Failure::new(exit::FAILURE, error.to_string())),
    }
}
