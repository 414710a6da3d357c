//! Clients vanish: each at its own random moment.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

use crate::clock::Moment;
use crate::world;

/// Cuts that fall into the same short while are made by one command.
const BATCH_EVERY: Duration = Duration::from_millis(15);

/// A client that is to vanish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) client: usize,
    /// When the black hole was ordered; it was there at most [`Cuts::uncertainty`] later.
    pub(crate) at: Moment,
}

/// All cuts of a run.
#[derive(Debug)]
pub(crate) struct Cuts {
    pub(crate) all: Vec<Cut>,
    /// Longest time from an order to its confirmation, seconds.
    pub(crate) uncertainty: f64,
}

/// Lets `dead` random clients vanish, at moments spread evenly over `span`.
///
/// # Errors
/// The packet filter refuses.
pub(crate) async fn cut(ports: &[u16], dead: usize, span: Duration, seed: u64) -> Result<Cuts> {
    let mut random = fastrand::Rng::with_seed(seed);
    let chosen = random.choose_multiple(0..ports.len(), dead);
    let mut due: Vec<_> = chosen.into_iter().map(|client| (span.mul_f64(random.f64()), client)).collect();
    due.sort();

    let start = Instant::now();
    let mut cuts = Cuts { all: Vec::with_capacity(dead), uncertainty: 0.0 };
    let mut rest = &due[..];
    while let Some((first, _)) = rest.first() {
        sleep_until(start + *first).await;
        let elapsed = start.elapsed();
        let (batch, later) = rest.split_at(rest.partition_point(|(at, _)| *at <= elapsed).max(1));
        let clients: Vec<_> = batch.iter().map(|(_, client)| *client).collect();
        let batch_ports: Vec<_> = clients.iter().map(|client| ports[*client]).collect();
        let at = Moment::now();
        tokio::task::spawn_blocking(move || world::black_hole(&batch_ports)).await??;
        cuts.uncertainty = cuts.uncertainty.max(Moment::now().seconds_since(at));
        cuts.all.extend(clients.into_iter().map(|client| Cut { client, at }));
        rest = later;
        sleep_until(start + elapsed + BATCH_EVERY).await;
    }
    Ok(cuts)
}
