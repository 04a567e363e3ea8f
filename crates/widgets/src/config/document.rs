//! Generates `docs/configuration.md` from the keys. `UPDATE_EXPECT=1 cargo test -p widgets` writes
//! it.

use super::keys::{Configuration, KEYS, SECTIONS};
use std::fmt::Write as _;

const INTRODUCTION: &str = "\
# Configuration

Every key has a flag of `widgets serve`, an environment variable, and a place in the configuration file. A flag
overrides a variable, a variable overrides the file, and the file overrides the default. The file is TOML, and is read
only if `--config` or `WIDGETS_CONFIG` names it.

    widgets config example > widgets.toml    # every key with its description and its default
    widgets config check --config widgets.toml
    widgets config show --config widgets.toml --listen [::1]:3000

`widgets serve --help` shows the flags that people use first, `--help --all` shows all flags, and `--help http` those of
one section. `serve` has one more flag, `--migrate` (`WIDGETS_MIGRATE`), which migrates the PostgreSQL database before it
starts. `export`, `import`, `generate`, `migrate` and `health` read the same file, and take the flags and variables that
they need.

A number may have a unit: `75s`, `1m 30s` or `250ms` for a key in milliseconds, `64MiB` (64 × 1,024 × 1,024 bytes) or
`64MB` for one in bytes, and `10k` or `1.5M` for a count. In the file, put a number with a unit in quotes.

`config check` takes the same flags and variables as `serve`, and opens only the files of certificates, keys, tokens and
passwords. It prints every wrong value with its key, its place, its limit and the value given. If all values are right,
it prints what is wrong with the files, one problem for each section. It exits with 0 or 1. `serve` makes the same
checks before it opens the store. `config show` prints the effective values and where each comes from, with `***` in place
of secrets and of passwords in URLs. An unknown key in the file is a problem. An unknown environment variable is not,
because other programs may use the prefix `WIDGETS_`.

The service prints what it opened and where it listens on standard output, and logs on standard error. On SIGTERM or
SIGINT it accepts no more connections, answers the requests in progress for at most `shutdown_timeout_ms`, and exits
with 0. A second signal ends it at once, with 1.

| exit code | meaning |
|---|---|
| 0 | It did what it was asked to do. |
| 1 | It could not, and says why. |
| 2 | The command line or a configuration value is wrong. For a wrong value, `config check` and `health` exit with 1, because 0 or 1 is their answer. |
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
fn the_configuration_page_is_up_to_date() {
    expect_test::expect_file!["../../../../docs/configuration.md"].assert_eq(&document());
}
