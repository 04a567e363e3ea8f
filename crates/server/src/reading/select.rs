//! `select`: which columns, in which order and under which names.

use super::{Unreadable, column, text::Text};
use widgets_registry::query::{Column, Table};

/// A selected column and its name in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) column: Column,
    pub(crate) name: String,
}

/// Returns every column under its own name.
pub(super) fn everything(table: Table) -> Vec<Selected> {
    let columns = table.columns().iter();
    let selected = columns.map(|&column| Selected {
        column,
        name: column.as_str().to_owned(),
    });
    selected.collect()
}

pub(super) fn select(table: Table, given: &str) -> Result<Vec<Selected>, Unreadable> {
    let mut text = Text::new("select parameter", given);
    let mut selected: Vec<Selected> = Vec::new();
    loop {
        text.skip_spaces();
        let mut items = item(table, &mut text)?;
        for item in &items {
            if selected.iter().any(|each| each.name == item.name) {
                let details = format!("\"{}\" is selected twice", item.name);
                return Err(text.error(&details));
            }
        }
        selected.append(&mut items);
        text.skip_spaces();
        if !text.take(",") {
            text.end()?;
            return Ok(selected);
        }
    }
}

fn item(table: Table, text: &mut Text<'_>) -> Result<Vec<Selected>, Unreadable> {
    if text.take("*") {
        return Ok(everything(table));
    }
    // A spread is an embedding as well.
    text.take("...");
    let first = text.name()?;
    let has_alias = !text.rest().starts_with("::") && text.take(":");
    let field = if has_alias {
        text.name()?
    } else {
        first.clone()
    };
    if text.peek() == Some('(') || text.peek() == Some('!') {
        let name = field;
        return Err(Unreadable::Embedding { table, name });
    }
    let unsupported = if text.rest().starts_with("::") {
        "casts are not supported"
    } else if text.rest().starts_with("->") {
        "paths into JSON are not supported"
    } else if text.rest().starts_with('.') {
        "aggregates are not supported"
    } else {
        let column = column(table, &field)?;
        let name = first;
        return Ok(vec![Selected { column, name }]);
    };
    Err(text.error(unsupported))
}
