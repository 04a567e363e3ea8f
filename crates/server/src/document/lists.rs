//! Lists and neighbourhoods in the document: paths, parameters, answers and examples.

use super::{
    JSON,
    examples::{
        Answered, E_F_ASSOCIATED, E_F_EXIST, Example, NOTHING, Sent, State, after_positions,
        faults, named,
    },
    profile, read_after, responses, schemas, shown,
};
use crate::{
    Settings,
    error::{Error, Malformed},
    reading::{OPERATORS, Unreadable},
};
use utoipa::openapi::{
    Content, ContentBuilder, HttpMethod, ObjectBuilder, PathItem, RefOr, Required, Response,
    ResponseBuilder, Type,
    path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
};
use widgets_registry::{
    Refusal,
    query::{DEPTH_MAX, DEPTH_MIN, Table},
};

const CSV: &str = "text/csv";
const OBJECT: &str = "application/vnd.pgrst.object+json";
pub(super) const NEIGHBOURHOOD_PATH: &str = "/widgets/{serial_number}/neighbourhood";

const fn path(table: Table) -> &'static str {
    match table {
        Table::Widgets => "/widgets",
        Table::Slots => "/slots",
    }
}

/// Returns a read of this path in this state, with this answer.
fn read(
    name: &'static str,
    path: &str,
    given: State,
    uri: impl Into<String>,
    answer: Answered,
) -> Example {
    Example {
        name,
        path: Some(path.into()),
        given,
        method: "GET",
        uri: uri.into(),
        headers: &[],
        body: Sent::Nothing,
        answer,
    }
}

const fn rows(status: u16, media_type: &'static str, body: &'static str) -> Answered {
    Answered::Rows {
        status,
        media_type,
        body,
    }
}

pub(super) fn examples(settings: &Settings) -> Vec<Example> {
    let mut examples = widgets();
    examples.extend(slots());
    for table in Table::ALL {
        examples.extend(refused(table, settings));
    }
    examples.extend(neighbourhood(settings));
    examples
}

