//! Plots as SVG, coloured by the page that shows them.
//!
//! The colour of each series only encodes its number (`#000001` and so on). The page's style sheet
//! replaces it with one that suits a light or a dark background.

use plotters::{
    chart::ChartBuilder,
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::{Circle, IntoDrawingArea as _, IntoLogRange as _, LineSeries, RGBColor, SVGBackend},
    style::{Color as _, IntoFont as _},
};
use std::ops::Range;

/// The size of a plot. A page contains each plot in every size and shows the one that fits, because
/// labels that are scaled down to a phone are unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// For screens.
    Wide,
    /// For phones.
    Narrow,
}

impl Size {
    /// Returns the class that the page's style sheet uses for it.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }

    const fn pixels(self) -> (u32, u32) {
        match self {
            Self::Wide => (820, 300),
            Self::Narrow => (360, 260),
        }
    }

    fn x_labels(self, wanted: usize) -> usize {
        match self {
            Self::Wide => wanted,
            Self::Narrow => wanted.min(5),
        }
    }
}

const AXIS: RGBColor = RGBColor(1, 0, 0);
const GRID: RGBColor = RGBColor(2, 0, 0);
const TEXT: RGBColor = RGBColor(3, 0, 0);

/// The number of the colour of reference lines.
const REFERENCE: usize = 5;

/// One line of a plot.
pub(super) struct Series {
    pub(super) label: &'static str,
    pub(super) points: Vec<(f64, f64)>,
    /// Draws small circles at the points, if each point is a separate measurement.
    pub(super) marked: bool,
    /// The series is one that others are compared with. It is drawn behind them, dashed and in a
    /// quiet colour.
    pub(super) reference: bool,
}

impl Series {
    pub(super) fn line(label: &'static str, points: impl Iterator<Item = (f64, f64)>) -> Self {
        let points = points.filter(|(x, y)| x.is_finite() && y.is_finite());
        Self {
            label,
            points: points.collect(),
            marked: false,
            reference: false,
        }
    }

    pub(super) fn marked(self) -> Self {
        Self {
            marked: true,
            ..self
        }
    }

    pub(super) fn reference(self) -> Self {
        Self {
            reference: true,
            ..self
        }
    }

    /// Returns the number of its colour in the page's style sheet, if it is the series at
    /// `position`.
    pub(super) const fn colour(&self, position: usize) -> usize {
        if self.reference {
            REFERENCE
        } else {
            position + 1
        }
    }

    pub(super) const fn class(&self) -> &'static str {
        if self.reference { "reference" } else { "" }
    }
}

/// The axes of a plot.
pub(super) struct Axes {
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    /// The maximum number of labels.
    pub(super) x_labels: usize,
    pub(super) x_text: fn(f64) -> String,
    pub(super) y_text: fn(f64) -> String,
    /// Whether the y axis is logarithmic. Latencies need that, because rare ones are a thousand
    /// times the usual ones.
    pub(super) log: bool,
}

fn colour(number: usize) -> RGBColor {
    RGBColor(0, 0, u8::try_from(number).unwrap_or(u8::MAX))
}

/// Draws lines. Returns an empty text if there is nothing to draw.
pub(super) fn lines(axes: &Axes, series: &[Series], size: Size) -> Result<String, String> {
    let all = || series.iter().flat_map(|each| &each.points).copied();
    let range = |of: fn((f64, f64)) -> f64| {
        all()
            .map(of)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
    };
    let (x, y) = (range(|(x, _)| x), range(|(_, y)| y));
    if all().next().is_none() {
        return Ok(String::new());
    }
    let x = 0f64.min(x.0)..x.1.max(x.0 + 1e-9);
    let mut svg = String::new();
    if axes.log {
        let low = 10f64.powf(y.0.max(1e-3).log10().floor());
        let high = 10f64.powf(y.1.max(1e-3).log10().ceil()).max(low * 10.0);
        draw(&mut svg, axes, series, size, x, (low..high).log_scale())?;
    } else {
        draw(&mut svg, axes, series, size, x, 0.0..(y.1 * 1.05).max(1.0))?;
    }
    Ok(svg)
}

fn draw<Y>(
    svg: &mut String,
    axes: &Axes,
    series: &[Series],
    size: Size,
    x: Range<f64>,
    y: Y,
) -> Result<(), String>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let failed = |error: &dyn std::fmt::Display| format!("drawing a plot: {error}");
    let area = SVGBackend::with_string(svg, size.pixels()).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(if size == Size::Wide { 32 } else { 20 })
        .x_label_area_size(44)
        .y_label_area_size(if size == Size::Wide { 76 } else { 66 })
        .build_cartesian_2d(x, y)
        .map_err(|error| failed(&error))?;
    let label = ("sans-serif", 13).into_font().color(&TEXT);
    chart
        .configure_mesh()
        .x_max_light_lines(1)
        .axis_style(AXIS)
        .bold_line_style(GRID)
        // Light lines between the powers of ten of a logarithmic axis; elsewhere they would be too
        // many.
        .light_line_style(GRID.mix(if axes.log { 0.5 } else { 0.0 }))
        .x_labels(size.x_labels(axes.x_labels))
        .y_labels(6)
        .x_label_formatter(&|value| (axes.x_text)(*value))
        .y_label_formatter(&|value| (axes.y_text)(*value))
        .x_desc(axes.x)
        .y_desc(axes.y)
        .label_style(label.clone())
        .axis_desc_style(label)
        .draw()
        .map_err(|error| failed(&error))?;
    let mut ordered: Vec<_> = series.iter().enumerate().collect();
    ordered.sort_by_key(|(_, each)| !each.reference);
    for (position, each) in ordered {
        let colour = colour(each.colour(position));
        let style = colour.stroke_width(2);
        let points = each.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points.clone(), style))
            .map_err(|error| failed(&error))?;
        if each.marked {
            let circles = points.map(|point| Circle::new(point, 4, colour.filled()));
            chart.draw_series(circles).map_err(|error| failed(&error))?;
        }
    }
    area.present().map_err(|error| failed(&error))
}
