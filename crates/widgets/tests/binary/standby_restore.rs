//! Standbys and archives: a standby that begins with its primary's archive, and one that archives
//! itself.

use crate::{
    asking::{outcome, wait_until},
    replication::{add, get, has, position, start, url},
    service::{Directory, Signal, widgets},
};

#[test]
fn a_standby_restored_from_an_archive_catches_up_with_its_primary() {
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
        code == Some(2) && told.contains("must be a URL as in https://primary:3000"),
        "{code:?} {told}"
    );
    // The restore succeeds once the archive has something, which may not be everything yet.
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

/// The store that writes the archive is first the primary and then a standby. A store restored from
/// the archive has every widget, and positions of the current epoch.
#[test]
fn archiving_continues_after_a_switchover_and_a_restart() {
    let (first, second) = (
        Directory::new("archive_before"),
        Directory::new("archive_beside"),
    );
    let archive = format!("file://{}", first.path().join("archive").display());
    let archives = ["--archive-url", &archive, "--archive-interval-ms", "100"];
    let primary = start(first.path(), &archives);
    let (listen, address) = (primary.address.to_string(), url(&primary));
    add(&primary, "before");
    let standby = start(second.path(), &["--follow", &address]);
    wait_until("it follows", || get(&standby, "/ready").0 == 200);
    let to = url(&standby);
    let mut switchover = widgets(second.path());
    let (code, told) = outcome(switchover.args(["promote", "--switchover", &to]));
    assert_eq!(code, Some(0), "{told}");
    add(&standby, "after");
    wait_until("copied", || has(&primary, "after"));
    primary.signal(Signal::TERM);
    assert!(primary.wait().success());
    let primary = start(
        first.path(),
        &[&archives[..], &["--listen", &listen]].concat(),
    );
    add(&standby, "restarted");
    let after = position(&standby);
    let restored = |number: usize| {
        let to = format!("restored-{number}");
        let mut command = widgets(second.path());
        let (code, told) = outcome(command.args(["restore", &archive, "--data-dir", &to]));
        assert_eq!(code, Some(0), "{told}");
        told
    };
    let told = (1..1000)
        .map(restored)
        .find(|told| told.contains("restored 3 widgets"));
    let told = told.expect("it is archived");
    let (epoch, _) = after.rsplit_once('-').expect("a position");
    assert!(told.contains(&format!("(position {epoch}-")), "{told}");
    drop(primary);
}
