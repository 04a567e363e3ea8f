//! The configuration: what can be set, where from, and whether it is right.
//!
//! A flag wins over an environment variable, that over the configuration file, that over the default.
//! Everything is read and checked before anything is opened, and every problem is told at once.
//! [`keys`] is the one list that all of it is made of. To add a key, add it there and hand it to the
//! part that it sets.

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
pub(crate) use values::{LogFormat, StoreKind};

use given::{Origin, Scope};
use keys::KEYS;
use std::{fmt, io, path::PathBuf};
use widgets_engine::OpenError;
use widgets_files::read_short;
use widgets_load::os_error::explain;

/// The values that hold, and where each comes from.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) configuration: Configuration,
    /// By the keys' places in [`KEYS`].
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

/// One thing that is wrong with a configuration.
struct Problem {
    /// The line in the file, or [`NO_LINE`].
    line: usize,
    text: String,
}

/// Sorts what is not from the file behind what is.
const NO_LINE: usize = usize::MAX;

impl Problem {
    fn new(text: String) -> Self {
        let line = NO_LINE;
        Self { line, text }
    }
}

/// Everything that is wrong with a configuration, a line for each problem.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Problems(Vec<String>);

impl Resolved {
    /// Whether the flags themselves, not a variable or a file, give the key of this path.
    pub(crate) fn is_flag(&self, path: &str) -> bool {
        self.source(path)
            .is_some_and(|source| matches!(source, Source::Flag(_)))
    }

    /// Whether the key of this path has the default only because nothing gives it.
    pub(crate) fn is_default(&self, path: &str) -> bool {
        self.source(path) == Some(&Source::Default)
    }

    fn source(&self, path: &str) -> Option<&Source> {
        let place = KEYS.iter().position(|key| key.path() == path)?;
        self.sources.get(place)
    }
}

/// What was read, if it is text.
pub(crate) fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl<S: Scope> Given<S> {
    /// Reads the file, takes what wins, and checks all of it.
    pub(crate) fn resolve(self) -> Result<Resolved, Problems> {
        let mut problems = Vec::new();
        let mut configuration = Configuration::default();
        let mut sources = vec![Source::Default; KEYS.len()];
        // What wins comes last. What loses is checked all the same.
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
        // How settings hang together can only be said of settings that are right in themselves.
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
        // Whoever takes only a part of it does not know enough to say.
        if problems.is_empty() && KEYS.iter().all(|key| S::takes(&key.path())) {
            let wrong = configuration.check_access();
            problems.extend(wrong.into_iter().map(Problem::new));
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
