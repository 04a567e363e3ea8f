//! The query string and the headers of a list or of a neighbourhood.

use super::{
    Selected, Unreadable, column,
    filter::{self, Logic},
    select::{self, everything},
    text::Text,
};
use crate::routes::is_decodable;
use percent_encoding::percent_decode;
use std::borrow::Cow;
use widgets_registry::{
    SerialNumber,
    query::{Asker, DEPTH_MAX, DEPTH_MIN, Direction, Filter, List, NeighbourhoodQuery, Table},
};

/// How many widgets a neighbourhood shows by default.
pub(crate) const NEIGHBOURHOOD_WIDGETS_MAX: u32 = 500;

/// How many associations far a neighbourhood extends by default.
pub(crate) const NEIGHBOURHOOD_DEPTH: u32 = 1;

/// A list, and how it is to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) list: List,
    pub(crate) selected: Vec<Selected>,
}

/// A range of rows, counted from 0.
#[derive(Clone, Copy)]
struct Range {
    offset: u64,
    limit: Option<u64>,
}

/// Parses a list. `range` is the header of that name; `count` says whether all rows are to be
/// counted.
pub(crate) fn list(
    table: Table,
    query: &str,
    range: Option<&str>,
    count: bool,
    rows_max: u32,
) -> Result<Wanted, Unreadable> {
    let mut filters = Vec::new();
    let (mut selected, mut order) = (None, None);
    let (mut limit, mut offset) = (None, None);
    for parameter in query.split('&').filter(|each| !each.is_empty()) {
        let (name, value) = decoded(parameter)?;
        match &*name {
            "select" => once(&mut selected, &name, select::select(table, &value)?)?,
            "order" => once(&mut order, &name, direction(table, &value)?)?,
            "limit" => once(&mut limit, &name, number("limit", "Limit", &value)?)?,
            "offset" => once(&mut offset, &name, number("offset", "Offset", &value)?)?,
            "and" => filters.push(filter::of_tree(table, Logic::And, false, &value)?),
            "or" => filters.push(filter::of_tree(table, Logic::Or, false, &value)?),
            "not.and" => filters.push(filter::of_tree(table, Logic::And, true, &value)?),
            "not.or" => filters.push(filter::of_tree(table, Logic::Or, true, &value)?),
            name => filters.push(filter::of_column(table, name, &value)?),
        }
    }
    let asked = Range {
        offset: offset.unwrap_or(0),
        limit,
    };
    let range = header_range(range)?.map_or(Ok(asked), |range| asked.within(range))?;
    let limit = range.limit.unwrap_or(u64::MAX).min(rows_max.into());
    let filter = match filters.len() {
        1 => filters.remove(0),
        _ => Filter::All(filters),
    };
    Ok(Wanted {
        list: List {
            table,
            filter,
            direction: order.unwrap_or_default(),
            offset: range.offset,
            limit: u32::try_from(limit).unwrap_or(rows_max),
            count,
            // The service fills this in once it knows the asker.
            asker: Asker::default(),
        },
        selected: selected.unwrap_or_else(|| everything(table)),
    })
}

/// Checks the query of a lookup, which must be empty.
pub(crate) fn lookup(query: &str) -> Result<(), Unreadable> {
    nothing(
        query,
        "it is unknown: a lookup has no parameters, /widgets has select and filters",
    )
}

/// Checks the query of a backup, which must be empty.
pub(crate) fn backup(query: &str) -> Result<(), Unreadable> {
    nothing(query, "it is unknown: a backup has no parameters")
}

/// Refuses any parameter, with these details.
fn nothing(query: &str, details: &str) -> Result<(), Unreadable> {
    let Some(parameter) = query.split('&').find(|each| !each.is_empty()) else {
        return Ok(());
    };
    let (name, _) = decoded(parameter)?;
    Err(Unreadable::Parameter {
        name: name.into_owned(),
        details: details.into(),
    })
}

/// Parses a neighbourhood.
pub(crate) fn neighbourhood(
    serial_number: SerialNumber,
    query: &str,
    rows_max: u32,
) -> Result<NeighbourhoodQuery, Unreadable> {
    let (mut depth, mut widgets_max) = (None, None);
    for parameter in query.split('&').filter(|each| !each.is_empty()) {
        let (name, value) = decoded(parameter)?;
        match &*name {
            "depth" => once(
                &mut depth,
                &name,
                bounded("depth", DEPTH_MIN, DEPTH_MAX, &value)?,
            )?,
            "widgets_max" => {
                let most = bounded("widgets_max", 1, rows_max, &value)?;
                once(&mut widgets_max, &name, most)?;
            }
            _ => {
                let details = "it is unknown: the parameters are depth and widgets_max".into();
                let name = name.into_owned();
                return Err(Unreadable::Parameter { name, details });
            }
        }
    }
    Ok(NeighbourhoodQuery {
        asker: Asker::default(),
        serial_number,
        depth: depth.unwrap_or(NEIGHBOURHOOD_DEPTH),
        widgets_max: widgets_max.unwrap_or(NEIGHBOURHOOD_WIDGETS_MAX.min(rows_max)),
    })
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Unreadable> {
    if place.replace(value).is_some() {
        return Err(Unreadable::Parameter {
            name: name.to_owned(),
            details: "it is given twice".into(),
        });
    }
    Ok(())
}

/// Returns the name and the value of a parameter, both decoded.
fn decoded(parameter: &str) -> Result<(Cow<'_, str>, Cow<'_, str>), Unreadable> {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let decode = |text| {
        plain(text).map_err(|details| Unreadable::Parameter {
            name: name.to_owned(),
            details: details.into(),
        })
    };
    Ok((decode(name)?, decode(value)?))
}

fn plain(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if !is_decodable(text) {
        return Err("a % in it is not followed by two hexadecimal digits");
    }
    let spaced: Cow<'_, str> = if text.contains('+') {
        text.replace('+', " ").into()
    } else {
        text.into()
    };
    let decoded = match percent_decode(spaced.as_bytes()).decode_utf8() {
        Ok(Cow::Borrowed(_)) => spaced,
        Ok(Cow::Owned(decoded)) => decoded.into(),
        Err(_) => return Err("it is not UTF-8, percent-encoded"),
    };
    if decoded.contains('\0') {
        return Err("it must not contain the character NUL");
    }
    Ok(decoded)
}

