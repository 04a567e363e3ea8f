//! The elements of a page: text, tables and figures.

use super::super::plot::{Axes, Series, Size, lines};
use std::fmt::Write as _;

/// A page being written.
#[derive(Default)]
pub(super) struct Page {
    pub(super) html: String,
}

impl Page {
    /// Appends HTML as it is.
    pub(super) fn raw(&mut self, html: &str) {
        self.html.push_str(html);
    }

    /// Appends text and escapes it.
    pub(super) fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.raw("&amp;"),
                '<' => self.raw("&lt;"),
                '>' => self.raw("&gt;"),
                '"' => self.raw("&quot;"),
                _ => self.html.push(character),
            }
        }
    }

    pub(super) fn element(&mut self, tag: &str, class: &str, text: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.html, "<{tag} class=\"{class}\">");
        self.text(text);
        let _ = write!(self.html, "</{tag}>");
    }

    pub(super) fn row(&mut self, class: &str, cells: &[&str]) {
        let _ = write!(self.html, "<tr class=\"{class}\">");
        for cell in cells {
            self.element("td", "", cell);
        }
        self.raw("</tr>");
    }

    pub(super) fn table(&mut self, class: &str, heads: &[&str]) {
        let _ = write!(
            self.html,
            "<div class=\"scroll\"><table class=\"{class}\"><tr>"
        );
        for head in heads {
            self.element("th", "", head);
        }
        self.raw("</tr>");
    }

    pub(super) fn end_table(&mut self) {
        self.raw("</table></div>\n");
    }

    /// Appends a plot with its legend, or nothing if there is nothing to draw.
    pub(super) fn plot(
        &mut self,
        title: &str,
        axes: &Axes,
        series: &[Series],
    ) -> Result<(), String> {
        let sizes = [Size::Wide, Size::Narrow];
        let drawn = sizes.map(|size| Ok((size, lines(axes, series, size)?)));
        let drawn = drawn.into_iter().collect::<Result<Vec<_>, String>>()?;
        if drawn.iter().any(|(_, svg)| svg.is_empty()) {
            return Ok(());
        }
        self.element("h2", "", title);
        self.raw("<figure><div class=\"legend\">");
        for (number, each) in series.iter().enumerate() {
            let (class, colour) = (each.class(), each.colour(number));
            let _ = write!(
                self.html,
                "<span class=\"{class}\" style=\"--c: var(--s{colour})\">"
            );
            self.text(each.label);
            self.raw("</span>");
        }
        self.raw("</div>");
        for (size, svg) in drawn {
            let _ = write!(self.html, "<div class=\"{}\">{svg}</div>", size.class());
        }
        self.raw("</figure>\n");
        Ok(())
    }
}

/// Appends a figure that is seen at a glance.
pub(super) fn tile(page: &mut Page, figure: &str, name: &str) {
    page.raw("<div class=\"tile\">");
    page.element("b", "", figure);
    page.element("span", "", name);
    page.raw("</div>");
}
