//! `pulsegate completions`

use clap::CommandFactory;

use super::exit::{self, Failure};
use super::output::print;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    // Into memory first: the generator panics when it can't write.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Cli::command(), "pulsegate", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}
