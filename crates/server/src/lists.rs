//! Lists and neighbourhoods: from a request's head to the query for the store, and from its result
//! to the answer.

use crate::{
    Settings,
    api::Answer,
    error::Error,
    making::Pace,
    negotiation::{self, Preferences},
    reading::{self, Format, Selected, Unreadable},
    responses::{PREFERENCE_APPLIED, VARY, of_type},
};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};
use widgets_registry::{
    SerialNumber,
    query::{List, Neighbourhood, NeighbourhoodQuery, Page, Table},
};

/// A parsed list, and how it is to be answered.
pub(crate) struct WantedList {
    pub(crate) list: List,
    selected: Vec<Selected>,
    format: Format,
    preferences: Preferences,
}

/// Parses the head of a request for a list.
pub(crate) fn read_list(
    table: Table,
    head: &Parts,
    settings: &Settings,
) -> Result<WantedList, Error> {
    let preferences = Preferences::from_headers(&head.headers);
    let range = head.headers.get(header::RANGE).map(negotiation::text);
    let wanted = reading::list(
        table,
        head.uri.query().unwrap_or_default(),
        range.as_deref(),
        preferences.counts(),
        settings.rows_max,
    )?;
    let format = Format::of(negotiation::media_type(
        &head.headers,
        &Format::MEDIA_TYPES,
    )?);
    preferences.check_reading()?;
    Ok(WantedList {
        list: wanted.list,
        selected: wanted.selected,
        format,
        preferences,
    })
}

/// Parses the head of a request for a neighbourhood.
pub(crate) fn read_neighbourhood(
    serial_number: &str,
    head: &Parts,
    settings: &Settings,
) -> Result<NeighbourhoodQuery, Error> {
    let serial_number = SerialNumber::new("serial_number", serial_number)?;
    let query = head.uri.query().unwrap_or_default();
    let query = reading::neighbourhood(serial_number, query, settings.rows_max)?;
    negotiation::media_type(&head.headers, &["application/json"])?;
    Ok(query)
}

impl WantedList {
    /// Returns the answer with this page.
    pub(crate) async fn answer(&self, shown: &Page, pace: Pace) -> Answer {
        let (offset, rows) = (self.list.offset, shown.rows.len() as u64);
        if let Some(total) = shown.total
            && offset > total
        {
            return Err(Unreadable::Range {
                details: format!(
                    "An offset of {offset} was requested, but there are only {total} rows."
                ),
                total: Some(total),
            }
            .into());
        }
        let body = reading::rows(&shown.rows, &self.selected, self.format, pace).await?;
        let content_type = HeaderValue::from_static(self.format.content_type());
        let mut response = of_type(content_type, body.into());
        if shown.total.is_some_and(|total| rows < total) {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        let headers = response.headers_mut();
        let total = shown.total.map_or("*".into(), |total| total.to_string());
        let range = match rows.checked_sub(1) {
            Some(last) => format!("{offset}-{}/{total}", offset.saturating_add(last)),
            None => format!("*/{total}"),
        };
        if let Ok(range) = HeaderValue::try_from(range) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        headers.insert(header::VARY, VARY);
        if let Some(applied) = self.preferences.applied() {
            headers.insert(PREFERENCE_APPLIED, applied);
        }
        Ok(response)
    }
}

/// Returns the answer with this neighbourhood.
pub(crate) async fn neighbourhood_response(shown: &Neighbourhood, pace: Pace) -> Answer {
    let body = reading::neighbourhood_body(shown, pace)
        .await
        .map_err(Unreadable::from)?;
    let content_type = HeaderValue::from_static(Format::Json.content_type());
    let mut response = of_type(content_type, body.into());
    let vary = HeaderValue::from_static("Accept");
    response.headers_mut().insert(header::VARY, vary);
    Ok(response)
}
