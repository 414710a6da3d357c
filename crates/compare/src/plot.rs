//! The plot: one panel for each network.

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::run::{NetworkReport, Report, Row};
use crate::settings::Family;

const SIZE: (u32, u32) = (1200, 960);
const LEGEND_HEIGHT: u32 = 70;
/// Seconds, as powers of ten.
const X: (f64, f64) = (-0.1, 2.2);
/// False evictions per hour, as powers of ten; below [`band_top`] is the band of those that had none.
const Y: (f64, f64) = (-6.5, 3.0);
const INK: RGBColor = RGBColor(40, 40, 40);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Panel<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws the report as SVG.
pub(crate) fn draw(report: &Report) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|fault| anyhow!("{fault}"))?;
        let (legend, panels) = root.split_vertically(LEGEND_HEIGHT);
        draw_legend(&legend, report).map_err(|fault| anyhow!("{fault}"))?;
        for (area, network) in panels.split_evenly((2, 2)).iter().zip(&report.networks) {
            draw_panel(&root, area, network, report.hours).map_err(|fault| anyhow!("{fault}"))?;
        }
        root.present().map_err(|fault| anyhow!("{fault}"))?;
    }
    Ok(svg)
}

fn colour(family: Family) -> RGBColor {
    // Okabe and Ito's palette: told apart by colour-blind eyes too.
    match family {
        Family::FixedTimer => RGBColor(0, 0, 0),
        Family::PingTimeout => RGBColor(0, 114, 178),
        Family::PhiAccrual => RGBColor(230, 159, 0),
        Family::Pulsegate => RGBColor(0, 158, 115),
    }
}

/// The outline of the family's mark around the origin, in pixels.
fn outline(family: Family) -> Vec<(i32, i32)> {
    match family {
        Family::FixedTimer => vec![(-4, -4), (4, -4), (4, 4), (-4, 4), (-4, -4)],
        Family::PingTimeout => vec![(0, -6), (5, 4), (-5, 4), (0, -6)],
        Family::PhiAccrual => {
            vec![(0, -4), (3, -3), (4, 0), (3, 3), (0, 4), (-3, 3), (-4, 0), (-3, -3), (0, -4)]
        }
        Family::Pulsegate => vec![(0, -7), (6, 0), (0, 7), (-6, 0), (0, -7)],
    }
}

fn draw_mark(area: &Area<'_>, family: Family, (x, y): (i32, i32), filled: bool) -> Result<(), Fault> {
    let points: Vec<(i32, i32)> = outline(family).into_iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
    let fill = if filled { colour(family).mix(0.75) } else { WHITE.mix(0.6) };
    area.draw(&Polygon::new(points.clone(), fill.filled()))?;
    area.draw(&PathElement::new(points, colour(family).stroke_width(1)))
}

type Fault = DrawingAreaErrorKind<std::io::Error>;

fn draw_legend(area: &Area<'_>, report: &Report) -> Result<(), Fault> {
    let title = ("sans-serif", 20).into_font().color(&INK);
    let text = ("sans-serif", 14).into_font().color(&INK);
    area.draw(&Text::new("Detection time against false evictions (lower left is better)", (20, 12), title))?;
    let mut x = 26;
    for family in Family::ALL {
        draw_mark(area, family, (x, 52), true)?;
        area.draw(&Text::new(family.title(), (x + 12, 45), text.clone()))?;
        x += 40 + 7 * width(family.title());
    }
    let none = format!("hollow, shaded: none seen in {} h", report.hours);
    area.draw(&Text::new(none, (x, 45), text))
}

/// `root` takes what is placed by the pixel, since a chart's own marks know no pixels of the whole.
fn draw_panel(root: &Area<'_>, area: &Area<'_>, network: &NetworkReport, hours: u32) -> Result<(), Fault> {
    let text = ("sans-serif", 14).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(network.network, ("sans-serif", 17).into_font().color(&INK))
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(X.0..X.1, Y.0..Y.1)?;
    let band_top = band_top(hours);
    chart.draw_series([Rectangle::new([(X.0, Y.0), (X.1, band_top)], RGBColor(238, 238, 238).filled())])?;
    draw_grid(root, &mut chart, band_top)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(0)
        .y_labels(0)
        .x_desc("p99 detection time, s")
        .y_desc("false evictions per session-hour")
        .axis_desc_style(text)
        .axis_style(INK)
        .draw()?;
    // The gateway's own come last, so that its marks lie on top, and the labels above all.
    for row in &network.rows {
        draw_mark(root, row.family, place(&chart, row, band_top), row.false_evictions > 0)?;
    }
    for row in &network.rows {
        if let Some(label) = row.label {
            draw_label(root, row, label, place(&chart, row, band_top))?;
        }
    }
    Ok(())
}

