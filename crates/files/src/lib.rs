//! Reads files that a configuration or a command line names: complete, short, regular files.
//!
//! All files with keys, certificates or tokens are read here. So a path that was mistyped, or that
//! leads to a pipe or a device, is refused with a message, instead of taking memory without limit
//! or waiting forever.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// The maximum size in bytes. Keys, certificates and tokens are far smaller.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The maximum size in bytes of a file of authorities. The certificates of all authorities that a
/// system trusts are smaller.
pub const AUTHORITIES_BYTES_MAX: u64 = 16 << 20;

/// Reads a file of at most [`FILE_BYTES_MAX`] bytes. A pipe or a device is refused: it could keep
/// its reader waiting forever, or never end, and it cannot be read again when it changes.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    regular(path, FILE_BYTES_MAX)
}

/// Does the same for authorities to trust, which may be as many as a system has: at most
/// [`AUTHORITIES_BYTES_MAX`] bytes.
pub fn read_authorities(path: &Path) -> io::Result<Vec<u8>> {
    regular(path, AUTHORITIES_BYTES_MAX)
}

/// Reads a file of at most [`FILE_BYTES_MAX`] bytes, or anything else that can be opened, such as a
/// pipe that its user intends to wait for.
pub fn read_short(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, FILE_BYTES_MAX)
}

fn regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Checked before it is opened, because opening alone could wait.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other(
            "it is not a regular file, such as a pipe or a directory",
        ));
    }
    read_at_most(path, bytes_max)
}

/// Reads a file, or anything else that can be opened, of at most this many bytes.
pub fn read_at_most(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Also limits a file that grows meanwhile.
    let file = File::open(path)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!(
            "it must have at most {bytes_max} bytes, it has more"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_and_regular_files_are_read() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("key");
        let refused = |path: &Path| read_file(path).expect_err("refused").to_string();
        assert_eq!(
            read_file(&path).expect_err("missing").kind(),
            io::ErrorKind::NotFound
        );
        std::fs::write(&path, vec![b'x'; 1 << 20]).expect("written");
        assert_eq!(read_file(&path).expect("read").len(), 1 << 20);
        std::fs::write(&path, vec![b'x'; (1 << 20) + 1]).expect("written");
        assert_eq!(
            refused(&path),
            "it must have at most 1048576 bytes, it has more"
        );
        assert_eq!(read_authorities(&path).expect("read").len(), (1 << 20) + 1);
        let file = File::create(&path).expect("made");
        file.set_len((16 << 20) + 1).expect("lengthened");
        assert_eq!(
            read_authorities(&path).expect_err("too long").to_string(),
            "it must have at most 16777216 bytes, it has more"
        );
        for other in [
            Path::new("/dev/zero"),
            Path::new("/dev/null"),
            folder.path(),
        ] {
            assert!(refused(other).contains("not a regular file"));
            let authorities = read_authorities(other).expect_err("refused");
            assert!(authorities.to_string().contains("not a regular file"));
        }
        assert_eq!(read_short(Path::new("/dev/null")).expect("read"), b"");
        let endless = read_short(Path::new("/dev/zero")).expect_err("it has no end");
        assert!(endless.to_string().contains("at most 1048576 bytes"));
    }
}
