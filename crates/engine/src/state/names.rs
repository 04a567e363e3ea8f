//! Names that many widgets share, represented by small numbers while a start sorts the widgets.
//!
//! If many widgets share a few names, the widgets need not be sorted by comparing names: each name
//! gets a number when it is first seen, and only the names are sorted. If there are almost as many
//! names as widgets, this is given up early, at no cost.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// The most names that count as few.
const NAMES_MAX: usize = if cfg!(test) { 6 } else { 1 << 15 };

/// Every name seen so far, with its number.
#[derive(Default)]
pub(super) struct Names<'a>(Mutex<HashMap<&'a str, u16>>);

/// What one thread has seen.
pub(super) struct Met<'n, 'a> {
    names: &'n Names<'a>,
    /// The names that this thread has seen.
    known: HashMap<&'a str, u16>,
    /// The number of widgets with each name, by the name's number.
    pub(super) widgets: Vec<u32>,
}

impl<'a> Names<'a> {
    /// Begins counting for one thread.
    pub(super) fn meet(&self) -> Met<'_, 'a> {
        Met {
            names: self,
            known: HashMap::new(),
            widgets: Vec::new(),
        }
    }

    /// Returns the names' numbers in the order of the names.
    pub(super) fn sorted(self) -> Vec<u16> {
        let names = self.0.into_inner();
        let names = names.unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<(&str, u16)> = names.into_iter().collect();
        names.sort_unstable();
        names.into_iter().map(|(_, number)| number).collect()
    }
}

impl<'a> Met<'_, 'a> {
    /// Returns the number of this name and counts one more widget for it. Returns `None` if there
    /// are too many names.
    pub(super) fn number(&mut self, name: &'a str) -> Option<u16> {
        let number = match self.known.get(name) {
            Some(&number) => number,
            None => self.meet(name)?,
        };
        self.widgets[usize::from(number)] += 1;
        Some(number)
    }

    fn meet(&mut self, name: &'a str) -> Option<u16> {
        let mut names = self.names.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u16::try_from(names.len()).ok()?;
        let number = *names.entry(name).or_insert(next);
        if names.len() > NAMES_MAX {
            return None;
        }
        self.known.insert(name, number);
        let numbers = self.widgets.len().max(usize::from(number) + 1);
        self.widgets.resize(numbers, 0);
        Some(number)
    }
}