/// In the band there is room above the mark. Elsewhere the marks lie along a falling line: what is free is below
/// and left of it, and above and right of it; a thin line leads there.
fn draw_label(root: &Area<'_>, row: &Row, label: &str, (x, y): (i32, i32)) -> Result<(), Fault> {
    let style = ("sans-serif", 14).into_font().color(&colour(row.family));
    if row.false_evictions == 0 {
        return root.draw(&Text::new(label.to_owned(), (x + 7, y - 18), style));
    }
    let (end, text) = match row.family {
        Family::Pulsegate => ((x - 34, y + 30), (x - 34 - 8 * width(label), y + 27)),
        Family::FixedTimer | Family::PingTimeout | Family::PhiAccrual => ((x + 44, y - 58), (x + 48, y - 70)),
    };
    root.draw(&PathElement::new(vec![(x, y), end], colour(row.family)))?;
    root.draw(&Text::new(label.to_owned(), text, style))
}

fn width(text: &str) -> i32 {
    i32::try_from(text.len()).unwrap_or(0)
}

/// One eviction in all the hours is the least that can be seen; the band of those without begins below that.
fn band_top(hours: u32) -> f64 {
    -f64::from(hours).log10() - 0.25
}

/// Rows without a false eviction lie in the band, each family on a line of its own.
fn place(chart: &Panel<'_, '_>, row: &Row, band_top: f64) -> (i32, i32) {
    let x = row.detection_p99_s.max(0.8).log10();
    let lane = Family::ALL.iter().position(|&family| family == row.family).unwrap_or(0) as f64;
    let y = if row.false_evictions > 0 {
        (row.false_evictions as f64 / row.living_hours).log10()
    } else {
        band_top - (band_top - Y.0) * (lane + 0.72) / Family::ALL.len() as f64
    };
    chart.backend_coord(&(x, y))
}

fn draw_grid(root: &Area<'_>, chart: &mut Panel<'_, '_>, band_top: f64) -> Result<(), Fault> {
    let line = RGBColor(215, 215, 215);
    let text = ("sans-serif", 13).into_font().color(&INK);
    for seconds in [1, 2, 5, 10, 20, 50, 100] {
        let x = f64::from(seconds).log10();
        chart.draw_series([PathElement::new(vec![(x, Y.0), (x, Y.1)], line)])?;
        let (left, bottom) = chart.backend_coord(&(x, Y.0));
        let label = seconds.to_string();
        let half = 4 * width(&label);
        root.draw(&Text::new(label, (left - half, bottom + 6), text.clone()))?;
    }
    let labels = ["0.001", "0.01", "0.1", "1", "10", "100", "1000"];
    for (power, label) in (-3..).zip(labels).filter(|&(power, _)| f64::from(power) > band_top) {
        let y = f64::from(power);
        chart.draw_series([PathElement::new(vec![(X.0, y), (X.1, y)], line)])?;
        let (left, middle) = chart.backend_coord(&(X.0, y));
        let width = 8 * width(label);
        root.draw(&Text::new(label, (left - width - 4, middle - 7), text.clone()))?;
    }
    let (left, middle) = chart.backend_coord(&(X.0, (band_top + Y.0) / 2.0));
    root.draw(&Text::new("none", (left - 36, middle - 7), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run, settings};

    #[test]
    fn the_plot_has_a_panel_for_each_network_and_the_profiles_by_name() {
        let report = run::run_all(&settings::all(), 1, 1, 2).expect("runs");
        let svg = draw(&report).expect("draws");
        for network in &report.networks {
            assert!(svg.contains(network.network), "{}", network.network);
        }
        assert_eq!(svg.matches("balanced").count(), report.networks.len());
    }
}
