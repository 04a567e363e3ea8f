//! Shows how a program uses the client: registers two widgets, associates them, lists them, and
//! follows the changes. The service's address is the only argument.

use std::{
    env::{self, VarError},
    error::Error,
    io::Write as _,
    time::Duration,
};
use widgets_client::{ChangesAfter, Client, Filter, Operation, Query, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let url = env::args().nth(1);
    let token = match env::var("WIDGETS_TOKEN") {
        Err(VarError::NotPresent) => None,
        token => Some(token?),
    };
    let client = Client::new(&Settings {
        url: url.unwrap_or_else(|| "http://127.0.0.1:3000".into()),
        token,
        ca: None,
        insecure: false,
        timeout: Duration::from_secs(10),
    })?;

    // Repeated while the service is down or busy, and applied once.
    let patience = Duration::from_secs(30);
    let slots = ["P".to_owned(), "R".to_owned()];
    for operation in [
        Operation::add_widget("rust-1", "pump", &slots),
        Operation::add_widget("rust-2", "tank", &slots),
        Operation::associate_widgets("rust-1", "rust-2", "P"),
    ] {
        client.safely(&operation, patience)?;
    }

    // Refusals are values to branch on.
    match client.safely(&Operation::add_widget("rust-1", "", &[]), patience) {
        Err(widgets_client::Error::Refused(refusal)) if refusal.code == "23505" => {
            writeln!(out, "taken: {}", refusal.message)?;
        }
        other => other?,
    }

    let (widget, _) = client.get("rust-1")?;
    for slot in &widget.slots {
        writeln!(out, "{} {}", slot.port, slot.peer.as_deref().unwrap_or("-"))?;
    }
    let query = Query {
        filters: vec![Filter::Free("R".into()), Filter::Prefix("rust-".into())],
        ..Query::default()
    };
    writeln!(out, "with a free R: {}", client.count(&query)?)?;

    // Begins with the oldest change; `ChangesAfter::Position` continues where an earlier run ended.
    let mut changes = client.changes(ChangesAfter::Oldest, None, &[]);
    for (change, _) in changes.next_page_patiently(Duration::ZERO, patience)? {
        let widgets = [change.widget_sn, change.widget1_sn, change.widget2_sn];
        let widgets: Vec<String> = widgets.into_iter().flatten().collect();
        if widgets.iter().any(|widget| widget.starts_with("rust-")) {
            writeln!(out, "{} {}", change.operation, widgets.join(" "))?;
        }
    }
    Ok(())
}
