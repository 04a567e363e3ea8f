//! The API's document (OpenAPI 3.1), made from the code, and the page that shows it.
//!
//! The paths come from the operations, the schemas from the limits of the domain, and the errors
//! from [`Code`](crate::Code). A test sends every example and compares the answer with the one
//! shown.

mod examples;
mod headers;
mod lists;
mod page;
mod responses;
mod schemas;
mod security;
#[cfg(test)]
mod tests;

pub(crate) use page::{File, html};
pub(crate) use security::Security;

use crate::{SCHEMAS, Settings};
use examples::{CHANGES_PATH, Example, LOOKUP_PATH, Sent, State};
use hyper::body::Bytes;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, LicenseBuilder, ObjectBuilder,
    OpenApi, OpenApiBuilder, PathItem, PathsBuilder, RefOr, Required, Server, Tag, Type,
    example::{Example as OpenApiExample, ExampleBuilder},
    path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::{RequestBody, RequestBodyBuilder},
    tag::TagBuilder,
};
use widgets_registry::Operation;

const JSON: &str = "application/json";

/// Returns the document as JSON, for a service with these requirements.
pub(crate) fn json(settings: &Settings, security: Security) -> Bytes {
    match serde_json::to_vec(&open_api(settings, security)) {
        Ok(json) => json.into(),
        Err(error) => unreachable!("the document is JSON: {error}"),
    }
}

fn open_api(settings: &Settings, security: Security) -> OpenApi {
    let examples = examples::all(settings);
    let mut paths = PathsBuilder::new();
    for operation in Operation::ALL {
        let path = format!("/rpc/{operation}");
        let item = PathItem::new(HttpMethod::Post, rpc(operation, &path, &examples));
        paths = paths.path(path, item);
    }
    let reads = [
        (LOOKUP_PATH, lookup(&examples)),
        (CHANGES_PATH, changes(&examples)),
        ("/", root(&examples)),
        ("/live", live(security)),
        ("/ready", ready(security, &examples)),
        ("/metrics", metrics()),
        ("/backup", backup(&examples)),
    ];
    for (path, item) in lists::paths(settings, &examples) {
        paths = paths.path(path, item);
    }
    for (path, operation) in reads {
        paths = paths.path(path, PathItem::new(HttpMethod::Get, operation));
    }
    let mut components = ComponentsBuilder::new();
    for (name, schema) in schemas::all() {
        components = components.schema(name, schema);
    }
    for (status, mut response) in responses::errors(&of_path(None, &examples)) {
        headers::of_every_answer(&mut response);
        components = components.response(format!("Elsewhere{status}"), response);
    }
    for (name, header) in headers::shared() {
        components = components.header(name, header);
    }
    for (name, scheme) in security.schemes() {
        components = components.security_scheme(name, scheme);
    }
    let licence = LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE"));
    let info = InfoBuilder::new()
        .title("widgets")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(introduction(settings)))
        .license(Some(licence.build()));
    OpenApiBuilder::new()
        .info(info)
        .tags(Some([
            tag(
                "operations",
                "Change the registry. Each operation is applied as a whole or not at all.",
            ),
            tag("lookups", "Read the registry."),
            tag(
                "lists",
                "Query the registry: rows, pages, counts, neighbourhoods.",
            ),
            tag("changes", "What happened, when, and who did it."),
            tag("service", "This document, and probes."),
        ]))
        .paths(headers::of_paths(paths.build()))
        .components(Some(components.build()))
        // Relative to the document, because a proxy may serve it under a path prefix.
        .servers(Some([Server::new(".")]))
        .security(security.ways_in())
        .build()
}

fn tag(name: &str, description: &str) -> Tag {
    TagBuilder::new()
        .name(name)
        .description(Some(description))
        .build()
}

/// Returns the introduction, which applies to all paths.
fn introduction(settings: &Settings) -> String {
    format!(
        "Registers widgets and associates them port to port, with the wire format of PostgREST.\n\n\
         The service sends an answer only after the data behind it is on disk. Requests are JSON objects of at most \
         {} bytes. Errors are JSON whatever `Accept` says: the schema `Error` lists every code. Errors that \
         belong to none of the paths below (unknown paths, other methods) are in `components.responses`.",
        settings.body_bytes_max
    )
}

fn of_path<'a>(path: Option<&str>, examples: &'a [Example]) -> Vec<&'a Example> {
    let same = |example: &&Example| example.path.as_deref() == path;
    examples.iter().filter(same).collect()
}

