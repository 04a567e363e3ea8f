//! What people see: the files of the console, as the binary contains them.
//!
//! `files/` is the output of `npm run build` in `console/`; `tests/console/run` fails if it is not.
//! The files are committed, so that building the binary needs neither Node.js nor the network.
//!
//! This crate knows nothing about HTTP, and the console uses only the public API.

/// A file of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its media type, with the character set if it is text.
    pub media_type: &'static str,
    /// Its content.
    pub content: &'static str,
}

/// What the console may do in a browser: run its own script and style, and send requests to its own
/// service. Nothing inline, nothing from elsewhere, and no other page may show it in a frame.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the file of this name. The empty name is the page itself.
#[must_use]
pub fn file(name: &str) -> Option<File> {
    let (media_type, content) = match name {
        "" => (
            "text/html; charset=utf-8",
            include_str!("../files/index.html"),
        ),
        "console.js" => (
            "text/javascript; charset=utf-8",
            include_str!("../files/console.js"),
        ),
        "console.css" => (
            "text/css; charset=utf-8",
            include_str!("../files/console.css"),
        ),
        // The contents of the script, and their licences.
        "licences.md" => (
            "text/plain; charset=utf-8",
            include_str!("../files/licences.md"),
        ),
        "icon.svg" => ("image/svg+xml", include_str!("../files/icon.svg")),
        _ => return None,
    };
    Some(File {
        media_type,
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::file;

    #[test]
    fn the_page_refers_only_to_embedded_files() {
        let page = file("").expect("the page").content;
        let named: Vec<_> = ["src=\"", "href=\""]
            .iter()
            .flat_map(|attribute| page.split(attribute).skip(1))
            .filter_map(|rest| rest.split('"').next())
            // The link to the API, for people without JavaScript.
            .filter(|name| *name != "..")
            .collect();
        assert_eq!(named.len(), 3, "{named:?}");
        for name in named {
            let relative = name.strip_prefix("./").unwrap_or(name);
            assert!(file(relative).is_some(), "{name} is embedded, and relative");
        }
        assert!(file("package.json").is_none());
    }

    #[test]
    fn the_page_has_no_inline_scripts_or_styles() {
        let page = file("").expect("the page").content;
        for part in page.split("<script").skip(1) {
            let (tag, content) = part.split_once('>').expect("a tag");
            assert!(tag.contains("src="), "{tag}");
            assert!(content.starts_with("</script>"), "{content}");
        }
        assert!(!page.contains("<style") && !page.contains(" style="));
    }
}
