//! Redacts texts that may contain a password: URLs and the connection strings of libpq.

/// The keywords of a connection string whose values may be shown. All others are hidden, because
/// new keywords may hold secrets.
const SHOWN: [&str; 7] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "sslmode",
    "target_session_attrs",
];

/// Returns the text without anything that must not be shown.
///
/// In a URL, everything before the host except the user's name is hidden, and so are the
/// parameters. In a connection string (`host=h password=p`), every value that is not known to be
/// harmless is hidden. Any other text may be a misspelt form of either, so it is hidden unless it
/// is a plain word.
#[must_use]
pub fn redacted(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        return url(scheme, rest);
    }
    if text.contains('=') {
        return connection_string(text);
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.bytes().all(is_word) {
        return text.into();
    }
    "***".into()
}

fn url(scheme: &str, rest: &str) -> String {
    // The last `@` counts, because a password may contain others that should have been escaped.
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, rest),
    };
    let (rest, parameters) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?***"),
        None => (rest, ""),
    };
    let credentials = credentials.map_or(String::new(), |credentials| {
        match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:***@"),
            None if credentials.contains(['/', '?']) => "***@".into(),
            None => format!("{credentials}@"),
        }
    });
    format!("{scheme}://{credentials}{rest}{parameters}")
}

fn connection_string(text: &str) -> String {
    let mut shown = Vec::new();
    let mut rest = text.trim();
    while let Some((keyword, value)) = rest.split_once('=') {
        let keyword = keyword.trim();
        let value = value.trim_start();
        let end = value_end(value);
        let known = SHOWN.contains(&keyword);
        shown.push(match (known, value.split_at(end)) {
            (true, (value, _)) => format!("{keyword}={value}"),
            // A keyword that contains spaces is the end of a value that lacks its quotes.
            (false, _) if keyword.contains(char::is_whitespace) => "***".into(),
            (false, _) => format!("{keyword}=***"),
        });
        rest = value[end..].trim_start();
    }
    if !rest.is_empty() {
        shown.push("***".into());
    }
    shown.join(" ")
}

/// Returns where a value of libpq's format ends: at white space, or at its closing quote.
fn value_end(value: &str) -> usize {
    let quoted = value.starts_with('\'');
    let mut escaped = false;
    for (place, character) in value.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted && place > 0 => return place + 1,
            blank if !quoted && blank.is_whitespace() => return place,
            _ => {}
        }
    }
    value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_urls_are_not_shown() {
        for (url, shown) in [
            ("embedded", "embedded"),
            ("postgres://host/db", "postgres://host/db"),
            ("postgres://user@host/db", "postgres://user@host/db"),
            (
                "postgres://user:p@ss:w@host/db",
                "postgres://user:***@host/db",
            ),
            (
                "postgres://user:p?a/s@host/db",
                "postgres://user:***@host/db",
            ),
            ("postgres://p/s?@host/db", "postgres://***@host/db"),
            ("postgres://:secret@/db", "postgres://:***@/db"),
            (
                "postgres://host/db?password=secret",
                "postgres://host/db?***",
            ),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    #[test]
    fn secrets_of_connection_strings_are_not_shown() {
        for (text, shown) in [
            ("host=h password=hunter2", "host=h password=***"),
            ("password=hunter2", "password=***"),
            ("password = hunter2 host=h", "password=*** host=h"),
            ("password='hun ter\\'2' user=u", "password=*** user=u"),
            ("host=h passwrod=hunter2", "host=h passwrod=***"),
            // A space in an unquoted value.
            ("password=hunter 2 host=h", "password=*** ***"),
            ("password=hunter 2", "password=*** ***"),
            ("options='-c a=b' port=5", "options=*** port=5"),
            ("=hunter2", "=***"),
        ] {
            assert_eq!(redacted(text), shown, "{text}");
        }
    }

    #[test]
    fn text_of_unknown_form_is_hidden_unless_it_is_one_word() {
        for (text, shown) in [
            ("postgresql", "postgresql"),
            ("", ""),
            ("postgres:/user:hunter2@host", "***"),
            ("user:hunter2@host/db", "***"),
            ("host hunter2", "***"),
        ] {
            assert_eq!(redacted(text), shown, "{text}");
        }
    }
}
