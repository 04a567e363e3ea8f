//! `docs/configuration.md` is made of the keys. `UPDATE_EXPECT=1 cargo test -p widgets` writes it.

use super::keys::{Configuration, KEYS, SECTIONS};
use std::fmt::Write as _;

const INTRODUCTION: &str = "\
# Configuration

Every key has a flag of `widgets serve`, an environment variable, and a place in the configuration
file, which is TOML and named by `--config` or `WIDGETS_CONFIG`. A flag wins over a variable, a
variable over the file, the file over the default. There is no file unless one is named.

    widgets config example > widgets.toml    # every key with its meaning and its default
    widgets config check --config widgets.toml
    widgets config show --config widgets.toml --listen [::1]:3000

`widgets serve --help` shows the flags that people use first, `--help --all` all of them, `--help http` those of a
section. Beside the keys there is `--migrate` (`WIDGETS_MIGRATE`): `serve` migrates the PostgreSQL database first.
`export`, `import`, `generate`, `migrate` and `health` take the same file, and of the flags and variables those that
they need.

A number may have a unit: `75s`, `1m 30s` or `250ms` for a key in milliseconds, `64MiB` (1,024 × 1,024 bytes) or
`64MB` for one in bytes, `10k` or `1.5M` for a count; in the file in quotes.

`check` takes the flags and variables that `serve` takes, opens nothing but the files of certificates
and keys, prints every problem with its
key, its place, its limit and what was given, and exits with 0 or 1. `serve` checks the same before it
opens anything. `show` prints the values that hold and where each comes from; secrets and passwords in URLs
are replaced by `***`. A key that does not exist is a problem; an environment variable that no key has is
not, as others may use the prefix.

The service prints what it opened and where it listens on its standard output, and logs on its
standard error. SIGTERM and SIGINT stop it: it accepts no further connections, answers the requests
that have begun for at most `shutdown_timeout_ms`, and exits with 0; a second signal ends it at once,
with 1. Exit codes: 0 it did what it was asked; 1 it could not, and says why; 2 the command line
or a value of the configuration is wrong (`config check` and `health` answer what they are asked with 0 or 1).
";

fn document() -> String {
    let defaults = Configuration::default();
    let mut document = INTRODUCTION.to_owned();
    for (section, about) in SECTIONS {
        let about = about.trim().trim_end_matches('.');
        // Writing to a string cannot fail.
        _ = writeln!(document, "\n## `[{section}]`: {about}\n");
        _ = writeln!(
            document,
            "| key | default | flag, variable | meaning |\n|---|---|---|---|"
        );
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let (name, default) = (key.name, (key.get)(&defaults));
            let (flag, variable, help) = (key.flag(), key.variable(), key.help());
            _ = writeln!(
                document,
                "| `{name}` | `{default}` | `--{flag}`<br>`{variable}` | {help} |"
            );
        }
    }
    document
}

#[test]
fn the_document_is_up_to_date() {
    expect_test::expect_file!["../../../../docs/configuration.md"].assert_eq(&document());
}
