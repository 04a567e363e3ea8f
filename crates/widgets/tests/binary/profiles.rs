//! The profiles in `Cargo.toml` name crates one by one, and cargo only warns about a name that is
//! no longer one of our crates.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use toml::{Table, Value};

/// The level that optimises everything: cargo's own for a profile that inherits from `release`.
const ALL: Value = Value::Integer(3);

fn read(name: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    let text = fs::read_to_string(path).expect("a file of the repository");
    text.parse().expect("TOML")
}

/// Returns the settings of each crate that a profile names.
fn packages(profile: &Value) -> BTreeMap<&str, &Table> {
    let named = profile.get("package").and_then(Value::as_table);
    let each = named.into_iter().flatten().filter(|(name, _)| *name != "*");
    each.map(|(name, settings)| (name.as_str(), settings.as_table().expect("settings")))
        .collect()
}

/// Returns the crates that a profile names but that do not exist.
fn unknown<'a>(manifest: &'a Table, lock: &Table) -> BTreeSet<&'a str> {
    let locked = lock["package"].as_array().expect("packages");
    let profiles = manifest["profile"].as_table().expect("profiles");
    let named = profiles
        .values()
        .flat_map(|profile| packages(profile).into_keys());
    named
        .filter(|name| {
            !locked
                .iter()
                .any(|package| package["name"].as_str() == Some(name))
        })
        .collect()
}

/// Returns the crates that `release` optimises less than the others, and that `dist` does not
/// optimise either.
fn forgotten(manifest: &Table) -> Vec<&str> {
    let (release, dist) = (
        &manifest["profile"]["release"],
        &manifest["profile"]["dist"],
    );
    let all = dist
        .get("opt-level")
        .or(release.get("opt-level"))
        .unwrap_or(&ALL);
    let given_back = packages(dist);
    let named = packages(release);
    let less = named
        .into_iter()
        .filter(|(_, settings)| settings.get("opt-level").is_some_and(|level| level != all));
    less.filter(|(name, _)| {
        let settings = given_back.get(name);
        settings.and_then(|settings| settings.get("opt-level")) != Some(all)
    })
    .map(|(name, _)| name)
    .collect()
}

#[test]
fn every_crate_named_in_a_profile_exists() {
    let (manifest, lock) = (read("Cargo.toml"), read("Cargo.lock"));
    assert_eq!(
        unknown(&manifest, &lock),
        BTreeSet::new(),
        "crates that Cargo.toml names in a profile and Cargo.lock lacks"
    );
}

#[test]
fn the_dist_profile_fully_optimises_every_crate() {
    let manifest = read("Cargo.toml");
    assert!(
        !packages(&manifest["profile"]["release"]).is_empty(),
        "`release` names no crate any more: this test and the list of `dist` go with it"
    );
    assert_eq!(
        forgotten(&manifest),
        Vec::<&str>::new(),
        "crates that `release` leaves unoptimised and `dist` does not optimise again"
    );
}

#[test]
fn unoptimised_and_unknown_crates_in_profiles_are_found() {
    let manifest: Table = "
        [profile.release.package]
        kept.opt-level = 0
        left.opt-level = 0
        less.opt-level = 0
        gone.opt-level = 0
        [profile.dist.package]
        kept.opt-level = 3
        less.opt-level = 1
        gone.opt-level = 3
        [profile.dev.package]
        '*'.opt-level = 1
        old.opt-level = 2
    "
    .parse()
    .expect("TOML");
    let lock: Table = "
        package = [{ name = 'kept' }, { name = 'left' }, { name = 'less' }]
    "
    .parse()
    .expect("TOML");
    assert_eq!(forgotten(&manifest), ["left", "less"]);
    assert_eq!(unknown(&manifest, &lock), BTreeSet::from(["gone", "old"]));
}
