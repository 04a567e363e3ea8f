//! The answers of each path, with their headers and examples.

use super::{
    JSON,
    examples::{Answered, Example},
    schemas, shown,
};
use std::collections::BTreeMap;
use utoipa::openapi::{
    ArrayBuilder, ContentBuilder, Header, HeaderBuilder, KnownFormat, ObjectBuilder, RefOr,
    Response, ResponseBuilder, Schema, SchemaFormat, Type, example::Example as OpenApiExample,
};

type Examples = Vec<(String, RefOr<OpenApiExample>)>;

pub(super) fn header(
    kind: Type,
    description: &str,
    example: impl Into<serde_json::Value>,
) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(kind)))
        .description(Some(description))
        .example(Some(example.into()))
        .build()
}

/// Returns 204, the answer to every operation that was applied.
pub(super) fn applied() -> Response {
    ResponseBuilder::new()
        .description("The operation is applied and durable. There is no body.")
        .header(
            "Content-Range",
            header(
                Type::String,
                "`0-0/1` if the count was requested, else `0-0/*`.",
                "0-0/*",
            ),
        )
        .build()
}

/// Returns 200 for a lookup.
pub(super) fn widget(examples: &[&Example]) -> Response {
    let found = examples.iter().filter_map(|example| match &example.answer {
        Answered::Widget(body) => {
            let body = serde_json::from_str(body).ok();
            Some((example.name, RefOr::T(shown(example, body))))
        }
        _ => None,
    });
    let content = ContentBuilder::new()
        .schema(Some(schemas::reference("Widget")))
        .examples_from_iter(found);
    ResponseBuilder::new()
        .description("The widget.")
        .content(JSON, content.build())
        .build()
}

/// Returns 200 for the changes.
pub(super) fn changes() -> Response {
    let change = || {
        ObjectBuilder::new().schema_type(Type::Object).description(Some(
            "`position`, `at`, `by`, `operation`, and depending on the operation: `widget_sn`, `widget_name`, `slots`; \
             or `widget_sn`, `freed`; or `widget1_sn`, `slot1`, `widget2_sn`, `slot2`, `port`. Slots count from 1.",
        ))
    };
    let page = ArrayBuilder::new().items(RefOr::T(Schema::from(change())));
    let page = ContentBuilder::new().schema(Some(page));
    let text =
        || ContentBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String)));
    ResponseBuilder::new()
        .description("The changes. A stream is endless.")
        .header(
            "Next-Position",
            header(
                Type::String,
                "Where the next page begins, even after an empty page.",
                "6f1c2d3e4f506172-00000001-0000000000000029",
            ),
        )
        .header(
            "X-Accel-Buffering",
            header(Type::String, "On streams: tells nginx not to buffer.", "no"),
        )
        .content(JSON, page.build())
        .content("text/event-stream", text().build())
        .content("application/x-ndjson", text().build())
        .build()
}

/// Returns 200 for the document's own path.
pub(super) fn document() -> Response {
    let any = ContentBuilder::new().schema(Some(ObjectBuilder::new()));
    let text = ContentBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String)));
    ResponseBuilder::new()
        .description("The document or the page.")
        .header(
            "Content-Security-Policy",
            header(
                Type::String,
                "On the page: what it may load.",
                "default-src 'none'",
            ),
        )
        .header(
            "Referrer-Policy",
            header(
                Type::String,
                "On the page: how much of its address other sites learn.",
                "no-referrer",
            ),
        )
        .header(
            "Cross-Origin-Opener-Policy",
            header(
                Type::String,
                "On the page: which other pages may get a handle on its window.",
                "same-origin",
            ),
        )
        .content("application/openapi+json", any.build())
        .content("text/html", text.build())
        .build()
}

/// Returns 200 for the metrics.
pub(super) fn metrics() -> Response {
    let text = ContentBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String)));
    ResponseBuilder::new()
        .description("Counters, gauges and histograms.")
        .content("text/plain; version=0.0.4", text.build())
        .build()
}

