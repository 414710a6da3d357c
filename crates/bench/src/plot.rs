//! The histograms as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::plan::{Load, Network, Profile};
use crate::scenario::Outcome;
use crate::stats::Histogram;

const SIZE: (u32, u32) = (1200, 900);
const QUIET: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const BUSY: RGBColor = RGBColor(0xe0, 0x7b, 0x00);
const BOUND: RGBColor = RGBColor(0xc0, 0x10, 0x20);
const FONT: &str = "sans-serif";
/// Room to the right of the bound, as a share of it.
const BEYOND: f64 = 1.1;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One measured time: what it is called, and where it stands.
type Measure = (&'static str, fn(&Outcome) -> &Histogram);

const MEASURES: [Measure; 2] = [
    ("from the client's last byte to the verdict", |outcome| &outcome.silence_to_verdict),
    ("from the black hole to the app being told", |outcome| &outcome.cut_to_told),
];

/// Draws the runs on the good network: a row per profile, a column per measure.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn draw(outcomes: &[Outcome], path: &Path) -> Result<()> {
    let good: Vec<_> = outcomes.iter().filter(|outcome| outcome.network == Network::Good).collect();
    let profiles: Vec<_> = Profile::ALL
        .into_iter()
        .filter(|profile| good.iter().any(|outcome| outcome.profile == *profile))
        .collect();
    let Some(first) = good.first() else { return Ok(()) };
    let title =
        format!("{} of {} clients vanish: when does the gateway know?", first.vanished, first.sessions);

    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let drawn = |error| anyhow!("{error}");
    // White, so that it reads on a dark page too.
    root.fill(&WHITE).map_err(|error| drawn(error.to_string()))?;
    let area = root.titled(&title, (FONT, 26)).map_err(|error| drawn(error.to_string()))?;
    let panels = area.split_evenly((profiles.len(), MEASURES.len()));
    for (row, profile) in profiles.into_iter().enumerate() {
        let of_profile: Vec<_> = good.iter().copied().filter(|outcome| outcome.profile == profile).collect();
        for (column, measure) in MEASURES.iter().enumerate() {
            let place = &panels[row * MEASURES.len() + column];
            panel(place, profile, &of_profile, measure).map_err(|error| drawn(error.to_string()))?;
        }
    }
    root.present().map_err(|error| drawn(error.to_string()))
}

fn panel(
    area: &Area<'_>,
    profile: Profile,
    outcomes: &[&Outcome],
    (what, histogram): &Measure,
) -> Result<(), Box<dyn std::error::Error>> {
    let bound = profile.bound().as_secs_f64();
    let most = outcomes.iter().flat_map(|outcome| &histogram(outcome).counts).max().copied().unwrap_or(1);
    let top = most as f64 * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}, {what}", profile.as_str()), (FONT, 17))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..bound * BEYOND, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_desc("seconds")
        .y_desc("clients")
        .x_labels(9)
        .y_labels(5)
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 14))
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for outcome in outcomes {
        let color = match outcome.load {
            Load::Quiet => QUIET,
            Load::Busy => BUSY,
        };
        let histogram = histogram(outcome);
        let bars =
            histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(part, count)| {
                let left = part as f64 * histogram.width;
                Rectangle::new(
                    [(left, 0.0), (left + histogram.width, *count as f64)],
                    color.mix(0.65).filled(),
                )
            });
        chart
            .draw_series(bars)?
            .label(outcome.load.as_str())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.mix(0.65).filled()));
    }
    chart
        .draw_series(LineSeries::new([(bound, 0.0), (bound, top)], BOUND.stroke_width(2)))?
        .label(format!("bound, {bound} s"))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], BOUND.stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.25))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}
