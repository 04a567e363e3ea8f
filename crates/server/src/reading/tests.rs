//! Every query is either parsed or refused.

use super::{Format, Unreadable, list, neighbourhood, parameters::Wanted, rows};
use crate::making::Pace;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use widgets_registry::{
    Name, Ordinal, Port, SerialNumber, Slot, Widget,
    query::{
        Column, Comparison, Contained, Direction, Filter, Pattern, Rows, SlotPattern, SlotRow,
        Table, Test,
    },
};

const ROWS_MAX: u32 = 1000;

fn widgets(query: &str) -> Result<Wanted, Unreadable> {
    list(Table::Widgets, query, None, false, ROWS_MAX)
}

fn slots(query: &str) -> Result<Wanted, Unreadable> {
    list(Table::Slots, query, None, false, ROWS_MAX)
}

fn filter(query: &str) -> Filter {
    let wanted = widgets(query);
    wanted
        .unwrap_or_else(|error| panic!("{query}: {error:?}"))
        .list
        .filter
}

fn refused(query: &str) -> (&'static str, String, String) {
    let error = match widgets(query) {
        Ok(wanted) => panic!("{query} is taken as {wanted:?}"),
        Err(error) => error,
    };
    let (message, details, _) = error.texts();
    (error.code().as_str(), message, details.unwrap_or_default())
}

fn name(comparison: Comparison, text: &str) -> Filter {
    Filter::Test(Column::Name, Test::Text(comparison, text.into()))
}

fn not(filter: Filter) -> Filter {
    Filter::Not(Box::new(filter))
}

fn among(column: Column, texts: &[&str]) -> Filter {
    let texts = texts.iter().map(|&text| text.into());
    Filter::Test(column, Test::TextIn(texts.collect()))
}

fn like(text: &str, ignore_case: bool) -> Filter {
    let pattern = Pattern::new(text, ignore_case).expect("a pattern");
    Filter::Test(Column::Name, Test::Like(pattern))
}

#[test]
fn column_filters_are_parsed() {
    let cases = [
        ("name=eq.a", name(Comparison::Equal, "a")),
        ("name=eq.", name(Comparison::Equal, "")),
        ("name=eq.a.b,c)\"d", name(Comparison::Equal, "a.b,c)\"d")),
        (
            "name=eq.a%2Cb+c%20%C3%A9%25",
            name(Comparison::Equal, "a,b c é%"),
        ),
        ("name=neq.not.eq.a", name(Comparison::NotEqual, "not.eq.a")),
        ("name=not.eq.a", not(name(Comparison::Equal, "a"))),
        ("name=gt.a", name(Comparison::Greater, "a")),
        ("name=gte.a", name(Comparison::GreaterOrEqual, "a")),
        ("name=lt.a", name(Comparison::Less, "a")),
        ("name=lte.a", name(Comparison::LessOrEqual, "a")),
        ("name=like.*a_%25", like("%a_%", false)),
        ("name=not.ilike.A*", not(like("A%", true))),
        ("name=in.(a,b)", among(Column::Name, &["a", "b"])),
        ("name=in.()", among(Column::Name, &[])),
        ("name=in.(%22%22)", among(Column::Name, &[""])),
        ("name=in.(a,)", among(Column::Name, &["a", ""])),
        (
            r#"serial_number=not.in.("a,b","c\"d","e\\f"," g",h)"#,
            not(among(
                Column::SerialNumber,
                &["a,b", "c\"d", "e\\f", " g", "h"],
            )),
        ),
        ("name=is.null", Filter::Test(Column::Name, Test::Null)),
        (
            "name=not.is.NULL",
            not(Filter::Test(Column::Name, Test::Null)),
        ),
        (
            "name=is.not_null",
            not(Filter::Test(Column::Name, Test::Null)),
        ),
        (
            "name=eq.a&name=neq.b&",
            Filter::All(vec![
                name(Comparison::Equal, "a"),
                name(Comparison::NotEqual, "b"),
            ]),
        ),
        ("", Filter::EVERYTHING),
    ];
    for (query, expected) in cases {
        assert_eq!(filter(query), expected, "{query}");
    }
}