/// Returns 200 for a backup.
pub(super) fn backup() -> Response {
    let stream = ContentBuilder::new().schema(Some(
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary))),
    ));
    ResponseBuilder::new()
        .description("Frames, the last of which says that the backup is complete.")
        .content("application/octet-stream", stream.build())
        .build()
}

/// Returns an answer without a body.
pub(super) fn empty(description: &str) -> Response {
    ResponseBuilder::new().description(description).build()
}

/// Returns 200 for a probe. A registry on a single machine sends no body.
pub(super) fn ready() -> Response {
    ResponseBuilder::new()
        .description(
            "Operations can be applied, even if there are too many of them at the moment. A standby follows its primary. \
             There is a body only if the registry is distributed: it says which promises are weaker for that reason.",
        )
        .content(
            JSON,
            ContentBuilder::new()
                .schema(Some(schemas::reference("Distributed")))
                .build(),
        )
        .build()
}

/// Returns the errors among the examples, by status.
pub(super) fn errors(examples: &[&Example]) -> BTreeMap<String, Response> {
    let mut by_status: BTreeMap<u16, Examples> = BTreeMap::new();
    for example in examples {
        let Answered::Refused(error) = &example.answer else {
            continue;
        };
        let body = serde_json::to_value(error.body(false)).ok();
        let shown = RefOr::T(shown(example, body));
        let status = error.code().status().as_u16();
        let examples = by_status.entry(status).or_default();
        examples.push((example.name.to_owned(), shown));
    }
    let response = |(status, examples): (u16, Examples)| {
        let content = ContentBuilder::new()
            .schema(Some(schemas::reference("Error")))
            .examples_from_iter(examples);
        let status_text = header(
            Type::String,
            "The code, for clients that see no body.",
            "PostgREST; error=WG001",
        );
        let mut response = ResponseBuilder::new()
            .description(description(status))
            .content(JSON, content.build())
            .header("Proxy-Status", status_text);
        if matches!(status, 409 | 429 | 503) {
            let when = "Only with WG409, WG429, WG503 and WG506: after how many seconds to retry.";
            response = response.header("Retry-After", header(Type::Integer, when, 1));
        }
        if status == 401 {
            let challenge =
                "Says that a token is needed, and what is wrong with the one that was sent.";
            response = response.header(
                "WWW-Authenticate",
                header(Type::String, challenge, "Bearer"),
            );
        }
        if status == 416 {
            let total = "How many rows there are.";
            response = response.header("Content-Range", header(Type::String, total, "*/0"));
        }
        if status == 405 {
            let allowed = "The methods of this path.";
            response = response.header("Allow", header(Type::String, allowed, "OPTIONS,POST"));
        }
        if status == 415 {
            let taken = "The accepted encodings of the body.";
            response = response.header("Accept-Encoding", header(Type::String, taken, "identity"));
        }
        (status.to_string(), response.build())
    };
    by_status.into_iter().map(response).collect()
}

const fn description(status: u16) -> &'static str {
    match status {
        400 => "The request or a value in it is invalid. Nothing was applied.",
        401 => "The caller must authenticate and did not succeed. Nothing was applied.",
        403 => "The caller may not do this. Nothing was applied.",
        404 => "The request names something that does not exist. Nothing was applied.",
        405 => "The path does not have this method.",
        406 => "The answer is not available in the requested form. Nothing was applied.",
        408 => "The body took too long to arrive. Nothing was applied.",
        409 => "The request conflicts with the current state. Nothing was applied.",
        410 => {
            "The changes after the position are no longer kept, or it belongs to another store or history."
        }
        413 => "The body is too long. Nothing was applied.",
        415 => "The body is compressed. Nothing was applied.",
        416 => "The range selects no rows.",
        417 => "The service does not support this `Expect`. Nothing was applied.",
        421 => "The service does not answer to this name.",
        500 => "The query took longer than the service allows.",
        429 => "This client sends too many requests. Nothing was applied.",
        _ => "The service cannot do this now. The code says what became of the operation.",
    }
}
