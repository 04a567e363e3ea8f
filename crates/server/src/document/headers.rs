//! Headers that answers of many paths share: each is defined once among the components.

use super::responses::header;
use utoipa::openapi::{Header, PathItem, Paths, Ref, RefOr, Response, Type};

const REQUEST_ID: &str = "X-Request-Id";
const CACHE_CONTROL: &str = "Cache-Control";
const POSITION: &str = "Position";
const REPLAYED: &str = "Idempotency-Replayed";
const VARY: &str = "Vary";
const PREFERENCE_APPLIED: &str = "Preference-Applied";

/// Returns them by their names.
pub(super) fn shared() -> [(&'static str, Header); 6] {
    [
        (
            REQUEST_ID,
            header(
                Type::String,
                "The request's own, if it had one of 1 to 128 visible ASCII characters; otherwise a new one. It also \
                 appears in the log.",
                "0f8b1d6a5c3e4f72",
            ),
        ),
        (
            CACHE_CONTROL,
            header(
                Type::String,
                "`no-store` on answers with content and on probes, `no-cache` on pages and on this document; otherwise absent.",
                "no-store",
            ),
        ),
        (
            POSITION,
            header(
                Type::String,
                "The position in the changes after everything that this answer rests on. Absent if the store was not \
                 asked, or if it does not know the end of its changes or keeps none.",
                "6f1c2d3e4f506172-00000001-0000000000000029",
            ),
        ),
        (
            REPLAYED,
            header(
                Type::String,
                "`true` if this repeats the answer to an earlier request with the same key; otherwise absent.",
                "true",
            ),
        ),
        (
            VARY,
            header(
                Type::String,
                "The request headers that the answer depends on.",
                "Accept, Prefer, Range",
            ),
        ),
        (
            PREFERENCE_APPLIED,
            header(
                Type::String,
                "The preferences that were applied; absent if none was.",
                "count=exact",
            ),
        ),
    ]
}

/// Adds the headers that every answer has.
pub(super) fn of_every_answer(response: &mut Response) {
    add(response, REQUEST_ID);
    add(response, CACHE_CONTROL);
}

/// Adds the headers that the answers of each path have.
pub(super) fn of_paths(mut paths: Paths) -> Paths {
    for (path, item) in &mut paths.paths {
        let asks_store = !matches!(path.as_str(), "/" | "/live" | "/ready" | "/metrics");
        let is_negotiated = asks_store && path != "/changes";
        for (status, response) in responses(item) {
            of_every_answer(response);
            if asks_store {
                add(response, POSITION);
            }
            // Outcomes of the rules are remembered.
            if path.starts_with("/rpc/") && matches!(status, "204" | "400" | "404" | "409") {
                add(response, REPLAYED);
            }
            if status.starts_with('2') && (is_negotiated || path == "/") {
                add(response, VARY);
            }
            if status.starts_with('2') && is_negotiated {
                add(response, PREFERENCE_APPLIED);
            }
        }
    }
    paths
}

fn responses(item: &mut PathItem) -> impl Iterator<Item = (&str, &mut Response)> {
    let operations = [&mut item.get, &mut item.head, &mut item.post];
    let operations = operations.into_iter().flatten();
    let all = operations.flat_map(|operation| &mut operation.responses.responses);
    all.filter_map(|(status, response)| match response {
        RefOr::T(response) => Some((status.as_str(), response)),
        RefOr::Ref(_) => None,
    })
}

fn add(response: &mut Response, name: &str) {
    let reference = Ref::new(format!("#/components/headers/{name}"));
    response
        .headers
        .insert(name.to_owned(), RefOr::Ref(reference));
}
