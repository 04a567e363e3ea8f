//! Text for people: aligned columns, and names that cannot harm a terminal.

use std::io::{self, Write};
use unicode_width::UnicodeWidthStr as _;
use widgets_client::{Slot, Widget};
pub(super) use widgets_load::shown;

/// Writes rows below a line of titles. The last column is not padded.
pub(super) fn write<const COLUMNS: usize>(
    to: &mut impl Write,
    titles: Option<[&str; COLUMNS]>,
    rows: &[[String; COLUMNS]],
) -> io::Result<()> {
    let mut widths = titles.map_or([0; COLUMNS], |titles| titles.map(str::width));
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    if let Some(titles) = titles {
        line(to, &titles, &widths)?;
    }
    for row in rows {
        line(to, &row.each_ref().map(String::as_str), &widths)?;
    }
    Ok(())
}

fn line(to: &mut impl Write, cells: &[&str], widths: &[usize]) -> io::Result<()> {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width + 2 - cell.width()));
    }
    writeln!(to, "{}", text.trim_end())
}

/// The titles of a table of widgets.
pub(super) const WIDGET_TITLES: [&str; 3] = ["SERIAL NUMBER", "NAME", "SLOTS"];

/// Returns a widget as a row of that table.
pub(super) fn widget(widget: &Widget) -> [String; 3] {
    [
        shown(&widget.serial_number).into(),
        shown(&widget.name).into(),
        slots(widget),
    ]
}

/// Formats the slots of a widget in one cell: each port with its peer, or alone while it is free.
fn slots(widget: &Widget) -> String {
    let slot = |slot: &Slot| match &slot.peer {
        Some(peer) => format!("{}={}", shown(&slot.port), shown(peer)),
        None => shown(&slot.port).into(),
    };
    let slots: Vec<String> = widget.slots.iter().map(slot).collect();
    slots.join(" ")
}

#[cfg(test)]
mod tests {
    use super::write;

    #[test]
    fn columns_are_aligned_by_display_width() {
        let mut text = Vec::new();
        let rows = [
            ["日本".to_owned(), "x".to_owned()],
            ["abc".to_owned(), String::new()],
        ];
        write(&mut text, Some(["NAME", "Y"]), &rows).expect("written");
        assert_eq!(
            String::from_utf8(text).expect("text"),
            "NAME  Y\n日本  x\nabc\n"
        );
    }
}
