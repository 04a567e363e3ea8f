//! What do people see? The files of the console, as the binary carries them.
//!
//! `files/` is what `npm run build` in `console/` makes of its sources; `tests/console/run` fails where it is
//! not. They are committed, so that building the binary needs neither Node.js nor the network.
//!
//! This crate knows nothing of HTTP, and the console knows nothing but the public API.

/// A file of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its media type, with the character set where it is text.
    pub media_type: &'static str,
    /// What is in it.
    pub content: &'static str,
}

/// What the console may do in a browser: run its own script and style, and ask the service that it came
/// from. Nothing inline, nothing from elsewhere, and no other page may show it in a frame.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file of this name. The empty name is the page itself.
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
        // What is in the script, and under which licences.
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
    fn the_page_asks_for_files_that_are_there_and_for_no_others() {
        let page = file("").expect("the page").content;
        let named: Vec<_> = ["src=\"", "href=\""]
            .iter()
            .flat_map(|attribute| page.split(attribute).skip(1))
            .filter_map(|rest| rest.split('"').next())
            // The link to the API, for those who have no JavaScript.
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
    fn nothing_is_inline() {
        let page = file("").expect("the page").content;
        for part in page.split("<script").skip(1) {
            let (tag, content) = part.split_once('>').expect("a tag");
            assert!(tag.contains("src="), "{tag}");
            assert!(content.starts_with("</script>"), "{content}");
        }
        assert!(!page.contains("<style") && !page.contains(" style="));
    }
}
