//! The password of the database, if it is given separately from the URL.

use std::{fmt, io, path::PathBuf};

/// Where the password comes from. `Debug` omits it.
#[derive(Clone)]
pub enum Password {
    /// The password itself.
    Text(String),
    /// A file that contains it. The file is read again for each connection, because it may change.
    File(PathBuf),
}

impl Password {
    /// Returns the current password, or why it cannot be read. One newline at the end of a file is
    /// ignored, because editors add one.
    pub fn read(&self) -> Result<String, String> {
        let path = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::File(path) => path,
        };
        let wrong = |what: String| format!("{}: {what}", path.display());
        let bytes = widgets_files::read_file(path).map_err(|error| wrong(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is not text".into()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(wrong("it is empty".into()));
        }
        Ok(text.into())
    }

    /// Like `read`, but on another thread, because the disk may be slow.
    pub(crate) async fn read_aside(&self) -> Result<String, String> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read());
        read.await
            .unwrap_or_else(|error| Err(io::Error::other(error).to_string()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("***"),
            Self::File(path) => path.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_read_each_time_and_its_defects_are_reported() {
        let path = std::env::temp_dir().join(format!("widgets-password-{}", std::process::id()));
        let password = Password::File(path.clone());
        let read_of = |content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            password.read()
        };
        assert_eq!(read_of(b"it's 1\n"), Ok("it's 1".into()));
        assert_eq!(read_of(b" two \r\n"), Ok(" two ".into()));
        let told = |what: &str| Err(format!("{}: {what}", path.display()));
        assert_eq!(read_of(b"\n"), told("it is empty"));
        assert_eq!(read_of(b"\xff"), told("it is not text"));
        std::fs::remove_file(&path).expect("removed");
        let missing = password.read().expect_err("it is gone");
        assert!(missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn a_password_is_not_shown_in_debug_output() {
        assert_eq!(format!("{:?}", Password::Text("secret".into())), "***");
    }
}
