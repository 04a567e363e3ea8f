//! Everything that happens in a simulation, as one number: two runs of a seed must agree on it.

use super::disk::Course;
use std::{
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Something that happened.
#[derive(Debug, Hash)]
pub(super) enum Event<'a> {
    Names {
        what: &'static str,
        name: &'a str,
        course: Course,
    },
    File {
        what: &'static str,
        name: &'a str,
        offset: u64,
        bytes: usize,
        checksum: u32,
        course: Course,
    },
    Asked {
        client: usize,
        request: &'a str,
    },
    Answered {
        client: usize,
        answer: &'a str,
    },
    HungUp {
        client: usize,
    },
    /// What the world does.
    World(&'a str),
}

/// All events so far.
pub(super) struct Trace {
    hasher: DefaultHasher,
    /// The events in words, if they are to be printed.
    story: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(is_told: bool) -> Self {
        Self {
            hasher: DefaultHasher::new(),
            story: is_told.then(Vec::new),
        }
    }

    pub(super) fn note(&mut self, event: &Event<'_>) {
        event.hash(&mut self.hasher);
        if let Some(story) = &mut self.story {
            story.push(format!("{event:?}"));
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(super) fn take_story(&mut self) -> Vec<String> {
        self.story.take().unwrap_or_default()
    }
}
