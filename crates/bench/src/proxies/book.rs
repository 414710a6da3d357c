//! All figures of a run: kept by round, told as medians.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::servers::Kind;
use crate::stats::median;

/// What a figure says about who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// It explains another figure.
    Neither,
}

/// The name of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

/// One row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Under which circumstances.
    pub(crate) cell: String,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) contenders: BTreeMap<Kind, Runs>,
    /// How many times better pulsegate is than the best of the other proxies; under one is behind.
    pub(crate) ahead: Option<f64>,
}

/// What one contender reached, by round.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Runs {
    pub(crate) median: f64,
    pub(crate) runs: Vec<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    figures: Vec<Figure>,
    failures: Vec<String>,
    outside: BTreeMap<Kind, Vec<f64>>,
}

impl Book {
    pub(crate) fn add(&mut self, cell: &str, measure: Measure, kind: Kind, value: f64) {
        let Measure { name, unit, better } = measure;
        let known = self.figures.iter().position(|figure| figure.cell == cell && figure.name == name);
        let at = known.unwrap_or_else(|| {
            let contenders = BTreeMap::new();
            self.figures.push(Figure { cell: cell.to_owned(), name, unit, better, contenders, ahead: None });
            self.figures.len() - 1
        });
        let runs = self.figures[at].contenders.entry(kind).or_default();
        // Enough digits for whoever reads the record.
        runs.runs.push((value * 1000.0).round() / 1000.0);
        runs.median = median(&runs.runs);
        self.figures[at].ahead = self.figures[at].compared();
    }

    /// Share of the machine that others had while a contender was measured.
    pub(crate) fn add_outside(&mut self, kind: Kind, percent: f64) {
        self.outside.entry(kind).or_default().push(percent);
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    pub(crate) fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// What could not be measured, or came out as nothing.
    pub(crate) fn failures(&self) -> Vec<String> {
        let empty = self.figures.iter().flat_map(|figure| {
            let hollow = figure.contenders.iter().filter(|(_, runs)| {
                let is_hollow =
                    |value: &f64| !value.is_finite() || (figure.better == Better::Higher && *value <= 0.0);
                runs.runs.iter().any(is_hollow)
            });
            hollow.map(|(kind, _)| {
                format!("{}, {}, {}: nothing was measured", figure.cell, figure.name, kind.as_str())
            })
        });
        self.failures.iter().cloned().chain(empty).collect()
    }

    /// Median and most of the share that others had, in percent, by contender.
    pub(crate) fn outside(&self) -> BTreeMap<Kind, (f64, f64)> {
        let told = |shares: &Vec<f64>| {
            let most = shares.iter().copied().fold(0.0, f64::max);
            ((median(shares) * 10.0).round() / 10.0, (most * 10.0).round() / 10.0)
        };
        self.outside.iter().map(|(kind, shares)| (*kind, told(shares))).collect()
    }

    /// A table in Markdown.
    pub(crate) fn table(&self, kinds: &[Kind]) -> String {
        let mut text = String::from("| cell | figure |");
        let compares = kinds.contains(&Kind::Pulsegate) && kinds.len() > 1;
        for kind in kinds {
            let _ = write!(text, " {} |", kind.as_str());
        }
        text.push_str(if compares { " pulsegate to the best other |\n|---|---|" } else { "\n|---|---|" });
        text.push_str(&"---|".repeat(kinds.len() + usize::from(compares)));
        for figure in &self.figures {
            let _ = write!(text, "\n| {} | {}, {} |", figure.cell, figure.name, figure.unit);
            for kind in kinds {
                let value = figure.contenders.get(kind).map_or("–".to_owned(), |runs| shown(runs.median));
                let _ = write!(text, " {value} |");
            }
            if compares {
                let told = match figure.ahead {
                    Some(ratio) if ratio > 1.0 => format!("**{}× ahead**", near_one(ratio)),
                    Some(ratio) => format!("{}× behind", near_one(ratio)),
                    None => "–".to_owned(),
                };
                let _ = write!(text, " {told} |");
            }
        }
        text
    }
}

impl Figure {
    fn compared(&self) -> Option<f64> {
        let own = self.contenders.get(&Kind::Pulsegate)?.median;
        let others = self.contenders.iter().filter(|(kind, _)| kind.is_rival()).map(|(_, runs)| runs.median);
        let (own, best) = match self.better {
            Better::Higher => (own, others.max_by(f64::total_cmp)?),
            // The smaller the better: turned round, so that more than one is ahead here, too.
            Better::Lower => (others.min_by(f64::total_cmp)?, own),
            Better::Neither => return None,
        };
        (own > 0.0 && best > 0.0).then_some(own / best)
    }
}

/// Two decimals, or as many as it takes to tell it from one.
fn near_one(ratio: f64) -> String {
    let decimals = (2..5).find(|decimals| (ratio - 1.0).abs() >= 0.5 * 0.1_f64.powi(*decimals)).unwrap_or(2);
    format!("{ratio:.*}", decimals as usize)
}

/// Three digits, or whole numbers with commas.
fn shown(value: f64) -> String {
    let digits = match value.abs() {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    let plain = format!("{value:.digits$}");
    if digits > 0 {
        return plain;
    }
    let (sign, figures) = plain.strip_prefix('-').map_or(("", &plain[..]), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (at, figure) in figures.char_indices() {
        if at > 0 && (figures.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(figure);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Measure = Measure { name: "echoes", unit: "per s", better: Better::Higher };
    const COST: Measure = Measure { name: "cpu", unit: "µs", better: Better::Lower };

    #[test]
    fn the_ratio_is_to_the_best_of_the_other_proxies() {
        let mut book = Book::default();
        for (kind, rate, cost) in [
            (Kind::Direct, 1000.0, 0.0),
            (Kind::Relay, 400.0, 4.0),
            (Kind::Nginx, 500.0, 8.0),
            (Kind::Pulsegate, 600.0, 5.0),
        ] {
            book.add("32 B", RATE, kind, rate);
            book.add("32 B", COST, kind, cost);
        }
        let [rate, cost] = book.figures() else { panic!("two figures") };
        assert_eq!((rate.ahead, cost.ahead), (Some(1.2), Some(0.8)));
        assert!(
            book.table(&Kind::ALL[..5])
                .contains("| 32 B | echoes, per s | 1,000 | 400 | – | 500 | 600 | **1.20× ahead** |")
        );
    }

    #[test]
    fn a_figure_that_is_none_is_a_failure() {
        let mut book = Book::default();
        book.add("32 B", RATE, Kind::Relay, 0.0);
        book.add("32 B", COST, Kind::Relay, f64::NAN);
        assert_eq!(book.failures().len(), 2);
    }

    #[test]
    fn medians_and_numbers_are_readable() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[1.0, 2.0])), (2.0, 1.5));
        let ratios: Vec<_> = [1.3, 0.996, 1.004, 1.0004, 0.994, 1.0].map(near_one).into();
        assert_eq!(ratios, ["1.30", "0.996", "1.004", "1.0004", "0.99", "1.00"]);
        let told: Vec<_> = [1_444_000.4, 99.94, 3.456, -1234.0].map(shown).into();
        assert_eq!(told, ["1,444,000", "99.9", "3.46", "-1,234"]);
    }
}