fn rpc(operation: Operation, path: &str, examples: &[Example]) -> OperationBuilder {
    let (summary, description) = match operation {
        Operation::AddWidget => (
            "Registers a widget",
            "The serial number must not be taken. All slots are initially free.",
        ),
        Operation::RemoveWidget => (
            "Removes a widget",
            "Also removes its associations and frees its peers' slots.",
        ),
        Operation::AssociateWidgets => (
            "Associates two widgets",
            "Takes the first free slot of the port type on each widget. Two widgets may be associated \
             several times, but only once per port type.",
        ),
        Operation::RemoveAssociation => (
            "Removes an association",
            "Frees the slots at both ends. The two widgets may be given in either order.",
        ),
    };
    let examples = of_path(Some(path), examples);
    let mut described = OperationBuilder::new()
        .tag("operations")
        .operation_id(Some(operation.as_str()))
        .summary(Some(summary))
        .description(Some(description))
        .parameter(profile("Content-Profile"))
        .parameter(prefer())
        .parameter(idempotency_key())
        .request_body(Some(request_body(operation, &examples)))
        .response("204", responses::applied());
    for (status, response) in responses::errors(&examples) {
        described = described.response(status, response);
    }
    described
}

fn profile(name: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("The schema. All accepted values mean the same."))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(SCHEMAS)),
        ))
        .build()
}

fn prefer() -> Parameter {
    ParameterBuilder::new()
        .name("Prefer")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "`count=exact` puts the count in `Content-Range`; `handling=strict` refuses unknown preferences. \
             The other preferences of PostgREST are accepted and have no effect.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn read_after() -> Parameter {
    let position = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[0-9a-f]{16}-[0-9a-f]{8}-[0-9a-f]{16}$"));
    ParameterBuilder::new()
        .name("Read-After")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The `Position` of an earlier answer: only a store that has everything up to it answers this request. A \
             standby waits until it does; a primary already does. A position that this store will never reach is WG410.",
        ))
        .schema(Some(position))
        .build()
}

fn idempotency_key() -> Parameter {
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Makes the operation safe to repeat: the same key with the same operation and arguments gets the first \
             answer again, acceptance or refusal, and nothing is applied twice. A quoted string, or the text \
             without quotes; 1 to 255 bytes. Keys belong to the caller.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

/// Returns the request body, with an example for every answer that depends on the body alone.
fn request_body(operation: Operation, examples: &[&Example]) -> RequestBody {
    let examples = examples.iter().filter_map(|example| {
        let body = example.plain_body()?;
        let shown = shown(example, Some(body));
        Some((example.name, RefOr::T(shown)))
    });
    let content = ContentBuilder::new()
        .schema(Some(schemas::reference(schemas::body(operation))))
        .examples_from_iter(examples);
    RequestBodyBuilder::new()
        .content(JSON, content.build())
        .required(Some(Required::True))
        .build()
}

fn lookup(examples: &[Example]) -> OperationBuilder {
    let examples = of_path(Some(LOOKUP_PATH), examples);
    let serial_number = ParameterBuilder::new()
        .name("serial_number")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Percent-encoded UTF-8."))
        .schema(Some(schemas::reference("SerialNumber")));
    let mut described = OperationBuilder::new()
        .tag("lookups")
        .operation_id(Some("lookup"))
        .summary(Some("Shows a widget"))
        .description(Some(
            "Returns the widget with its slots in order and their peers. A lookup sees every operation that was \
             answered before it began.",
        ))
        .parameter(serial_number)
        .parameter(profile("Accept-Profile"))
        .parameter(read_after())
        .response("200", responses::widget(&examples));
    for (status, response) in responses::errors(&examples) {
        described = described.response(status, response);
    }
    described
}

fn changes(examples: &[Example]) -> OperationBuilder {
    let parameter = |name: &str, description: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
    };
    let mut described = OperationBuilder::new()
        .tag("changes")
        .operation_id(Some("changes"))
        .summary(Some("Lists what changed"))
        .description(Some(
            "Every accepted operation, in commit order, exactly once, and only once it is durable. `Accept` selects \
             a page of JSON, server-sent events, or an endless stream of JSON Lines.",
        ))
        .parameter(parameter(
            "after",
            "A position, or `now`. Without it, the changes begin with the oldest one that is kept.",
        ))
        .parameter(parameter(
            "limit",
            "The maximum number of changes on a page: 1 to 1,000. Not for streams.",
        ))
        .parameter(parameter(
            "wait_ms",
            "How long a page that would be empty waits for a change, up to 60,000; it may answer earlier. Not for \
             streams.",
        ))
        .parameter(parameter(
            "widget_sn",
            "`eq.SERIAL_NUMBER`: only changes to this widget or to one of its slots.",
        ))
        .parameter(parameter(
            "operation",
            "`eq.OPERATION` or `in.(OPERATION,…)`: only these operations.",
        ))
        .parameter(read_after())
        .response("200", responses::changes());
    for (status, response) in responses::errors(&of_path(Some(CHANGES_PATH), examples)) {
        described = described.response(status, response);
    }
    described
}