/// Parses a number as PostgreSQL's `bigint`. `range` says which numbers the parameter can be.
fn bigint(name: &str, given: &str, range: &str) -> Result<i64, Unreadable> {
    given.parse().map_err(|_| Unreadable::Value {
        kind: "bigint",
        given: given.to_owned(),
        details: Some(format!("{name} must be a whole number {range}")),
    })
}

fn number(name: &str, spelled: &str, given: &str) -> Result<u64, Unreadable> {
    let number = bigint(name, given, &format!("up to {}", i64::MAX))?;
    u64::try_from(number).map_err(|_| Unreadable::Range {
        details: format!("{spelled} should be greater than or equal to zero."),
        total: None,
    })
}

fn bounded(name: &'static str, least: u32, most: u32, given: &str) -> Result<u32, Unreadable> {
    let number = bigint(name, given, &format!("from {least} to {most}"))?;
    let within = u32::try_from(number).ok();
    within
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| Unreadable::Limit {
            name,
            least: least.into(),
            most: most.into(),
            given: given.to_owned(),
        })
}

/// Parses the order of a table: only one is available, ascending or descending.
fn direction(table: Table, given: &str) -> Result<Direction, Unreadable> {
    let mut text = Text::new("order", given);
    let mut order = Vec::new();
    loop {
        text.skip_spaces();
        let column = column(table, &text.name()?)?;
        let direction = if text.take(".desc") {
            Direction::Descending
        } else {
            text.take(".asc");
            Direction::Ascending
        };
        // This has no effect, because nothing is null.
        let _ = text.take(".nullsfirst") || text.take(".nullslast");
        order.push((column, direction));
        if !text.take(",") {
            break;
        }
    }
    if !text.rest().is_empty() {
        return Err(
            text.unexpected("\".asc\", \".desc\", \".nullsfirst\", \".nullslast\" or \",\"")
        );
    }
    let columns: Vec<_> = order.iter().map(|&(column, _)| column).collect();
    let direction = order[0].1;
    let is_one_way = order.iter().all(|each| each.1 == direction);
    // The first columns alone leave the order of the others open.
    if is_one_way && table.order().starts_with(&columns) {
        return Ok(direction);
    }
    let given = given.to_owned();
    Err(Unreadable::Order { table, given })
}

/// Parses the header `Range`, if it counts rows. Other units, such as bytes, have no meaning here
/// (RFC 9110, 14.2).
fn header_range(given: Option<&str>) -> Result<Option<Range>, Unreadable> {
    let Some((first, last)) = given.and_then(|given| given.trim().split_once('-')) else {
        return Ok(None);
    };
    let place = |text: &str| match text {
        "" => Ok(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<u64>().map(Some).map_err(|_| ())
        }
        _ => Err(()),
    };
    let (Ok(first), Ok(last)) = (place(first), place(last)) else {
        return Ok(None);
    };
    let offset = first.unwrap_or(0);
    let limit = match last {
        None => None,
        Some(last) => Some(
            last.checked_sub(offset)
                .ok_or_else(inverted)?
                .saturating_add(1),
        ),
    };
    Ok(Some(Range { offset, limit }))
}

fn inverted() -> Unreadable {
    Unreadable::Range {
        details:
            "The lower boundary must be lower than or equal to the upper boundary in the Range \
                  header."
                .into(),
        total: None,
    }
}

impl Range {
    /// Returns the intersection of the two ranges.
    fn within(self, other: Self) -> Result<Self, Unreadable> {
        let end = |range: Self| range.limit.map(|limit| range.offset.saturating_add(limit));
        let offset = self.offset.max(other.offset);
        let end = match (end(self), end(other)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let limit = match end {
            None => None,
            // A limit of 0 asks for no rows, which is valid.
            Some(_) if self.limit == Some(0) => Some(0),
            Some(end) if end <= offset => return Err(inverted()),
            Some(end) => Some(end - offset),
        };
        Ok(Self { offset, limit })
    }
}
