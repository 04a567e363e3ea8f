//! The documents are consistent: every link leads to a file, every anchor to a heading, and every
//! page is in its index.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Returns every document of the repository, except those in folders that tools fill.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders = vec![root.canonicalize().expect("the repository")];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents
}

/// Returns the text without its code blocks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut lines = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    });
    let mut prose = String::new();
    for line in &mut lines {
        prose.push_str(line);
        prose.push('\n');
    }
    prose
}

/// Returns the targets of a document's links as they are written, if they are within the
/// repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|target| !target.contains("://") && !target.contains(' '))
}

/// Returns the anchors of a document's headings, formed as forges do.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|each| each.is_alphanumeric() || " -_".contains(*each));
        kept.map(|each| if each == ' ' { '-' } else { each })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_has_an_existing_target() {
    let mut checked = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("text");
        for link in links(&prose(&text)) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().expect("a folder").join(path),
            };
            let name = document.display();
            assert!(target.exists(), "{name}: {link} leads nowhere");
            if !anchor.is_empty() {
                let target = fs::read_to_string(&target).expect("a document");
                assert!(
                    anchors(&target).contains(anchor),
                    "{name}: {link} has no heading"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn every_page_of_docs_is_listed_in_its_index() {
    for index in documents()
        .into_iter()
        .filter(|path| path.ends_with("README.md"))
    {
        let folder = index.parent().expect("a folder");
        if !folder.components().any(|part| part.as_os_str() == "docs") {
            continue;
        }
        let text = fs::read_to_string(&index).expect("text");
        let listed: BTreeSet<_> = links(&text).collect();
        for path in documents()
            .iter()
            .filter(|path| path.parent() == Some(folder))
        {
            let name = path.file_name().expect("a name").to_string_lossy();
            let indexed = name == "README.md" || listed.contains(&*name);
            assert!(indexed, "{} lacks {name}", index.display());
        }
    }
}
