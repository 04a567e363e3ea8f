//! A standby that begins with its primary's archive.

use crate::{
    asking::{outcome, wait_until},
    replication::{add, get, has, start, url},
    service::{Directory, widgets},
};

#[test]
fn a_standby_begins_with_the_archive_and_takes_what_came_since_from_its_primary() {
    let (first, second) = (
        Directory::new("archived_primary"),
        Directory::new("restored_standby"),
    );
    let archive = format!("file://{}", first.path().join("archive").display());
    let primary = start(
        first.path(),
        &["--archive-url", &archive, "--archive-interval-ms", "100"],
    );
    let address = url(&primary);
    for number in 0..120 {
        add(&primary, &format!("w{number}"));
    }
    let restore = |follow: &str| {
        let mut command = widgets(second.path());
        let arguments = [
            "restore",
            &archive,
            "--data-dir",
            "widgets-data",
            "--follow",
        ];
        outcome(command.args(arguments).arg(follow))
    };
    let (code, told) = restore("primary:3000");
    assert!(
        code == Some(2) && told.contains("must be a URL as in `https://primary:3000`"),
        "{code:?} {told}"
    );
    // There is something in it by then, and perhaps not everything.
    wait_until("archived", || restore(&address).0 == Some(0));
    add(&primary, "since");
    let standby = start(second.path(), &[]);
    let follows = format!("follows {address}\n");
    assert!(standby.printed.contains(&follows), "{}", standby.printed);
    wait_until("what came since", || has(&standby, "since"));
    for path in ["/widgets?limit=1000", "/changes?operation=eq.add_widget"] {
        assert_eq!(get(&primary, path), get(&standby, path), "{path}");
    }
}
