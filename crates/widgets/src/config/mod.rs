//! The configuration: what can be set, where settings come from, and whether they are right.
//!
//! A flag overrides an environment variable, which overrides the configuration file, which
//! overrides the default. Everything is read and checked before anything is opened, and every
//! problem is reported at once. [`keys`] is the one list from which all of this is made. To add a
//! key, add it there and pass it to the component that it configures.

mod access;
pub(crate) mod command;
mod copies;
#[cfg(test)]
mod document;
mod file;
mod given;
mod keys;
mod optional;
mod parts;
mod quantities;
mod url;
mod values;

pub(crate) use given::{Given, Migrating, Opening, Reaching, heading};
pub(crate) use keys::{Archive, Auth, Configuration, Http, Log, Replication, SECTIONS};
pub(crate) use url::HttpUrl;
pub(crate) use values::{Filter as LogFilter, LogFormat, StoreKind};

use given::{Origin, Scope};
use keys::KEYS;
use std::{fmt, io, path::PathBuf};
use widgets_engine::OpenError;
use widgets_files::read_short;
use widgets_load::os_error::explain;

/// The effective values, and where each comes from.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) configuration: Configuration,
    /// The source of each key's value, by the key's index in [`KEYS`].
    sources: Vec<Source>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A problem in a configuration.
struct Problem {
    /// The line in the file, or [`NO_LINE`].
    line: usize,
    text: String,
}

/// Sorts problems outside the file after those in it.
const NO_LINE: usize = usize::MAX;

impl Problem {
    fn new(text: String) -> Self {
        let line = NO_LINE;
        Self { line, text }
    }
}

/// All problems of a configuration, one per line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Problems(Vec<String>);

impl Resolved {
    /// Returns whether a flag, rather than a variable or a file, sets the key with this path.
    pub(crate) fn is_flag(&self, path: &str) -> bool {
        self.source(path)
            .is_some_and(|source| matches!(source, Source::Flag(_)))
    }

    /// Returns whether the key with this path has its default because nothing sets it.
    pub(crate) fn is_default(&self, path: &str) -> bool {
        self.source(path) == Some(&Source::Default)
    }

    fn source(&self, path: &str) -> Option<&Source> {
        let place = KEYS.iter().position(|key| key.path() == path)?;
        self.sources.get(place)
    }
}

/// Returns the bytes as text, if they are valid UTF-8.
pub(crate) fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl<S: Scope> Given<S> {
    /// Reads the file, determines the effective values, and checks everything.
    pub(crate) fn resolve(self) -> Result<Resolved, Problems> {
        let mut problems = Vec::new();
        let mut configuration = Configuration::default();
        let mut sources = vec![Source::Default; KEYS.len()];
        // Values with a higher precedence come later. Those that are overridden are checked all the
        // same.
        let mut values = Vec::new();
        if let Some(path) = self.file {
            match read_short(&path).and_then(text) {
                Ok(content) => {
                    for entry in file::read(&path, &content, &mut problems) {
                        let (path, line) = (path.clone(), entry.line);
                        values.push((entry.key, entry.text, Source::File { path, line }));
                    }
                }
                Err(error) => {
                    let file = path.display();
                    let what = format!("the configuration file {file} cannot be read");
                    problems.push(Problem::new(explain(&what, &error)));
                }
            }
        }
        for (place, text, origin) in self.values {
            let source = match origin {
                Origin::Variable => Source::Variable(KEYS[place].variable()),
                Origin::Flag => Source::Flag(KEYS[place].flag()),
            };
            values.push((place, text, source));
        }
        for (place, text, source) in values {
            let key = &KEYS[place];
            match (key.set)(&mut configuration, &text) {
                Ok(()) => sources[place] = source,
                Err(what) => {
                    let text = format!("{source}: {} {what}", key.path());
                    let line = match source {
                        Source::File { line, .. } => line,
                        _ => NO_LINE,
                    };
                    problems.push(Problem { line, text });
                }
            }
        }
        // Whether settings fit together can only be checked if each is valid in itself.
        if problems.is_empty()
            && let Err(problem) = configuration
                .engine
                .settings(
                    &configuration.http,
                    &configuration.changes,
                    &configuration.idempotency,
                    &configuration.archive,
                    &configuration.replication,
                )
                .check()
        {
            let path = match &problem {
                OpenError::Setting { setting, .. } => format!("engine.{setting}"),
                _ => String::new(),
            };
            let place = KEYS.iter().position(|key| key.path() == path);
            problems.push(match place.map(|place| &sources[place]) {
                None | Some(Source::Default) => Problem::new(format!("engine.{problem}")),
                Some(source) => Problem::new(format!("{source}: engine.{problem}")),
            });
        }
        if problems.is_empty()
            && let Err(problem) = configuration.store.database()
        {
            problems.push(Problem::new(problem));
        }
        if problems.is_empty() {
            let wrong = configuration.check_copies();
            problems.extend(wrong.into_iter().map(Problem::new));
        }
        // A command that takes only some of the keys cannot check this.
        if problems.is_empty() && KEYS.iter().all(|key| S::takes(&key.path())) {
            let key = "http.tls_client_certificates";
            let place = KEYS.iter().position(|each| each.path() == key);
            let names_certificates = matches!(
                place.map(|place| &sources[place]),
                Some(Source::Flag(_) | Source::Variable(_))
            );
            let wrong = configuration.check_access();
            problems.extend(wrong.into_iter().map(Problem::new));
            let unused = configuration.check_effects(names_certificates);
            problems.extend(unused.into_iter().map(Problem::new));
        }
        if problems.is_empty() {
            Ok(Resolved {
                configuration,
                sources,
            })
        } else {
            problems.sort_by_key(|problem| problem.line);
            Err(Problems(
                problems.into_iter().map(|problem| problem.text).collect(),
            ))
        }
    }
}
