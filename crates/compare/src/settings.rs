//! Which settings of which detectors are compared.

use serde::Serialize;

use crate::phi::PhiSetting;
use crate::trace::SECOND;
use crate::watch::Kind;

/// A family of detectors: one colour in the plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Family {
    FixedTimer,
    PingTimeout,
    PhiAccrual,
    Pulsegate,
}

impl Family {
    pub(crate) const ALL: [Family; 4] =
        [Family::FixedTimer, Family::PingTimeout, Family::PhiAccrual, Family::Pulsegate];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Family::FixedTimer => "fixed timer (ws README)",
            Family::PingTimeout => "interval + timeout (Socket.IO)",
            Family::PhiAccrual => "phi accrual (Akka)",
            Family::Pulsegate => "pulsegate",
        }
    }
}

/// One detector with its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) family: Family,
    pub(crate) name: String,
    /// A short name for the plot, for what ships as a default somewhere.
    pub(crate) label: Option<&'static str>,
    pub(crate) kind: Kind,
}

/// Returns all of them.
pub(crate) fn all() -> Vec<Setting> {
    let mut settings = Vec::new();
    for interval in [1, 2, 3, 5, 8, 10, 15, 20, 30, 45, 60] {
        settings.push(Setting {
            family: Family::FixedTimer,
            name: format!("every {interval} s"),
            label: (interval == 30).then_some("30 s"),
            kind: Kind::Fixed { interval: interval * SECOND },
        });
    }
    for (interval, timeout) in [(1, 1), (1, 2), (2, 2), (5, 3), (5, 5), (10, 5), (15, 10), (25, 20), (30, 30)]
    {
        settings.push(Setting {
            family: Family::PingTimeout,
            name: format!("{interval} s + {timeout} s"),
            label: ((interval, timeout) == (25, 20)).then_some("25+20"),
            kind: Kind::PingTimeout { interval: interval * SECOND, timeout: timeout * SECOND },
        });
    }
    settings.extend(phi());
    settings.extend(pulsegate());
    settings
}

fn phi() -> Vec<Setting> {
    let mut settings = Vec::new();
    let shapes = [(1000, 100, 0), (1000, 500, 0), (200, 100, 0), (1000, 100, 3), (1000, 500, 3)];
    for interval in [1, 5] {
        for (window, deviation_ms, pause) in shapes {
            for threshold in [1, 2, 4, 8, 12, 16] {
                settings.push(Setting {
                    family: Family::PhiAccrual,
                    name: format!(
                        "every {interval} s, window {window}, min deviation {deviation_ms} ms, pause {pause} s, threshold {threshold}"
                    ),
                    label: ((interval, window, deviation_ms, pause, threshold) == (1, 1000, 100, 3, 8))
                        .then_some("Akka cluster"),
                    kind: Kind::Phi(PhiSetting {
                        interval: interval * SECOND,
                        window,
                        deviation_min: deviation_ms * SECOND / 1000,
                        pause: pause * SECOND,
                        threshold: f64::from(threshold),
                    }),
                });
            }
        }
    }
    settings
}

fn pulsegate() -> Vec<Setting> {
    let profiles = [("fast", 1, 2), ("balanced", 5, 5), ("battery", 25, 15)];
    let mut pairs = vec![(1, 1), (1, 3), (1, 4), (1, 5), (1, 8), (2, 2), (2, 4), (2, 8)];
    pairs.extend([(5, 2), (5, 3), (5, 4), (5, 8), (5, 12), (5, 15), (25, 5), (25, 8), (25, 25)]);
    let named = profiles.into_iter().map(|(name, interval, after)| (Some(name), interval, after));
    let rest = pairs.into_iter().map(|(interval, after)| (None, interval, after));
    let setting = |(label, interval, after): (Option<&'static str>, u64, u64)| Setting {
        family: Family::Pulsegate,
        name: match label {
            Some(profile) => format!("{profile} ({interval} s + {after} s)"),
            None => format!("{interval} s + {after} s"),
        },
        label,
        kind: Kind::Pulsegate { interval: interval * SECOND, verdict_after: after * SECOND },
    };
    named.chain(rest).map(setting).collect()
}
