//! Extracts the two files of Swagger UI that the API's page loads from the release archive that a
//! crate contains unchanged. Cargo.lock pins the crate, and nothing is downloaded.
//!
//! The archive holds the files in a compression that browsers accept. So nothing is unpacked, and
//! no decompressor has to be compiled: the output is a gzip file around the compressed data.

use std::{error::Error, path::Path};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED as ARCHIVE;

const FILES: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

/// The end of an archive, except for a comment: it says where the list of files begins.
const END: &[u8] = b"PK\x05\x06";
/// The beginning of each entry in that list.
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
/// The size of the header before each file's content, without the name and the extra fields.
const LOCAL_BYTES: usize = 30;
const DEFLATED: usize = 8;

/// The header of a gzip file: deflate, without a name or a time, from an unknown system.
const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var("OUT_DIR")?;
    for name in FILES {
        let gzip = gzip(name).ok_or_else(|| format!("Swagger UI's archive has no dist/{name}"))?;
        std::fs::write(Path::new(&out).join(format!("{name}.gz")), gzip)?;
    }
    Ok(())
}

/// Returns the file of this name in the archive's folder `dist`.
fn gzip(name: &str) -> Option<Vec<u8>> {
    let end = ARCHIVE
        .windows(END.len())
        .rposition(|window| window == END)?;
    let mut at = number(end + 16, 4)?;
    let wanted = format!("/dist/{name}");
    while ARCHIVE.get(at..)?.starts_with(ENTRY) {
        let [name_bytes, extra, remark] = [28, 30, 32].map(|field| number(at + field, 2));
        let path = at + ENTRY_BYTES..at + ENTRY_BYTES + name_bytes?;
        if ARCHIVE.get(path.clone())?.ends_with(wanted.as_bytes()) {
            return content(at);
        }
        at = path.end + extra? + remark?;
    }
    None
}

/// Returns the content of the file whose entry is at this offset, as gzip, followed by the checksum
/// and length from the archive.
fn content(entry: usize) -> Option<Vec<u8>> {
    if number(entry + 10, 2)? != DEFLATED {
        return None;
    }
    let checksum_and_bytes = [
        ARCHIVE.get(entry + 16..entry + 20)?,
        ARCHIVE.get(entry + 24..entry + 28)?,
    ];
    let local = number(entry + 42, 4)?;
    let begin = local + LOCAL_BYTES + number(local + 26, 2)? + number(local + 28, 2)?;
    let deflated = ARCHIVE.get(begin..begin + number(entry + 20, 4)?)?;
    Some(
        [
            &GZIP,
            deflated,
            checksum_and_bytes[0],
            checksum_and_bytes[1],
        ]
        .concat(),
    )
}

/// Returns the number of this many bytes at this offset.
fn number(at: usize, bytes: usize) -> Option<usize> {
    let bytes = ARCHIVE.get(at..at + bytes)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | usize::from(byte)),
    )
}