fn root(examples: &[Example]) -> OperationBuilder {
    let mut described = service(
        "document",
        "Returns this document or a page that shows it, depending on `Accept`",
    )
    .parameter(profile("Accept-Profile"))
    .response("200", responses::document());
    for (status, response) in responses::errors(&of_path(Some("/"), examples)) {
        described = described.response(status, response);
    }
    described
}

fn service(name: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new()
        .tag("service")
        .operation_id(Some(name))
        .summary(Some(summary))
}

fn live(security: Security) -> OperationBuilder {
    service("live", "Reports whether the process runs")
        .securities(Some(security.of_probes()))
        .response("200", responses::empty("It runs."))
}

fn ready(security: Security, examples: &[Example]) -> OperationBuilder {
    let mut described = service("ready", "Reports whether operations can be applied now")
        .securities(Some(security.of_probes()))
        .parameter(role())
        .response("200", responses::ready());
    for (status, response) in responses::errors(&of_path(Some("/ready"), examples)) {
        described = described.response(status, response);
    }
    described
}

/// Returns the parameter with the role that a probe looks for.
fn role() -> Parameter {
    let words = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["primary"]));
    ParameterBuilder::new()
        .name("role")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(
            "`primary`: only the primary, which takes operations, answers 200. For load balancers.",
        ))
        .schema(Some(words))
        .build()
}

fn metrics() -> OperationBuilder {
    service(
        "metrics",
        "Returns the metrics, in the text format of Prometheus",
    )
    .response("200", responses::metrics())
}

fn backup(examples: &[Example]) -> OperationBuilder {
    let mut described = service(
        "backup",
        "Returns the whole store as one stream, for `widgets backup`. Only one runs at a time",
    )
    .response("200", responses::backup());
    for (status, response) in responses::errors(&of_path(Some("/backup"), examples)) {
        described = described.response(status, response);
    }
    described
}

/// Returns an example for the document, with this value.
fn shown(example: &Example, value: Option<serde_json::Value>) -> OpenApiExample {
    let summary = match &example.answer {
        examples::Answered::Refused(error) => {
            let code = error.code();
            format!("{}: {}", code.as_str(), code.meaning())
        }
        _ => "Success.".to_owned(),
    };
    ExampleBuilder::new()
        .summary(summary)
        .description(example.conversation())
        .value(value)
        .build()
}

impl Example {
    /// Returns the body, if the answer depends on it.
    fn plain_body(&self) -> Option<serde_json::Value> {
        let Sent::Text(body) = self.body else {
            return None;
        };
        let alone = self.headers.is_empty() && self.path.as_ref() == Some(&self.uri);
        if !alone || matches!(self.given, State::Failing) {
            return None;
        }
        serde_json::from_str(body).ok()
    }

    /// Describes the request and the state before it in words.
    fn conversation(&self) -> String {
        let mut parts = Vec::new();
        match &self.given {
            State::Failing => parts.push("While the store is failing:".to_owned()),
            State::Guarded { anonymous: true } => {
                parts.push("If callers who do not identify themselves may only read:".to_owned());
            }
            State::Guarded { anonymous: false } => {
                parts.push("If every caller must authenticate:".to_owned());
            }
            State::Local => {
                parts.push("On loopback, if nobody is authenticated:".to_owned());
            }
            State::Sent(body) => parts.push(format!("After the same request with `{body}`:")),
            State::Asked => parts.push("A moment after the same request:".to_owned()),
            State::Slow => parts.push("If the query cannot finish in time:".to_owned()),
            State::Following => parts.push("On a standby:".to_owned()),
            State::Long => {
                parts.push("If the names are long, and only control characters:".to_owned());
            }
            State::Unfetched => {
                parts.push("While the keys for tokens have not been fetched yet:".to_owned());
            }
            State::After(operations) => parts.extend(
                operations
                    .iter()
                    .map(|(operation, body)| format!("After `POST /rpc/{operation}` `{body}`.")),
            ),
        }
        parts.push(format!("`{} {}`", self.method, self.uri));
        let headers = self.headers.iter();
        parts.extend(headers.map(|(name, value)| format!("`{name}: {value}`")));
        match self.body {
            Sent::Nothing => {}
            Sent::Text(body) => parts.push(format!("`{body}`")),
            Sent::TooLarge(body) => parts.push(format!("`{body}` and spaces past the limit")),
            Sent::Stalled(body) => parts.push(format!("`{body}`, then nothing more for too long")),
        }
        parts.join(" ")
    }
}
