//! Orders as they come on stdin, while the clients go on answering pings.

use std::io::Read;

use anyhow::{Context, Result};

use super::Order;
use crate::proxies::poller::Poller;

/// An order is one short line.
const READ_BYTES: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Orders {
    text: Vec<u8>,
}

impl Orders {
    pub(crate) fn new(poller: &Poller, token: u64) -> Result<Orders> {
        poller.add(std::io::stdin(), token).context("orders come through a pipe")?;
        Ok(Orders::default())
    }

    /// Reads what is there; false when nobody will order anything any more.
    pub(crate) fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; READ_BYTES];
        let count = std::io::stdin().read(&mut buffer)?;
        self.text.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    pub(crate) fn next(&mut self) -> Result<Option<Order>> {
        let Some(end) = self.text.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.text.drain(..=end).collect();
        Ok(Some(serde_json::from_slice(&line)?))
    }
}
