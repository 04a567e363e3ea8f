//! Bar charts as SVG.

use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    prelude::{IntoDrawingArea as _, RGBColor, Rectangle, SVGBackend},
    style::{Color as _, IntoFont as _},
};
use std::{error::Error, path::Path};

const SIZE: (u32, u32) = (820, 360);
const TEXT: RGBColor = RGBColor(0x1b, 0x1f, 0x24);
const GRID: RGBColor = RGBColor(0xd5, 0xd9, 0xde);
/// Colours that people with colour blindness can tell apart as well (Okabe and Ito).
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x8c, 0x95, 0x9f),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
];

/// The figures of one peer: a bar at each size.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// Each a number of widgets and the figure.
    pub(crate) points: Vec<(u64, f64)>,
}

/// Draws a group of bars for each size, with one bar of each series, in this unit.
pub(crate) fn bars(
    path: &Path,
    title: &str,
    unit: &str,
    series: &[Series],
) -> Result<(), Box<dyn Error>> {
    let mut sizes: Vec<u64> = Vec::new();
    for (size, _) in series.iter().flat_map(|each| &each.points) {
        if !sizes.contains(size) {
            sizes.push(*size);
        }
    }
    let figures = series.iter().flat_map(|each| &each.points);
    let figures = figures
        .map(|&(_, figure)| figure)
        .filter(|figure| figure.is_finite());
    let most = figures.fold(0.0, f64::max).max(1e-9);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&RGBColor(255, 255, 255))?;
    let font = |size: u32| ("sans-serif", size).into_font().color(&TEXT);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .caption(title, font(17))
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..sizes.len().max(1) as f64, 0.0..most * 1.3)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(GRID.mix(0.0))
        .bold_line_style(GRID)
        .axis_style(GRID)
        .y_labels(6)
        .y_label_formatter(&|value| crate::report::number(*value))
        .label_style(font(13))
        .draw()?;
    // A group fills nine tenths of its space.
    let width = 0.9 / series.len().max(1) as f64;
    for (number, each) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let bars = each.points.iter().filter(|(_, figure)| figure.is_finite());
        let bars = bars.filter_map(|&(size, figure)| {
            let group = sizes.iter().position(|&each| each == size)?;
            let left = group as f64 + 0.05 + number as f64 * width;
            Some(Rectangle::new(
                [(left, 0.0), (left + width * 0.92, figure)],
                colour.filled(),
            ))
        });
        chart
            .draw_series(bars)?
            .label(each.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    for (group, &size) in sizes.iter().enumerate() {
        let text = format!("{} {unit}", crate::report::number(size as f64));
        let middle = (group as f64 + 0.5, 0.0);
        let (x, y) = chart.backend_coord(&middle);
        let anchor = plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Top,
        );
        let style = plotters::style::TextStyle::from(("sans-serif", 13).into_font())
            .color(&TEXT)
            .pos(anchor);
        area.draw(&plotters::element::Text::new(text, (x, y + 10), style))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(RGBColor(255, 255, 255))
        .border_style(GRID)
        .label_font(font(13))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_bar_per_measured_size_and_a_label_per_peer() {
        let path = std::env::temp_dir().join(format!("widgets-bench-{}.svg", std::process::id()));
        let series = [
            Series {
                name: "do nothing",
                points: vec![(10_000, 5e4), (1_000_000, 6e4)],
            },
            Series {
                name: "embedded",
                points: vec![(10_000, 4e4), (1_000_000, f64::NAN)],
            },
        ];
        bars(&path, "requests/s", "widgets", &series).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for text in [
            "do nothing",
            "embedded",
            "10,000 widgets",
            "1,000,000 widgets",
            "requests/s",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        let bars_of = |colour: &str| svg.matches(&format!("fill=\"{colour}\"")).count();
        // One more for the legend.
        assert_eq!((bars_of("#8C959F"), bars_of("#0072B2")), (3, 2));
    }
}
