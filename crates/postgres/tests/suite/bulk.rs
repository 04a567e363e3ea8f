//! Filling a database with widgets and reading all of them back. A fill that is incomplete or
//! refused stores nothing.

use crate::{TIMEOUT, migrated, open};
use tokio::sync::mpsc;
use widgets_postgres::{OpenError, Part, Rows, Settings, Target, fill, read_all};
use widgets_registry::{Ask as _, Lookup, Name, Port, SerialNumber, Slot, Widget};

fn text(text: &str) -> SerialNumber {
    SerialNumber::new("serial_number", text).expect("within the limits")
}

/// Returns widgets with awkward texts. Neighbours are associated through their second slots.
pub(crate) fn widgets() -> Vec<Widget> {
    let serial_number = |number: usize| text(&format!("\\{number:04}\tü"));
    let widget = |number: usize| Widget {
        serial_number: serial_number(number),
        name: Name::new("name", format!("line\n\\N{number}")).expect("within the limits"),
        slots: vec![
            Slot {
                port: Port::Q,
                peer: None,
            },
            Slot {
                port: Port::Q,
                peer: Some(serial_number(number ^ 1)),
            },
        ],
    };
    (0..2000).map(widget).collect()
}

pub(crate) async fn send(target: &Target, widgets: &[Widget], end: bool) -> Result<(), OpenError> {
    let (sender, receiver) = mpsc::channel(4);
    let parts: Vec<Rows> = widgets
        .chunks(300)
        .map(|chunk| {
            let mut rows = Rows::default();
            for widget in chunk {
                rows.push(widget);
            }
            rows
        })
        .collect();
    let sending = async move {
        for rows in parts {
            // If the receiver is gone, it reports why.
            let _ = sender.send(Part::Rows(rows)).await;
        }
        if end {
            let _ = sender.send(Part::End).await;
        }
    };
    tokio::join!(fill(target, TIMEOUT, receiver), sending).0
}

pub(crate) async fn all(target: &Target) -> Vec<Widget> {
    let (sender, mut receiver) = mpsc::channel(4);
    let receiving = async move {
        let mut widgets = Vec::new();
        while let Some(widget) = receiver.recv().await {
            widgets.push(widget);
        }
        widgets
    };
    let (read, widgets) = tokio::join!(read_all(target, TIMEOUT, sender), receiving);
    read.expect("read");
    widgets
}

#[tokio::test(flavor = "multi_thread")]
async fn filled_widgets_are_served_and_read_back() {
    let (server, url) = migrated().await;
    let owner = Target::parse(&server.url("registry", "postgres")).expect("a URL");
    let keys =
        "SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid), chr(10) ORDER BY conname)
        FROM pg_constraint WHERE connamespace = 'widgets'::regnamespace";
    let triggers = "SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgname)
        FROM pg_trigger WHERE NOT tgisinternal";
    let before = [keys, triggers].map(|sql| server.psql("registry", sql));
    let widgets = widgets();
    // Without the part that marks the end, nothing is stored.
    send(&owner, &widgets, false).await.expect("left");
    assert_eq!(all(&owner).await, []);
    send(&owner, &widgets, true).await.expect("filled");
    assert_eq!(all(&owner).await, widgets);
    let after = [keys, triggers].map(|sql| server.psql("registry", sql));
    assert_eq!(before, after, "constraints and triggers are unchanged");
    let postgres = open(&url, Settings::default());
    let found = postgres
        .client()
        .ask(Lookup(widgets[7].serial_number.clone()))
        .await;
    assert_eq!(found, Ok(Some(widgets[7].clone())));
    let Err(refused) = send(&owner, &widgets, true).await else {
        panic!("must be refused");
    };
    assert!(
        refused.to_string().contains("already holds widgets"),
        "{refused}"
    );
}

/// Both halves of each association are there, but the association is invalid: a widget with itself,
/// or two widgets twice on one port.
#[tokio::test(flavor = "multi_thread")]
async fn a_fill_with_invalid_associations_is_refused_and_stores_nothing() {
    let (server, _) = migrated().await;
    let owner = Target::parse(&server.url("registry", "postgres")).expect("a URL");
    let all_widgets = widgets();
    let with_itself = {
        let mut widget = all_widgets[0].clone();
        widget.slots[1].peer = Some(widget.serial_number.clone());
        vec![widget]
    };
    let mut twice = all_widgets[..2].to_vec();
    for widget in &mut twice {
        widget.slots[0].peer = widget.slots[1].peer.clone();
    }
    for unfit in [with_itself, twice] {
        let Err(refused) = send(&owner, &unfit, true).await else {
            panic!("must be refused");
        };
        assert!(
            refused.to_string().contains("widgets_peers_fit"),
            "{refused}"
        );
        assert_eq!(all(&owner).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_with_half_an_association_is_refused_and_stores_nothing() {
    let (server, _) = migrated().await;
    let owner = Target::parse(&server.url("registry", "postgres")).expect("a URL");
    let widgets = widgets();
    let Err(refused) = send(&owner, &widgets[..1999], true).await else {
        panic!("must be refused");
    };
    assert!(
        refused.to_string().contains("half an association"),
        "{refused}"
    );
    assert_eq!(all(&owner).await, []);
}