#[test]
fn nested_filters_are_parsed() {
    let (a, b, c) = (
        || name(Comparison::Equal, "a"),
        || name(Comparison::Equal, "b"),
        || name(Comparison::Equal, "c"),
    );
    let cases = [
        ("or=(name.eq.a,name.eq.b)", Filter::Any(vec![a(), b()])),
        ("and=(name.eq.a)", Filter::All(vec![a()])),
        ("not.or=(name.eq.a)", not(Filter::Any(vec![a()]))),
        (
            "or=(name.eq.a,not.and(name.eq.b,name.not.eq.c))",
            Filter::Any(vec![a(), not(Filter::All(vec![b(), not(c())]))]),
        ),
        (
            "or=( name.eq.a, name.eq.b )",
            Filter::Any(vec![a_with("a"), a_with("b ")]),
        ),
        (
            "or=(name.eq.\"a,b\",name.in.(a,\"b)\"))",
            Filter::Any(vec![
                name(Comparison::Equal, "a,b"),
                among(Column::Name, &["a", "b)"]),
            ]),
        ),
        (
            "or=(\"name\".eq.a,and(name.eq.b,or(name.eq.c)))",
            Filter::Any(vec![a(), Filter::All(vec![b(), Filter::Any(vec![c()])])]),
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(filter(query), expected, "{query}");
    }
}

fn a_with(text: &str) -> Filter {
    name(Comparison::Equal, text)
}

#[test]
fn containment_filters_on_slots_are_parsed() {
    let slot = |port, peer: Option<Option<&str>>| SlotPattern {
        port,
        peer: peer.map(|peer| peer.map(Into::into)),
    };
    let some = Contained;
    let cases = [
        ("[]", some(vec![])),
        ("[{}]", some(vec![slot(None, None)])),
        (
            r#"[{"port":"R","peer":null}]"#,
            some(vec![slot(Some(Port::R), Some(None))]),
        ),
        (
            r#" [ {"peer": "E"}, {"port":"P"} ] "#,
            some(vec![slot(None, Some(Some("E"))), slot(Some(Port::P), None)]),
        ),
    ];
    for (json, contained) in cases {
        let expected = Filter::Test(Column::Slots, Test::Contains(contained));
        assert_eq!(filter(&format!("slots=cs.{json}")), expected, "{json}");
    }
    let quoted = r#"or=(slots.cs."[{\"port\":\"R\",\"peer\":null}]",name.eq.a)"#;
    let contains = Test::Contains(some(vec![slot(Some(Port::R), Some(None))]));
    let expected = vec![Filter::Test(Column::Slots, contains), a_with("a")];
    assert_eq!(filter(quoted), Filter::Any(expected));
}

#[test]
fn slot_filters_are_parsed_and_their_values_checked() {
    let cases = [
        (
            "ordinal=gte.2",
            Filter::Test(Column::Ordinal, Test::Number(Comparison::GreaterOrEqual, 2)),
        ),
        (
            "ordinal=in.(1,3)",
            Filter::Test(Column::Ordinal, Test::NumberIn(vec![1, 3])),
        ),
        (
            "port=eq.R",
            Filter::Test(Column::Port, Test::Text(Comparison::Equal, "R".into())),
        ),
        ("peer_sn=is.null", Filter::Test(Column::PeerSn, Test::Null)),
    ];
    for (query, expected) in cases {
        let wanted = slots(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        assert_eq!(wanted.list.filter, expected, "{query}");
    }
    for (query, message) in [
        (
            "ordinal=eq.x",
            "invalid input syntax for type integer: \"x\"",
        ),
        (
            "ordinal=in.(1,)",
            "invalid input syntax for type integer: \"\"",
        ),
        (
            "port=eq.r",
            "invalid input value for enum widgets.port_type: \"r\"",
        ),
        (
            "port=in.(P,Z)",
            "invalid input value for enum widgets.port_type: \"Z\"",
        ),
    ] {
        let error = slots(query).expect_err("no value of the column");
        assert_eq!(
            (error.code().as_str(), error.texts().0),
            ("22P02", message.into())
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn invalid_queries_are_refused_with_code_message_and_details() {
    let operators = super::filter::OPERATORS;
    let cases = [
        (
            "foo=eq.a",
            "42703",
            "column widgets.foo does not exist",
            "widgets has the columns serial_number, name, slots",
        ),
        (
            "widget_sn=eq.a",
            "42703",
            "column widgets.widget_sn does not exist",
            "widgets has the columns serial_number, name, slots",
        ),
        (
            "or=(foo.eq.a)",
            "42703",
            "column widgets.foo does not exist",
            "widgets has the columns serial_number, name, slots",
        ),
        (
            "slots.order=port",
            "42703",
            "column widgets.slots.order does not exist",
            "widgets has the columns serial_number, name, slots",
        ),
        (
            "select=foo",
            "42703",
            "column widgets.foo does not exist",
            "widgets has the columns serial_number, name, slots",
        ),
        (
            "order=foo",
            "42703",
            "column widgets.foo does not exist",
            "widgets has the columns serial_number, name, slots",
        ),
        (
            "name=foo.1",
            "PGRST100",
            "\"failed to parse filter (foo.1)\" (line 1, column 1)",
            &format!("unexpected \"foo\" expecting {operators}"),
        ),
        (
            "name=not.foo.1",
            "PGRST100",
            "\"failed to parse filter (not.foo.1)\" (line 1, column 5)",
            &format!("unexpected \"foo\" expecting {operators}"),
        ),
        (
            "name=a",
            "PGRST100",
            "\"failed to parse filter (a)\" (line 1, column 1)",
            &format!("unexpected \"a\" expecting {operators}"),
        ),
        (
            "name=eq(any).{a}",
            "PGRST100",
            "\"failed to parse filter (eq(any).{a})\" (line 1, column 1)",
            &format!("unexpected \"eq\" expecting {operators}"),
        ),
        (
            "name=is.true",
            "PGRST100",
            "\"failed to parse filter (is.true)\" (line 1, column 4)",
            "unexpected value expecting null or not_null: no column is true or false",
        ),
        (
            "name=in.a",
            "PGRST100",
            "\"failed to parse filter (in.a)\" (line 1, column 4)",
            "unexpected \"a\" expecting \"(\"",
        ),
        (
            "name=in.(a",
            "PGRST100",
            "\"failed to parse filter (in.(a)\" (line 1, column 6)",
            "unexpected end of input expecting \",\" or \")\"",
        ),
        (
            "name=in.(a)b",
            "PGRST100",
            "\"failed to parse filter (in.(a)b)\" (line 1, column 7)",
            "unexpected \"b\" expecting end of input",
        ),
        (
            "name=in.(\"a",
            "PGRST100",
            "\"failed to parse filter (in.(\"a)\" (line 1, column 5)",
            "a quote that has no end",
        ),
        (
            "name=like.a%5C",
            "PGRST100",
            "\"failed to parse filter (like.a\\)\" (line 1, column 6)",
            "a pattern must not end with the escape character \\",
        ),
        (
            "name=cs.[]",
            "PGRST100",
            "\"failed to parse filter (cs.[])\" (line 1, column 1)",
            "cs can only be asked of slots",
        ),
        (
            "slots=eq.[]",
            "PGRST100",
            "\"failed to parse filter (eq.[])\" (line 1, column 1)",
            "slots can only be filtered by cs and not.cs",
        ),
        (
            "slots=cs.[",
            "22P02",
            "invalid input syntax for type json: \"[\"",
            "it is no JSON from line 1, column 1 on",
        ),
        (
            "slots=cs.[\"%5Cu0000\"]",
            "22P02",
            "invalid input syntax for type json: \"[\"\\u0000\"]\"",
            "a text must not contain the character NUL",
        ),
        (
            "slots=cs.[{\"port\":\"Z\"}]",
            "22P02",
            "invalid input value for enum widgets.port_type: \"Z\"",
            "the port types are P, Q, R",
        ),
        (
            "and=(name.eq.a,slots.cs.\"[{\\\"port\\\":null}]\")",
            "22P02",
            "invalid input value for enum widgets.port_type: \"null\"",
            "the port types are P, Q, R",
        ),
        (
            "slots=cs.[{\"prot\":\"P\"}]",
            "22P02",
            "invalid input syntax for type json: \"[{\"prot\":\"P\"}]\"",
            "slots contain objects with port (P, Q or R) and peer (a serial number or null), in an array",
        ),
        (
            "slots=not.cs.{\"port\":\"P\"}",
            "22P02",
            "invalid input syntax for type json: \"{\"port\":\"P\"}\"",
            "slots contain objects with port (P, Q or R) and peer (a serial number or null), in an array",
        ),
        (
            "or=name.eq.a",
            "PGRST100",
            "\"failed to parse logic tree (name.eq.a)\" (line 1, column 1)",
            "unexpected \"n\" expecting \"(\"",
        ),
        (
            "or=()",
            "PGRST100",
            "\"failed to parse logic tree (())\" (line 1, column 2)",
            "unexpected \")\" expecting a name",
        ),
        (
            "or=(name.eq.a",
            "PGRST100",
            "\"failed to parse logic tree ((name.eq.a)\" (line 1, column 11)",
            "unexpected end of input expecting \",\" or \")\"",
        ),
        (
            "or=(name)",
            "PGRST100",
            "\"failed to parse logic tree ((name))\" (line 1, column 6)",
            "unexpected \")\" expecting \".\"",
        ),
        (
            "select=",
            "PGRST100",
            "\"failed to parse select parameter ()\" (line 1, column 1)",
            "unexpected end of input expecting a name",
        ),
        (
            "select=name,name",
            "PGRST100",
            "\"failed to parse select parameter (name,name)\" (line 1, column 10)",
            "\"name\" is selected twice",
        ),
        (
            "select=*,name",
            "PGRST100",
            "\"failed to parse select parameter (*,name)\" (line 1, column 7)",
            "\"name\" is selected twice",
        ),
        (
            "select=name::text",
            "PGRST100",
            "\"failed to parse select parameter (name::text)\" (line 1, column 5)",
            "casts are not supported",
        ),
        (
            "select=slots->0",
            "PGRST100",
            "\"failed to parse select parameter (slots->0)\" (line 1, column 6)",
            "paths into JSON are not supported",
        ),
        (
            "select=name;",
            "PGRST100",
            "\"failed to parse select parameter (name;)\" (line 1, column 5)",
            "unexpected \";\" expecting end of input",
        ),
        (
            "order=serial_number.up",
            "PGRST100",
            "\"failed to parse order (serial_number.up)\" (line 1, column 14)",
            "unexpected \".\" expecting \".asc\", \".desc\", \".nullsfirst\", \".nullslast\" or \",\"",
        ),
        (
            "limit=x",
            "22P02",
            "invalid input syntax for type bigint: \"x\"",
            "limit must be a whole number up to 9223372036854775807",
        ),
        (
            "limit=99999999999999999999",
            "22P02",
            "invalid input syntax for type bigint: \"99999999999999999999\"",
            "limit must be a whole number up to 9223372036854775807",
        ),
        (
            "offset=",
            "22P02",
            "invalid input syntax for type bigint: \"\"",
            "offset must be a whole number up to 9223372036854775807",
        ),
        (
            "limit=-1",
            "PGRST103",
            "Requested range not satisfiable",
            "Limit should be greater than or equal to zero.",
        ),
        (
            "offset=-1",
            "PGRST103",
            "Requested range not satisfiable",
            "Offset should be greater than or equal to zero.",
        ),
        (
            "limit=1&limit=1",
            "PGRST100",
            "\"failed to parse parameter (limit)\" (line 1, column 1)",
            "it is given twice",
        ),
        (
            "name=eq.%zz",
            "PGRST100",
            "\"failed to parse parameter (name)\" (line 1, column 1)",
            "a % in it is not followed by two hexadecimal digits",
        ),
        (
            "name=eq.%ff",
            "PGRST100",
            "\"failed to parse parameter (name)\" (line 1, column 1)",
            "it is not UTF-8, percent-encoded",
        ),
        (
            "name=eq.a%00",
            "PGRST100",
            "\"failed to parse parameter (name)\" (line 1, column 1)",
            "it must not contain the character NUL",
        ),
    ];
    for (query, code, message, details) in cases {
        assert_eq!(
            refused(query),
            (code, message.into(), details.into()),
            "{query}"
        );
    }
    let deep = format!("or={}name.eq.a{}", "(and".repeat(40), ")".repeat(40));
    assert_eq!(refused(&deep).2, "a tree is at most 32 levels deep");
    for query in [
        "select=slots(*)",
        "select=s:slots!inner(port)",
        "select=...slots(port)",
    ] {
        let (code, message, _) = refused(query);
        let expected =
            "Could not find a relationship between 'widgets' and 'slots' in the schema cache";
        assert_eq!((code, &*message), ("PGRST200", expected), "{query}");
    }
}

#[test]
fn lists_can_be_ordered_only_by_their_primary_key() {
    use Direction::{Ascending, Descending};
    for (query, expected) in [
        ("", Ascending),
        ("order=serial_number", Ascending),
        ("order=serial_number.asc", Ascending),
        ("order=serial_number.desc", Descending),
        ("order=serial_number.desc.nullslast", Descending),
        ("order=serial_number.nullsfirst", Ascending),
    ] {
        assert_eq!(
            widgets(query).expect("an order").list.direction,
            expected,
            "{query}"
        );
    }
    for (query, expected) in [
        ("order=widget_sn,ordinal", Ascending),
        ("order=widget_sn.desc,ordinal.desc", Descending),
        ("order=widget_sn.desc", Descending),
    ] {
        assert_eq!(
            slots(query).expect("an order").list.direction,
            expected,
            "{query}"
        );
    }
    let (code, message, _) = refused("order=name.desc");
    let expected = "widgets can be ordered by serial_number only, ascending or descending: \
                    name.desc was given";
    assert_eq!((code, &*message), ("WG010", expected));
    for query in [
        "order=ordinal",
        "order=widget_sn.asc,ordinal.desc",
        "order=ordinal,widget_sn",
    ] {
        let error = slots(query).expect_err("no order");
        assert_eq!(error.code().as_str(), "WG010", "{query}");
    }
}

#[test]
fn limit_offset_and_range_header_select_the_page() {
    let page = |query: &str, range| {
        let wanted = list(Table::Widgets, query, range, false, ROWS_MAX);
        wanted.map(|wanted| (wanted.list.offset, wanted.list.limit))
    };
    let cases = [
        ("", None, (0, 1000)),
        ("limit=5", None, (0, 5)),
        ("limit=5000", None, (0, 1000)),
        ("limit=0&offset=7", None, (7, 0)),
        ("offset=7", None, (7, 1000)),
        ("", Some("0-9"), (0, 10)),
        ("", Some("5-"), (5, 1000)),
        ("", Some("-4"), (0, 5)),
        ("", Some("bytes=0-9"), (0, 1000)),
        ("offset=3&limit=4", Some("5-20"), (5, 2)),
        ("limit=0", Some("0-9"), (0, 0)),
    ];
    for (query, range, expected) in cases {
        assert_eq!(page(query, range), Ok(expected), "{query} {range:?}");
    }
    for (query, range) in [("", Some("5-2")), ("offset=20", Some("0-9"))] {
        let error = page(query, range).expect_err("no range");
        assert_eq!(error.code().as_str(), "PGRST103", "{query} {range:?}");
    }
}

#[test]
fn neighbourhood_parameters_have_defaults_and_limits() {
    let of = |query: &str| {
        let serial_number = SerialNumber::new("sn", "E").expect("within the limits");
        let wanted = neighbourhood(serial_number, query, ROWS_MAX);
        wanted.map(|wanted| (wanted.depth, wanted.widgets_max))
    };
    assert_eq!(of(""), Ok((1, 500)));
    assert_eq!(of("depth=10&widgets_max=1"), Ok((10, 1)));
    for (query, code, message) in [
        ("depth=0", "WG007", "depth must be 1 to 10, 0 was given"),
        ("depth=11", "WG007", "depth must be 1 to 10, 11 was given"),
        (
            "widgets_max=1001",
            "WG007",
            "widgets_max must be 1 to 1000, 1001 was given",
        ),
        (
            "depth=x",
            "22P02",
            "invalid input syntax for type bigint: \"x\"",
        ),
        (
            "deep=1",
            "PGRST100",
            "\"failed to parse parameter (deep)\" (line 1, column 1)",
        ),
        (
            "depth=1&depth=1",
            "PGRST100",
            "\"failed to parse parameter (depth)\" (line 1, column 1)",
        ),
    ] {
        let error = of(query).expect_err("no neighbourhood");
        assert_eq!(
            (error.code().as_str(), &*error.texts().0),
            (code, message),
            "{query}"
        );
    }
    for query in ["depth=", "depth=x", "depth=9999999999999999999"] {
        let (_, details, _) = of(query).expect_err("no neighbourhood").texts();
        let expected = "depth must be a whole number from 1 to 10";
        assert_eq!(details.as_deref(), Some(expected), "{query}");
    }
}

fn sn(text: &str) -> SerialNumber {
    SerialNumber::new("sn", text).expect("within the limits")
}

fn two_widgets() -> Rows {
    Rows::Widgets(vec![
        Widget {
            serial_number: sn("a,\"b\""),
            name: Name::new("name", "").expect("within the limits"),
            slots: vec![
                Slot {
                    port: Port::P,
                    peer: None,
                },
                Slot {
                    port: Port::R,
                    peer: Some(sn("é\n")),
                },
            ],
        },
        Widget {
            serial_number: sn("plain"),
            name: Name::new("name", "two\r\nlines").expect("within the limits"),
            slots: vec![],
        },
    ])
}

#[test]
fn rows_are_written_in_the_requested_columns_and_format() {
    let shown = |rows_given: &Rows, table, query, format| {
        let wanted = list(table, query, None, false, ROWS_MAX).expect("a list");
        let shown = rows(rows_given, &wanted.selected, format, Pace::new(1000));
        shown.now_or_never().expect("too short for a pause")
    };
    let all = two_widgets();
    assert_eq!(
        shown(&all, Table::Widgets, "", Format::Json).expect("rows"),
        r#"[{"serial_number":"a,\"b\"","name":"","slots":[{"port":"P","peer":null},{"port":"R","peer":"é\n"}]},{"serial_number":"plain","name":"two\r\nlines","slots":[]}]"#
    );
    assert_eq!(
        shown(
            &all,
            Table::Widgets,
            "select=n:name,serial_number",
            Format::Json
        )
        .expect("rows"),
        r#"[{"n":"","serial_number":"a,\"b\""},{"n":"two\r\nlines","serial_number":"plain"}]"#
    );
    assert_eq!(
        shown(&all, Table::Widgets, "", Format::Csv).expect("rows"),
        "serial_number,name,slots\n\
         \"a,\"\"b\"\"\",\"\",\"[{\"\"port\"\":\"\"P\"\",\"\"peer\"\":null},{\"\"port\"\":\"\"R\"\",\"\"peer\"\":\"\"é\\n\"\"}]\"\n\
         plain,\"two\r\nlines\",[]"
    );
    let slot = Rows::Slots(vec![SlotRow {
        widget_sn: sn("E"),
        ordinal: Ordinal::new(1).expect("an ordinal"),
        port: Port::R,
        peer_sn: None,
    }]);
    assert_eq!(
        shown(&slot, Table::Slots, "", Format::Object).expect("one row"),
        r#"{"widget_sn":"E","ordinal":2,"port":"R","peer_sn":null}"#
    );
    assert_eq!(
        shown(&slot, Table::Slots, "", Format::Csv).expect("one row"),
        "widget_sn,ordinal,port,peer_sn\nE,2,R,"
    );
    let none = Rows::none(Table::Slots);
    for (rows_given, count) in [(&all, 2), (&none, 0)] {
        let error = shown(rows_given, Table::Slots, "", Format::Object);
        assert_eq!(error, Err(Unreadable::NotSingular { rows: count }));
    }
    assert_eq!(
        shown(&none, Table::Slots, "", Format::Json).expect("rows"),
        "[]"
    );
}

proptest! {
    #[test]
    fn any_query_is_parsed_or_refused_with_a_message(
        query in prop_oneof![
            "\\PC{0,60}",
            "[a-z._()\",\\\\%*=&0-9{}\\[\\]:>-]{0,60}",
            "(select|order|limit|and|or|not.or|name|slots|serial_number)=[a-z.(),\"\\\\*:]{0,40}",
        ],
        range in prop::option::of("[0-9-]{0,12}"),
    ) {
        for table in Table::ALL {
            match list(table, &query, range.as_deref(), true, ROWS_MAX) {
                // Every query that was parsed fits the table.
                Ok(wanted) => {
                    prop_assert!(wanted.list.limit <= ROWS_MAX && !wanted.selected.is_empty());
                    for selected in &wanted.selected {
                        prop_assert!(table.columns().contains(&selected.column));
                    }
                    prop_assert!(fits(&wanted.list.filter, table));
                }
                Err(error) => prop_assert!(!error.texts().0.is_empty()),
            }
        }
    }

    #[test]
    fn any_text_can_be_used_as_a_filter_value(text in "\\PC{0,20}") {
        let text: String = text.chars().filter(|&each| each != '\0').collect();
        let encoded = |text: &str| {
            let bytes = text.bytes().map(|byte| format!("%{byte:02x}"));
            bytes.collect::<String>()
        };
        let plain = filter(&format!("name=eq.{}", encoded(&text)));
        prop_assert_eq!(plain, name(Comparison::Equal, &text));
        let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let listed = filter(&format!("name=in.({})", encoded(&quoted)));
        prop_assert_eq!(listed, among(Column::Name, &[&text]));
        let in_tree = filter(&format!("or=(name.eq.{})", encoded(&quoted)));
        prop_assert_eq!(in_tree, Filter::Any(vec![name(Comparison::Equal, &text)]));
    }
}

fn fits(filter: &Filter, table: Table) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => filters.iter().all(|each| fits(each, table)),
        Filter::Not(filter) => fits(filter, table),
        Filter::Test(column, test) => {
            let contains = matches!(test, Test::Contains(_));
            let number = matches!(test, Test::Number(..) | Test::NumberIn(_));
            table.columns().contains(column)
                && contains == (*column == Column::Slots)
                && (!number || *column == Column::Ordinal)
        }
    }
}
