//! What a run told.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::gateway::{Gateway, Holdings};
use crate::history::Totals;
use crate::receipts::ReceiptTotals;
use crate::run::Plan;

/// Complaints that are shown.
const SHOWN_MAX: usize = 20;

const METRICS: [(&str, &str); 5] = [
    ("pulsegate_resumes_total", ""),
    ("pulsegate_resume_failures_total", ""),
    ("pulsegate_retransmits_total", ""),
    ("pulsegate_dead_peers_total", ""),
    ("pulsegate_sessions_opened_total", "v1"),
];

/// What a run told.
#[derive(Debug)]
pub struct Report {
    pub(crate) plan: Plan,
    pub(crate) spoke: Duration,
    pub(crate) settling: Duration,
    /// Sums over all clients.
    pub totals: Totals,
    /// Of messages to unmodified clients, if there were any.
    pub plain: Option<ReceiptTotals>,
    pub(crate) spreads: [(u64, u64); 2],
    /// How often each kind of fault was set.
    pub faults: Vec<(&'static str, u64)>,
    pub(crate) metrics: Vec<(String, f64)>,
    /// At the beginning, at the end of talking, after everybody has gone.
    pub(crate) holdings: [Holdings; 3],
    /// How many things are wrong.
    pub complaints: u64,
    /// The first of them.
    pub found: Vec<String>,
    pub(crate) log: Vec<String>,
}

impl Report {
    pub(crate) async fn metrics(gateway: &Gateway) -> Result<Vec<(String, f64)>> {
        let mut metrics = Vec::new();
        for (name, label) in METRICS {
            metrics.push((name.to_owned(), gateway.metric(name, label).await?));
        }
        Ok(metrics)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { plan, totals, .. } = self;
        let spoke = self.spoke.as_secs_f64();
        let plain = plan.unmodified.as_ref().map_or(0, |unmodified| unmodified.clients);
        let faults = on_off(plan.faults);
        writeln!(
            f,
            "seed {}, {} clients of v1, {plain} unmodified, faults {faults}",
            plan.seed, plan.clients
        )?;
        let limit = plan.messages;
        writeln!(
            f,
            "talked for {spoke:.1} s (at most {limit} messages per client and way, or {:?})",
            plan.time
        )?;
        for (way, index) in [("to the app", 0), ("to clients", 1)] {
            let (sent, arrived) = (totals.sent[index], totals.arrived[index]);
            let (fewest, most) = self.spreads[index];
            let rate = arrived as f64 / (spoke + self.settling.as_secs_f64());
            writeln!(f, "{way}: {sent} sent, {arrived} came, {rate:.0}/s, {fewest} to {most} per client")?;
        }
        let [delivered, never, unknown] = totals.outcomes;
        writeln!(f, "outcomes: {delivered} delivered, {never} expired or refused, {unknown} unknown")?;
        writeln!(f, "resumes, as the clients' code saw them: {}", totals.resumes)?;
        if let Some(plain) = &self.plain {
            let ReceiptTotals { sent, received, never, unknown, unknown_and_read, read } = *plain;
            writeln!(
                f,
                "to unmodified clients: {sent} sent, {read} read; {received} told as received, {never} as never sent,"
            )?;
            writeln!(f, "  {unknown} as unknown, of which {unknown_and_read} were read")?;
        }
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        writeln!(f, "everything had come {:.1} s after the lines were healed", self.settling.as_secs_f64())?;
        for (name, value) in &self.metrics {
            writeln!(f, "{name} {value}")?;
        }
        for (when, held) in ["begin", "busy", "end"].iter().zip(self.holdings) {
            writeln!(f, "gateway at {when}: {} MiB, {} descriptors", held.rss_kib / 1024, held.descriptors)?;
        }
        writeln!(f, "checker: {} ranges kept", totals.pieces)?;
        for complaint in self.found.iter().take(SHOWN_MAX) {
            writeln!(f, "WRONG: {complaint}")?;
        }
        if self.complaints > 0 {
            for line in &self.log {
                writeln!(f, "gateway's log: {line}")?;
            }
        }
        write!(f, "{}", if self.complaints == 0 { "nothing is wrong" } else { "the history is wrong" })
    }
}

fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}
