//! The reasons why a run could not be made.

use std::io;

/// Why there is no result. Faults of the server are results, not errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is outside its limits.
    #[error("{setting} must be {limit}, {given} was given")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The setting's limits.
        limit: String,
        /// The value that was given.
        given: String,
    },
    /// The target cannot be used.
    #[error("{0}")]
    Target(String),
    /// The server does not answer.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server answers, but not as a widgets server does.
    #[error("this is not a widgets server: GET {path} answered status {status}: {body}")]
    Strange {
        /// The path that was requested.
        path: String,
        /// The answer's status.
        status: u16,
        /// The beginning of the answer's body.
        body: String,
    },
    /// The server does not accept the token, or requires one and none was given.
    #[error("the server requires another token (--token): it answered status {status}")]
    Token {
        /// The answer's status.
        status: u16,
    },
    /// Metrics cannot be pushed to the URL that was given.
    #[error("metrics cannot be pushed to {url}: {cause}")]
    Push {
        /// The URL.
        url: String,
        /// Why the push failed.
        cause: String,
    },
    /// Another run has used these serial numbers.
    #[error("widgets of run {run} exist already: choose another --run")]
    RunTaken {
        /// The run's name.
        run: String,
    },
    /// The server does not hold the dataset.
    #[error(
        "the server does not hold the dataset (there is no widget {serial_number}): \
         make it with `widgets generate`"
    )]
    NoDataset {
        /// A widget that should exist.
        serial_number: String,
    },
    /// The server holds widgets with the dataset's names, but not as they were generated.
    #[error(
        "the server does not hold the dataset {dataset} as it was made: of {sampled} widgets that were \
         looked at {different} {} different, such as {serial_number}, {difference}. A run changes its \
         dataset: generate a fresh one in an empty store, or take a part that no run has used \
         (--dataset-part). Another seed or share of associated slots is another dataset",
        if *different == 1 { "is" } else { "are" }
    )]
    DatasetChanged {
        /// The dataset.
        dataset: String,
        /// How many widgets were looked up.
        sampled: usize,
        /// How many of them are different.
        different: usize,
        /// One of those.
        serial_number: String,
        /// How it is different.
        difference: String,
    },
    /// A thread, a signal handler or a runtime could not be set up.
    #[error("setting the load generator up: {0}")]
    Thread(io::Error),
    /// A worker ended unexpectedly.
    #[error("a worker of the load generator ended: {0}")]
    Worker(String),
    /// The audit timed out.
    #[error("it was not done after {seconds} s, nothing is proven")]
    AuditLate {
        /// The timeout, in seconds.
        seconds: u64,
    },
    /// The server could not be reached during the audit.
    #[error(
        "the server has not answered for {seconds} s ({cause}), nothing is proven. --during-crash waits \
         for one that comes back"
    )]
    AuditUnreachable {
        /// For how many seconds.
        seconds: u64,
        /// Why, as far as that is known.
        cause: String,
    },
    /// The feed of changes cannot be followed.
    #[error("the feed of changes cannot be followed: {0}")]
    Feed(String),
    /// A signal arrived before any load was applied.
    #[error("interrupted before the load began: nothing was sent")]
    Interrupted,
    /// A signal ended the audit.
    #[error("a signal ended the run before it was done, nothing is proven")]
    AuditInterrupted,
    /// A file could not be read or written.
    #[error("{0}")]
    File(String),
    /// The content of a file is wrong.
    #[error("{what}: {cause}")]
    Content {
        /// The file.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
}
