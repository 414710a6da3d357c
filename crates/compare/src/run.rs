//! Runs a detector over sessions and counts what it does.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use fastrand::Rng;
use serde::Serialize;

use crate::settings::{Family, Setting};
use crate::trace::{Line, Micros, NETWORKS, Network, SECOND, Trace};
use crate::watch::Act;

/// From a false eviction (or the end of the stall that caused it) to the next connection.
const RECONNECT_AFTER: Micros = SECOND;

/// All that comes out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// Living session-hours per setting and network, at least.
    pub(crate) hours: u32,
    pub(crate) networks: Vec<NetworkReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NetworkReport {
    pub(crate) network: &'static str,
    pub(crate) about: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// One setting on one network; times in seconds from the death to the verdict.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) family: Family,
    pub(crate) setting: String,
    #[serde(skip)]
    pub(crate) label: Option<&'static str>,
    pub(crate) detection_median_s: f64,
    pub(crate) detection_p99_s: f64,
    pub(crate) detection_max_s: f64,
    pub(crate) deaths: usize,
    pub(crate) living_hours: f64,
    pub(crate) false_evictions: u64,
    pub(crate) false_evictions_per_hour: f64,
    pub(crate) probes_per_hour: f64,
}

/// Runs all settings on all networks. The rows come in the order of the settings, whichever thread ran them.
pub(crate) fn run_all(settings: &[Setting], seed: u64, hours: u32, threads: usize) -> anyhow::Result<Report> {
    let count = settings.len() * NETWORKS.len();
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(vec![None; count]);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let network = &NETWORKS[index / settings.len()];
                    let row = run(&settings[index % settings.len()], network, seed, hours);
                    rows.lock().expect("no thread panics while it holds the lock")[index] = Some(row);
                }
            });
        }
    });
    let rows = rows.into_inner().context("a thread failed")?;
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    let networks = NETWORKS.iter().zip(rows.chunks(settings.len())).map(|(network, rows)| NetworkReport {
        network: network.name,
        about: network.about,
        rows: rows.to_vec(),
    });
    Ok(Report { seed, hours, networks: networks.collect() })
}

#[derive(Debug, Default)]
struct Tally {
    detections: Vec<Micros>,
    living: Micros,
    false_evictions: u64,
    probes: u64,
}

fn run(setting: &Setting, network: &Network, seed: u64, hours: u32) -> Row {
    let mut tally = Tally::default();
    // The sessions hang on the seed alone: each detector meets the same ones.
    let mut seeds = Rng::with_seed(seed);
    while tally.living < Micros::from(hours) * 3_600 * SECOND {
        let trace = Trace::new(network, seeds.u64(..));
        run_session(setting, &trace, seeds.u64(..), &mut tally);
    }
    tally.detections.sort_unstable();
    let living_hours = tally.living as f64 / (3_600 * SECOND) as f64;
    Row {
        family: setting.family,
        setting: setting.name.clone(),
        label: setting.label,
        detection_median_s: quantile(&tally.detections, 50),
        detection_p99_s: quantile(&tally.detections, 99),
        detection_max_s: quantile(&tally.detections, 100),
        deaths: tally.detections.len(),
        living_hours: round(living_hours, 1),
        false_evictions: tally.false_evictions,
        false_evictions_per_hour: round(tally.false_evictions as f64 / living_hours, 5),
        probes_per_hour: round(tally.probes as f64 / living_hours, 1),
    }
}

/// Watches a session from its start to its death; who is evicted before that connects anew.
fn run_session(setting: &Setting, trace: &Trace, seed: u64, tally: &mut Tally) {
    let mut random = Rng::with_seed(seed);
    let mut start = 0;
    tally.living += trace.death;
    while start < trace.death {
        let verdict = run_connection(setting, trace, start, &mut random, tally);
        if verdict >= trace.death {
            tally.detections.push(verdict - trace.death);
            return;
        }
        tally.false_evictions += 1;
        start = trace.stalled_until(verdict).unwrap_or(verdict) + RECONNECT_AFTER;
    }
}

/// Returns when the verdict fell. Each detector comes to one: after the death nothing answers.
fn run_connection(
    setting: &Setting,
    trace: &Trace,
    start: Micros,
    random: &mut Rng,
    tally: &mut Tally,
) -> Micros {
    let mut watch = setting.kind.start(random, start);
    let mut line = Line::new(trace);
    let mut answers: VecDeque<(Micros, [u8; 8])> = VecDeque::new();
    loop {
        let due = watch.due();
        // What waits in the socket is read before a timer counts.
        if let Some((at, payload)) = answers.pop_front_if(|(at, _)| *at <= due) {
            watch.answer(payload, at);
            continue;
        }
        match watch.tick(due) {
            Act::Wait => {}
            Act::Evict => return due,
            Act::Probe(payload) => {
                tally.probes += u64::from(due < trace.death);
                answers.extend(line.answer_at(due).map(|at| (at, payload)));
            }
        }
    }
}

/// Returns the value below or at which so many percent lie, in seconds to the millisecond.
fn quantile(sorted: &[Micros], percent: usize) -> f64 {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).map_or(0.0, |&value| round(value as f64 / SECOND as f64, 3))
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    /// Every twelfth setting: some of each family.
    fn some() -> Vec<Setting> {
        let settings: Vec<Setting> = settings::all().into_iter().step_by(6).collect();
        for family in Family::ALL {
            assert!(settings.iter().any(|setting| setting.family == family), "{family:?}");
        }
        settings
    }

    #[test]
    fn the_same_seed_gives_the_same_report_with_any_number_of_threads() {
        let json = |seed, threads| {
            serde_json::to_string(&run_all(&some(), seed, 2, threads).expect("runs")).expect("serializes")
        };
        assert_eq!(json(1, 1), json(1, 2));
        assert_ne!(json(1, 1), json(2, 1));
    }

    #[test]
    fn each_setting_finds_each_death_within_its_bound() {
        let settings: Vec<Setting> =
            settings::all().into_iter().filter(|setting| setting.family == Family::Pulsegate).collect();
        let report = run_all(&settings, 5, 10, 2).expect("runs");
        for network in &report.networks {
            for (row, setting) in network.rows.iter().zip(&settings) {
                let crate::watch::Kind::Pulsegate { interval, verdict_after } = setting.kind else {
                    panic!("filtered")
                };
                let bound = (interval + verdict_after) as f64 / SECOND as f64;
                assert!(row.deaths > 5, "{row:?}");
                assert!(row.detection_max_s <= bound, "{row:?}");
            }
        }
    }

    #[test]
    fn quantiles_are_of_the_values_themselves() {
        let values: Vec<Micros> = (1..=100).map(|n| n * SECOND).collect();
        assert_eq!([50, 99, 100].map(|percent| quantile(&values, percent)), [50.0, 99.0, 100.0]);
        assert_eq!(quantile(&[], 50), 0.0);
    }
}
