//! Many figures told in few.

use serde::{Deserialize, Serialize};

/// Least, middle and most of some times, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// How many of some times fell into each part of a span that starts at zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Histogram {
    /// Width of a part, in seconds.
    pub(crate) width: f64,
    /// From zero on; what lies beyond the last part is counted in it.
    pub(crate) counts: Vec<usize>,
}

impl Summary {
    /// `None` of nothing.
    pub(crate) fn of(times: &[f64]) -> Option<Summary> {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Summary {
            count: sorted.len(),
            min: round(min),
            median: round(quantile(&sorted, 0.5)),
            p99: round(quantile(&sorted, 0.99)),
            max: round(max),
        })
    }
}

impl Histogram {
    /// Counts `times` in `parts` parts of `0..span` seconds.
    pub(crate) fn of(times: &[f64], span: f64, parts: usize) -> Histogram {
        let width = span / parts as f64;
        let mut counts = vec![0; parts];
        for time in times {
            counts[((time.max(0.0) / width) as usize).min(parts - 1)] += 1;
        }
        Histogram { width, counts }
    }
}

/// To the millisecond: the clock could do better, the machine can't.
pub(crate) fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The one in the middle, or between the two there; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The value below which a share of `sorted` lies; at least one value.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_least_middle_and_most() {
        let summary = Summary::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((summary.count, summary.min, summary.median, summary.max), (3, 1.0, 2.0, 3.0));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_histogram_loses_nobody() {
        let histogram = Histogram::of(&[-0.1, 0.0, 0.99, 1.0, 7.0], 2.0, 2);
        assert_eq!(histogram, Histogram { width: 1.0, counts: vec![3, 2] });
    }
}
