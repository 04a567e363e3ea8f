//! Checks that the program understands every call of `widgets` in the documents: its command, its
//! flags and their values. Nothing is run here; other tests run what can be run.

use crate::{Arguments, help, load};
use clap::{CommandFactory as _, error::ErrorKind};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

fn pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let left_out = name.starts_with('.') || ["target", "node_modules"].contains(&&*name);
        if path.is_dir() && !left_out {
            self::pages(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// Returns the lines of the code blocks, with continued lines joined.
fn commands(page: &str) -> Vec<String> {
    let (mut fenced, mut commands, mut goes_on) = (false, Vec::<String>::new(), false);
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with("    ") {
            goes_on = false;
            continue;
        }
        let (part, more) = match line.trim().strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line.trim(), false),
        };
        match commands.last_mut() {
            Some(command) if goes_on => *command += part,
            _ => commands.push(part.into()),
        }
        goes_on = more;
    }
    commands
}

/// Returns what the text contains between backquotes.
fn mentions(page: &str) -> Vec<String> {
    let (mut fenced, mut mentions) = (false, Vec::new());
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced && !line.starts_with("    ") {
            mentions.extend(line.split('`').skip(1).step_by(2).map(Into::into));
        }
    }
    mentions
}

/// Splits the first command of a line into words as a shell does, and drops what follows it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for each in line.chars() {
        match (quote, each) {
            (Some(open), each) if open == each => quote = None,
            (None, '\'' | '"') => {
                quote = Some(each);
                word.get_or_insert_default();
            }
            (None, '|' | ';' | '&' | '#' | '>' | '<') => break,
            (None, ' ') => words.extend(word.take()),
            (_, each) => word.get_or_insert_default().push(each),
        }
    }
    words.extend(word);
    words
}

/// Returns the words after `widgets` if a line calls it, also through `cargo run` and with
/// variables before it.
fn call(line: &str) -> Option<Vec<String>> {
    let mut words = words(line.strip_prefix("$ ").unwrap_or(line));
    let is_variable = |word: &String| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| {
            name.chars()
                .all(|each| each.is_ascii_uppercase() || each == '_')
        })
    };
    while words.first().is_some_and(is_variable) {
        words.remove(0);
    }
    let first = words.first()?.clone();
    if first == "cargo" && words.get(1).is_some_and(|word| word == "run") {
        let of_another = words.iter().any(|word| word == "-p" || word == "--example");
        let dashes = words.iter().position(|word| word == "--")?;
        return (!of_another).then(|| words.split_off(dashes + 1));
    }
    let program = first == "widgets" || first.ends_with("/widgets") && !first.starts_with("http");
    program.then(|| words.split_off(1))
}

#[test]
fn widgets_commands_are_extracted_from_lines() {
    for (line, found) in [
        ("widgets get E    # shows it", Some("get|E")),
        (
            "$ A_B='x y' widgets list --free \"R\" | head",
            Some("list|--free|R"),
        ),
        ("cargo run --release -- serve >log", Some("serve")),
        ("cargo run -p widgets-bench -- redis", None),
        ("./widgets serve", Some("serve")),
        ("install target/release/widgets /usr/bin", None),
        ("systemctl restart widgets", None),
    ] {
        let call = call(line).map(|words| words.join("|"));
        assert_eq!(call.as_deref(), found, "{line}");
    }
}

/// Returns why a call is wrong. A mention in the text may leave out what a command needs.
fn wrong(call: Vec<String>, is_mention: bool) -> Option<String> {
    let words = ["widgets".to_owned()].into_iter().chain(call);
    let words: Vec<OsString> = words.map(Into::into).collect();
    let (command, words) = match help::prepare(Arguments::command(), words) {
        Ok(prepared) => prepared,
        // A mention may use `SECTION` as a placeholder.
        Err(_) if is_mention => return None,
        Err(error) => return Some(error.to_string()),
    };
    let left_out = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    match command.try_get_matches_from(words) {
        Ok(_) if is_mention => None,
        Ok(matches) => {
            let together = matches.subcommand_matches("load").map(load::check);
            together.and_then(Result::err)
        }
        Err(error) if !error.use_stderr() => None,
        Err(error) if is_mention && left_out.contains(&error.kind()) => None,
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn every_widgets_command_in_the_documents_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    pages(&root, &mut found);
    let (mut checked, mut problems) = ([0, 0], Vec::new());
    for page in found {
        let text = fs::read_to_string(&page).expect("text");
        let commands = commands(&text).into_iter().map(|line| (line, false));
        let mentions = mentions(&text).into_iter().map(|line| (line, true));
        for (line, is_mention) in commands.chain(mentions) {
            let Some(call) = call(&line) else { continue };
            // The mention is a part of a command, which the text around it completes.
            let stands_for_another =
                |word: &String| is_mention && word.chars().all(|each| each.is_ascii_uppercase());
            if call.is_empty()
                || call
                    .iter()
                    .any(|word| word.contains('…') || stands_for_another(word))
            {
                continue;
            }
            // The mention names a flag without a value, which does not matter here.
            let names_a_flag = is_mention && call.last().is_some_and(|word| word.starts_with("--"));
            let why = wrong(call, is_mention);
            if let Some(why) =
                why.filter(|why| !(names_a_flag && why.contains("a value is required")))
            {
                problems.push(format!("{}: {line}: {why}", page.display()));
            }
            checked[usize::from(is_mention)] += 1;
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(checked[0] > 25 && checked[1] > 100, "{checked:?}");
}
