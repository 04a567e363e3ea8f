//! The schemas of requests and answers, made from the limits of the domain.

use crate::Code;
use std::collections::BTreeSet;
use utoipa::openapi::{
    ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type,
    schema::{AdditionalProperties, SchemaType},
};
use widgets_registry::{
    NAME_BYTES_MAX, Operation, Port, SERIAL_NUMBER_BYTES_MAX, SERIAL_NUMBER_BYTES_MIN, SLOTS_MAX,
};

/// Text without NUL. A schema counts characters, so it cannot express lengths in bytes.
const WITHOUT_NUL: &str = r"^[^\u0000]*$";

pub(super) fn reference(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

/// Returns the name of the schema of an operation's body.
pub(super) const fn body(operation: Operation) -> &'static str {
    match operation {
        Operation::AddWidget => "AddWidget",
        Operation::RemoveWidget => "RemoveWidget",
        Operation::AssociateWidgets | Operation::RemoveAssociation => "TwoWidgets",
    }
}

/// Returns every schema with its name.
pub(super) fn all() -> Vec<(&'static str, RefOr<Schema>)> {
    let serial_number = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(SERIAL_NUMBER_BYTES_MIN))
        .max_length(Some(SERIAL_NUMBER_BYTES_MAX))
        .pattern(Some(WITHOUT_NUL))
        .description(Some(format!(
            "Unique, case-sensitive, never normalised: {SERIAL_NUMBER_BYTES_MIN} to \
             {SERIAL_NUMBER_BYTES_MAX} bytes of UTF-8 without NUL."
        )));
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(NAME_BYTES_MAX))
        .pattern(Some(WITHOUT_NUL))
        .description(Some(format!(
            "Not unique: at most {NAME_BYTES_MAX} bytes of UTF-8 without NUL."
        )));
    let port = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Port::ALL.map(Port::as_str)))
        .description(Some("A port type. Case matters."));
    let slots = ArrayBuilder::new()
        .items(RefOr::from(reference("Port")))
        .max_items(Some(SLOTS_MAX))
        .description(Some(format!(
            "0 to {SLOTS_MAX} ports, fixed for the life of the widget; their order is kept."
        )));
    let add_widget = OneOfBuilder::new()
        .item(add_widget("widget_name"))
        .item(add_widget("name"))
        .description(Some("`name` is an alias for `widget_name`."));
    let remove_widget = strict().property("widget_sn", reference("SerialNumber"));
    let two_widgets = strict()
        .property("widget1_sn", reference("SerialNumber"))
        .property("widget2_sn", reference("SerialNumber"))
        .property("port", reference("Port"))
        .required("widget1_sn")
        .required("widget2_sn")
        .required("port");
    vec![
        ("SerialNumber", serial_number.build().into()),
        ("Name", name.build().into()),
        ("Port", port.build().into()),
        ("Slots", slots.build().into()),
        ("AddWidget", Schema::OneOf(add_widget.build()).into()),
        (
            "RemoveWidget",
            remove_widget.required("widget_sn").build().into(),
        ),
        ("TwoWidgets", two_widgets.build().into()),
        ("Slot", slot().into()),
        ("Widget", widget().into()),
        ("Distributed", distributed().into()),
        ("Error", error().into()),
    ]
}

/// Returns an object that allows no additional members.
fn strict() -> ObjectBuilder {
    ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn add_widget(name: &str) -> Object {
    strict()
        .property("widget_sn", reference("SerialNumber"))
        .property(name, reference("Name"))
        .property("slots", reference("Slots"))
        .required("widget_sn")
        .required(name)
        .required("slots")
        .build()
}

fn nullable_text() -> ObjectBuilder {
    let types = SchemaType::Array(vec![Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(types)
}

fn slot() -> Object {
    let peer = nullable_text().description(Some(
        "The serial number of the widget at the other end; null while the slot is free.",
    ));
    strict()
        .property("port", reference("Port"))
        .property("peer", peer)
        .required("port")
        .required("peer")
        .build()
}

fn widget() -> Object {
    let slots = ArrayBuilder::new()
        .items(RefOr::from(reference("Slot")))
        .max_items(Some(SLOTS_MAX));
    strict()
        .property("serial_number", reference("SerialNumber"))
        .property("name", reference("Name"))
        .property("slots", slots)
        .required("serial_number")
        .required("name")
        .required("slots")
        .build()
}

fn distributed() -> Object {
    let told = |description: &str, text: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some([text]))
            .description(Some(description))
    };
    let count = |description: &str| {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .description(Some(description))
    };
    let moment = "of one moment for each shard";
    let away = ArrayBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::Array, Type::Null]))
        .items(ObjectBuilder::new().schema_type(Type::String))
        .description(Some(
            "Their hosts and ports, for administrators of the service; null for everyone else.",
        ));
    strict()
        .property(
            "distributed",
            ObjectBuilder::new().schema_type(Type::Boolean),
        )
        .property(
            "lists",
            told(
                "What a list shows: one half of an association may be missing.",
                moment,
            ),
        )
        .property(
            "neighbourhoods",
            told("What a neighbourhood shows.", moment),
        )
        .property("changes", told("There is no feed of changes.", "none"))
        .property("nodes", count("The number of nodes that hold widgets."))
        .property(
            "nodes_away",
            count("How many of them were unreachable or too slow when they were last needed."),
        )
        .property("away", away)
        .required("distributed")
        .required("lists")
        .required("neighbourhoods")
        .required("changes")
        .required("nodes")
        .required("nodes_away")
        .required("away")
        .build()
}

fn error() -> Object {
    let codes: BTreeSet<&str> = Code::ALL.into_iter().map(Code::as_str).collect();
    let rows = Code::ALL.map(|code| {
        let (word, status, meaning) = (code.as_str(), code.status().as_u16(), code.meaning());
        format!("| {word} | {status} | {meaning} |\n")
    });
    let table = rows.concat();
    let code = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes))
        .description(Some(format!(
            "The stable code to branch on.\n\n| code | status | when |\n|---|---|---|\n{table}"
        )));
    let message = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("What happened, in words for people."));
    strict()
        .description(Some(
            "Every error has exactly these members, in this order.",
        ))
        .property("code", code)
        .property("details", nullable_text())
        .property("hint", nullable_text())
        .property("message", message)
        .required("code")
        .required("details")
        .required("hint")
        .required("message")
        .build()
}
