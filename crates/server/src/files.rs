//! Reading what a configuration names: files that lie there as a whole, and that are short.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Keys and certificates are far shorter.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is in a file of at most [`FILE_BYTES_MAX`] bytes. A pipe or a device is refused: it could keep its reader
/// waiting for ever, or never end, and it cannot be read again when it changes.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Before it is opened: that alone could wait.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other(
            "it is not a regular file, such as a pipe or a directory",
        ));
    }
    read_short(path)
}

/// The same of whatever can be opened, such as a pipe that its user means to wait for.
pub fn read_short(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // What it grows by meanwhile as well.
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it must have at most {FILE_BYTES_MAX} bytes, it has more"
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
        for other in [
            Path::new("/dev/zero"),
            Path::new("/dev/null"),
            folder.path(),
        ] {
            assert!(refused(other).contains("not a regular file"));
        }
        assert_eq!(read_short(Path::new("/dev/null")).expect("read"), b"");
        let endless = read_short(Path::new("/dev/zero")).expect_err("it has no end");
        assert!(endless.to_string().contains("at most 1048576 bytes"));
    }
}
