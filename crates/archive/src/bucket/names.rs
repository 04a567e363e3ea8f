//! Removes names from a bucket's lists that none of our objects can have, such as `../x`.
//!
//! The library refuses a whole page because of one such name, and the list ends there. No client can
//! request such an object through the library, so the names are removed before it reads the page.

use bytes::Bytes;
use object_store::path::Path;
use quick_xml::{Reader, events::Event};
use std::ops::Range;

/// The elements of an object in a list, and of its name: in lists of S3 and Google, and in lists of Azure.
const OBJECTS: [(&[u8], &[u8]); 2] = [(b"Contents", b"Key"), (b"Blob", b"Name")];

/// Removes the objects with invalid names from a page of a list. Anything else stays unchanged.
pub(super) fn passing_over(page: Bytes) -> Bytes {
    let Some(passed_over) = strange(&page).filter(|objects| !objects.is_empty()) else {
        return page;
    };
    let mut rest = Vec::with_capacity(page.len());
    let mut end = 0;
    for object in passed_over {
        rest.extend_from_slice(&page[end..object.start]);
        end = object.end;
    }
    rest.extend_from_slice(&page[end..]);
    rest.into()
}

/// Returns the positions of the objects with invalid names.
fn strange(page: &[u8]) -> Option<Vec<Range<usize>>> {
    let page = str::from_utf8(page).ok()?;
    let mut reader = Reader::from_str(page);
    let (mut found, mut object) = (Vec::new(), None);
    loop {
        let start = usize::try_from(reader.buffer_position()).ok()?;
        match reader.read_event().ok()? {
            Event::Eof => return Some(found),
            Event::Start(tag) => match object {
                None => {
                    let of_object = OBJECTS
                        .iter()
                        .find(|(name, _)| *name == tag.name().as_ref());
                    object = of_object.map(|(_, key)| (start, *key, false));
                }
                Some((start, key, _)) if key == tag.name().as_ref() => {
                    let text = reader.read_text(tag.name()).ok()?;
                    let text = text.decode().ok()?;
                    let name = quick_xml::escape::unescape(&text).ok()?;
                    let is_strange = Path::parse(&name).is_err();
                    if is_strange {
                        let name: String = name.chars().take(200).collect();
                        tracing::warn!(
                            ?name,
                            "the bucket lists a name that no object can have; it is skipped"
                        );
                    }
                    // Only the first is its name. Its metadata may have an element of the same name.
                    object = Some((start, b"", is_strange));
                }
                Some(_) => {}
            },
            Event::End(tag) => {
                let is_object = OBJECTS.iter().any(|(name, _)| *name == tag.name().as_ref());
                if is_object && let Some((start, _, is_strange)) = object.take() {
                    let end = usize::try_from(reader.buffer_position()).ok()?;
                    if is_strange {
                        found.push(start..end);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str) -> String {
        let read = passing_over(Bytes::copy_from_slice(page.as_bytes()));
        String::from_utf8(read.into()).expect("text")
    }

    #[test]
    fn invalid_object_names_are_removed_from_a_listing_page() {
        let s3 = |names: &[&str]| {
            let object =
                |name: &&str| format!("<Contents><Key>{name}</Key><Size>1</Size></Contents>");
            let objects = names.iter().map(object).collect::<Vec<_>>().concat();
            format!("<?xml version=\"1.0\"?>\n<ListBucketResult>{objects}</ListBucketResult>")
        };
        let listed = s3(&["a/1", "../x", "a//2", "a/&#x1b;", "&#46;&#46;/y", "a/3"]);
        assert_eq!(read(&listed), s3(&["a/1", "a/3"]));
        let azure = |name: &str| {
            let metadata = "<Metadata><Name>../z</Name></Metadata>";
            format!("<Blob><Name>{name}</Name>{metadata}</Blob>")
        };
        let page = |blobs: &str| format!("<E><Blobs>{blobs}</Blobs><NextMarker/></E>");
        let listed = page(&(azure("a/1") + &azure("./x") + &azure("a/2")));
        assert_eq!(read(&listed), page(&(azure("a/1") + &azure("a/2"))));
    }

    #[test]
    fn other_pages_and_malformed_xml_are_left_unchanged() {
        for page in [
            "",
            "{}",
            "<Contents><Key>../x</Key>",
            "<a></b><Contents><Key>../x</Key></Contents>",
            "<Contents><Key>&bad;</Key></Contents>",
            "<Contents><Size>1</Size></Contents>",
        ] {
            assert_eq!(read(page), page);
        }
        let page = Bytes::from_static(b"\xff<Contents><Key>../x</Key></Contents>");
        assert_eq!(passing_over(page.clone()), page);
    }
}
