//! The routes: operations, lookups and probes.

use crate::{
    arguments,
    error::{Error, Malformed},
};
use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderValue, Method, Response, StatusCode, header},
    response::IntoResponse,
    routing::{any, get},
};
use serde_json::json;
use widgets_registry::{SerialNumber, Store};

/// A body may have at most so many bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Every route over this store.
pub fn router<S: Store>(store: S) -> Router {
    Router::new()
        .route("/rpc/{function}", any(operation::<S>))
        .route("/widgets/{serial_number}", get(lookup::<S>))
        .route("/live", get(async || StatusCode::OK))
        .route("/ready", get(ready::<S>))
        .fallback(async || Error::from(Malformed::Path))
        .with_state(store)
}

async fn operation<S: Store>(
    State(store): State<S>,
    Path(function): Path<String>,
    request: Request,
) -> Result<Response<Body>, Error> {
    if request.method() != Method::POST {
        return Err(Malformed::Method(request.method().to_string()).into());
    }
    if let Some(value) = request.headers().get(header::CONTENT_TYPE) {
        let given = value.to_str().unwrap_or_default();
        let media_type = given.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            let message = format!("Content-Type not acceptable: {given}");
            return Err(Malformed::Body(message).into());
        }
    }
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX)
        .await
        .map_err(|_| Malformed::BodyTooLarge {
            limit: BODY_BYTES_MAX,
        })?;
    store.submit(arguments::command(&function, &body)?).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(header::CONTENT_RANGE, HeaderValue::from_static("0-0/*"));
    Ok(response)
}

async fn lookup<S: Store>(
    State(store): State<S>,
    Path(serial_number): Path<String>,
) -> Result<Response<Body>, Error> {
    let serial_number = SerialNumber::new("serial_number", serial_number)?;
    let Some(widget) = store.lookup(serial_number.clone()).await? else {
        return Err(widgets_registry::Refusal::WidgetMissing { serial_number }.into());
    };
    let slots = widget
        .slots
        .iter()
        .map(|slot| json!({ "port": slot.port.as_str(), "peer": slot.peer.as_deref() }));
    let body = json!({
        "serial_number": &*widget.serial_number,
        "name": &*widget.name,
        "slots": slots.collect::<Vec<_>>(),
    });
    let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    Ok((json, body.to_string()).into_response())
}

async fn ready<S: Store>(State(store): State<S>) -> Result<StatusCode, Error> {
    store.ready().await?;
    Ok(StatusCode::OK)
}