fn widgets() -> Vec<Example> {
    let page = r#"[{"serial_number":"E","name":"A","slots":[{"port":"P","peer":"F"},{"port":"R","peer":null},{"port":"R","peer":null}]},{"serial_number":"F","name":"B","slots":[{"port":"P","peer":"E"}]}]"#;
    let widgets = |name, uri: &str, answer| read(name, "/widgets", E_F_ASSOCIATED, uri, answer);
    vec![
        widgets(
            "200 page",
            "/widgets?serial_number=gt.D&limit=100",
            rows(200, JSON, page),
        ),
        widgets(
            "200 free slot",
            "/widgets?select=serial_number&slots=cs.%5B%7B%22port%22:%22R%22,%22peer%22:null%7D%5D",
            rows(200, JSON, r#"[{"serial_number":"E"}]"#),
        ),
        widgets(
            "200 neighbours",
            "/widgets?select=serial_number,name&slots=cs.%5B%7B%22peer%22:%22E%22%7D%5D",
            rows(200, JSON, r#"[{"serial_number":"F","name":"B"}]"#),
        ),
        Example {
            headers: &[("Accept", CSV)],
            ..widgets(
                "200 CSV",
                "/widgets?select=serial_number,called:name&order=serial_number.desc",
                rows(200, CSV, "serial_number,called\nF,B\nE,A"),
            )
        },
        Example {
            headers: &[("Accept", OBJECT)],
            ..widgets(
                "200 object",
                "/widgets?select=name&serial_number=eq.E",
                rows(200, OBJECT, r#"{"name":"A"}"#),
            )
        },
        Example {
            headers: &[("Prefer", "count=exact")],
            ..widgets(
                "206 count",
                "/widgets?select=serial_number&or=(name.eq.A,name.like.B*)&limit=1",
                rows(206, JSON, r#"[{"serial_number":"E"}]"#),
            )
        },
    ]
}

fn slots() -> Vec<Example> {
    let slots = |name, uri: &str, answer| read(name, "/slots", E_F_ASSOCIATED, uri, answer);
    vec![
        slots(
            "200 free",
            "/slots?port=eq.R&peer_sn=is.null&select=widget_sn,ordinal",
            rows(
                200,
                JSON,
                r#"[{"widget_sn":"E","ordinal":2},{"widget_sn":"E","ordinal":3}]"#,
            ),
        ),
        slots(
            "200 of one widget",
            "/slots?widget_sn=eq.F",
            rows(
                200,
                JSON,
                r#"[{"widget_sn":"F","ordinal":1,"port":"P","peer_sn":"E"}]"#,
            ),
        ),
    ]
}

/// Returns a refused read of this path.
fn refused_at(table: Table, name: &'static str, query: &str, error: Error) -> Example {
    let path = path(table);
    let uri = format!("{path}?{query}");
    read(name, path, NOTHING, uri, Answered::Refused(error))
}

/// Requests that are refused because they are malformed.
fn unreadable(table: Table) -> Vec<Example> {
    let refused =
        |name, query: &str, error: Unreadable| refused_at(table, name, query, error.into());
    let serial_number = table.order()[0].as_str();
    let unordered = match table {
        Table::Widgets => "name",
        Table::Slots => "port",
    };
    vec![
        refused(
            "PGRST100",
            &format!("{serial_number}=is_like.x"),
            Unreadable::Syntax {
                kind: "filter",
                given: "is_like.x".into(),
                column: 1,
                details: format!("unexpected \"is_like\" expecting {OPERATORS}"),
            },
        ),
        refused(
            "42703",
            "colour=eq.red",
            Unreadable::Column {
                table,
                name: "colour".into(),
            },
        ),
        refused(
            "22P02",
            "limit=many",
            Unreadable::Value {
                kind: "bigint",
                given: "many".into(),
                details: Some(format!("limit must be a whole number up to {}", i64::MAX)),
            },
        ),
        refused(
            "PGRST200",
            "select=*,widgets(*)",
            Unreadable::Embedding {
                table,
                name: "widgets".into(),
            },
        ),
        refused(
            "WG010",
            &format!("order={unordered}"),
            Unreadable::Order {
                table,
                given: unordered.into(),
            },
        ),
        Example {
            headers: &[("Prefer", "count=exact")],
            ..refused(
                "PGRST103",
                &format!("{serial_number}=eq.X&offset=7"),
                Unreadable::Range {
                    details: "An offset of 7 was requested, but there are only 0 rows.".into(),
                    total: Some(0),
                },
            )
        },
        Example {
            headers: &[("Accept", OBJECT)],
            ..refused(
                "PGRST116",
                &format!("{serial_number}=eq.X"),
                Unreadable::NotSingular { rows: 0 },
            )
        },
    ]
}

fn refused(table: Table, settings: &Settings) -> Vec<Example> {
    let with = |name, headers, error: Error| Example {
        headers,
        ..refused_at(table, name, "", error)
    };
    let mut examples = unreadable(table);
    examples.extend([
        with(
            "PGRST106",
            &[("Accept-Profile", "api")],
            Malformed::Schema("api".into()).into(),
        ),
        with(
            "PGRST107",
            &[("Accept", "text/html")],
            Malformed::MediaType("text/html".into()).into(),
        ),
        with(
            "PGRST122",
            &[("Prefer", "handling=strict, colour=red")],
            Malformed::Preferences(vec!["colour=red".into()]).into(),
        ),
        Example {
            given: State::Slow,
            ..refused_at(
                table,
                "57014",
                &format!("{}=like.*x*", table.order()[0].as_str()),
                Error::ReadTimeout {
                    timeout: settings.read_timeout,
                },
            )
        },
    ]);
    if table == Table::Widgets {
        let bytes_max = settings.answer_bytes_max;
        examples.push(Example {
            given: State::Long,
            ..refused_at(
                table,
                "WG011",
                "limit=1000",
                Unreadable::TooLong { bytes_max }.into(),
            )
        });
    }
    examples.extend(faults().map(|(name, fault)| Example {
        given: State::Failing,
        ..refused_at(table, name, "", fault.into())
    }));
    examples.extend(after_positions(settings, path(table), path(table)));
    examples
}

fn neighbourhood(settings: &Settings) -> Vec<Example> {
    let near = |name, given, uri: &str, answer| read(name, NEIGHBOURHOOD_PATH, given, uri, answer);
    let refused = |name, uri: &str, error: Error| {
        let answer = Answered::Refused(error);
        near(name, E_F_EXIST, uri, answer)
    };
    let Some([serial_number]) = named(["X"]) else {
        unreachable!("it is within its limits")
    };
    let shown = r#"{"widgets":[{"serial_number":"E","name":"A","slots":[{"port":"P","peer":"F"},{"port":"R","peer":null},{"port":"R","peer":null}]},{"serial_number":"F","name":"B","slots":[{"port":"P","peer":"E"}]}],"associations":[{"widget1_sn":"E","widget2_sn":"F","port":"P"}],"truncated":false}"#;
    let mut examples = vec![
        near(
            "200",
            E_F_ASSOCIATED,
            "/widgets/E/neighbourhood?depth=2&widgets_max=500",
            rows(200, JSON, shown),
        ),
        refused(
            "WG001",
            "/widgets/X/neighbourhood",
            Refusal::WidgetMissing { serial_number }.into(),
        ),
        refused(
            "WG007",
            "/widgets/E/neighbourhood?depth=11",
            Unreadable::Limit {
                name: "depth",
                least: DEPTH_MIN.into(),
                most: DEPTH_MAX.into(),
                given: "11".into(),
            }
            .into(),
        ),
        refused(
            "PGRST100",
            "/widgets/E/neighbourhood?width=1",
            Unreadable::Parameter {
                name: "width".into(),
                details: "it is unknown: the parameters are depth and widgets_max".into(),
            }
            .into(),
        ),
        refused(
            "22P02",
            "/widgets/E/neighbourhood?depth=far",
            Unreadable::Value {
                kind: "bigint",
                given: "far".into(),
                details: Some(format!(
                    "depth must be a whole number from {DEPTH_MIN} to {DEPTH_MAX}"
                )),
            }
            .into(),
        ),
        Example {
            headers: &[("Accept", "text/html")],
            ..refused(
                "PGRST107",
                "/widgets/E/neighbourhood",
                Malformed::MediaType("text/html".into()).into(),
            )
        },
        Example {
            given: State::Slow,
            ..refused(
                "57014",
                "/widgets/E/neighbourhood",
                Error::ReadTimeout {
                    timeout: settings.read_timeout,
                },
            )
        },
    ];
    examples.extend(faults().map(|(name, fault)| Example {
        given: State::Failing,
        ..refused(name, "/widgets/E/neighbourhood", fault.into())
    }));
    let uri = "/widgets/E/neighbourhood";
    examples.extend(after_positions(settings, NEIGHBOURHOOD_PATH, uri));
    examples
}

/// Returns the paths with their parameters and answers.
pub(super) fn paths(settings: &Settings, all: &[Example]) -> Vec<(&'static str, PathItem)> {
    let mut paths = Vec::new();
    for table in Table::ALL {
        let operation = list(table, settings, &super::of_path(Some(path(table)), all));
        paths.push((path(table), PathItem::new(HttpMethod::Get, operation)));
    }
    let near = near(settings, &super::of_path(Some(NEIGHBOURHOOD_PATH), all));
    paths.push((NEIGHBOURHOOD_PATH, PathItem::new(HttpMethod::Get, near)));
    paths
}

fn parameter(name: &str, place: ParameterIn, kind: Type, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(kind)))
        .build()
}

fn list(table: Table, settings: &Settings, examples: &[&Example]) -> OperationBuilder {
    let query =
        |name, kind, description: &str| parameter(name, ParameterIn::Query, kind, description);
    let columns: Vec<&str> = table.columns().iter().map(|each| each.as_str()).collect();
    let order: Vec<&str> = table.order().iter().map(|each| each.as_str()).collect();
    let (columns, order) = (columns.join(", "), order.join(","));
    let (name, summary) = match table {
        Table::Widgets => ("list_widgets", "Lists widgets"),
        Table::Slots => ("list_slots", "Lists slots"),
    };
    let mut described = OperationBuilder::new()
        .tag("lists")
        .operation_id(Some(name))
        .summary(Some(summary))
        .description(Some(format!(
            "Uses PostgREST's dialect. All rows come from one snapshot, taken after the request \
             began. A page has at most {} rows; the next one begins after the last row \
             (`{}=gt.LAST`), which costs the same at any depth.",
            settings.rows_max,
            table.order()[0].as_str()
        )));
    for &column in table.columns() {
        let operators = match column.as_str() {
            "slots" => "`cs` and `not.cs` with the slots that must be contained, as JSON",
            _ => "`eq neq gt gte lt lte like ilike in is`, each optionally preceded by `not.`",
        };
        described = described.parameter(query(column.as_str(), Type::String, operators));
    }
    described = described
        .parameter(query(
            "select",
            Type::String,
            &format!("`*`, or some of {columns}, each optionally as `alias:column`."),
        ))
        .parameter(query(
            "and",
            Type::String,
            "`(filter,filter,…)`: all of them must match.",
        ))
        .parameter(query(
            "or",
            Type::String,
            "`(filter,filter,…)`: at least one of them must match.",
        ))
        .parameter(query(
            "order",
            Type::String,
            &format!(
                "`{order}`, with `.asc` (the default) or `.desc`. No other order is available."
            ),
        ))
        .parameter(query("limit", Type::Integer, "The maximum number of rows."))
        .parameter(query(
            "offset",
            Type::Integer,
            "The number of rows to skip.",
        ))
        .parameter(parameter(
            "Range",
            ParameterIn::Header,
            Type::String,
            "`limit` and `offset` as a range, such as `0-9`.",
        ))
        .parameter(parameter(
            "Prefer",
            ParameterIn::Header,
            Type::String,
            "`count=exact` puts the number of all matching rows in `Content-Range`.",
        ))
        .parameter(profile("Accept-Profile"))
        .parameter(read_after());
    for status in [200, 206] {
        if let Some(response) = response(status, examples) {
            described = described.response(status.to_string(), response);
        }
    }
    for (status, response) in responses::errors(examples) {
        described = described.response(status, response);
    }
    described
}

fn near(settings: &Settings, examples: &[&Example]) -> OperationBuilder {
    let serial_number = ParameterBuilder::new()
        .name("serial_number")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Percent-encoded UTF-8."))
        .schema(Some(schemas::reference("SerialNumber")));
    let query =
        |name, description: &str| parameter(name, ParameterIn::Query, Type::Integer, description);
    let mut described = OperationBuilder::new()
        .tag("lists")
        .operation_id(Some("neighbourhood"))
        .summary(Some("Shows the neighbourhood of a widget"))
        .description(Some(
            "Returns the widgets within `depth` associations, nearest first, those at the same distance \
             sorted by serial number. Also returns the associations between them, each once, with the \
             lesser serial number first. Everything comes from one snapshot.",
        ))
        .parameter(serial_number)
        .parameter(query(
            "depth",
            &format!("The maximum distance in associations: {DEPTH_MIN} to {DEPTH_MAX}, default 1."),
        ))
        .parameter(query(
            "widgets_max",
            &format!("The maximum number of widgets, up to {}.", settings.rows_max),
        ))
        .parameter(profile("Accept-Profile"))
        .parameter(read_after());
    if let Some(response) = response(200, examples) {
        described = described.response("200", response);
    }
    for (status, response) in responses::errors(examples) {
        described = described.response(status, response);
    }
    described
}

/// Returns the answers with this status, in every media type that an example has.
fn response(status: u16, examples: &[&Example]) -> Option<Response> {
    let mut response = ResponseBuilder::new().description(match status {
        206 => "Some of the rows: there are more.",
        _ => "Rows.",
    });
    let mut any = false;
    for media_type in [JSON, CSV, OBJECT] {
        let of_type = examples.iter().filter_map(|example| match example.answer {
            Answered::Rows {
                status: each,
                media_type: kind,
                body,
            } if each == status && kind == media_type => {
                let value = serde_json::from_str(body).unwrap_or_else(|_| body.into());
                Some((example.name, RefOr::T(shown(example, Some(value)))))
            }
            _ => None,
        });
        let of_type: Vec<_> = of_type.collect();
        if !of_type.is_empty() {
            any = true;
            let content = content(media_type).examples_from_iter(of_type);
            response = response.content(media_type, Content::from(content));
        }
    }
    response = response.header(
        "Content-Range",
        responses::header(
            Type::String,
            "The first and the last row, and the total if it was requested.",
            "0-24/3573458",
        ),
    );
    any.then(|| response.build())
}

fn content(media_type: &str) -> ContentBuilder {
    let content = ContentBuilder::new();
    let object = ObjectBuilder::new();
    match media_type {
        CSV => content.schema(Some(object.schema_type(Type::String))),
        OBJECT => content.schema(Some(object)),
        _ => content.schema(None::<RefOr<utoipa::openapi::Schema>>),
    }
}
