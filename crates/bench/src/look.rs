//! `bench look`: what a look into the kernel costs.

use anyhow::{Result, bail};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: Options) -> Result<()> {
    bail!("not yet")
}
