//! Names that many widgets share, told apart by small numbers while a start puts all in order.
//!
//! Where a few names are those of many widgets, they need not be sorted widget by widget: each name gets
//! a number when it is met first, and only the names are sorted. As many names as widgets are given up
//! early, and cost nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// More names are not few.
const NAMES_MAX: usize = if cfg!(test) { 6 } else { 1 << 15 };

/// Every name that was met.
#[derive(Default)]
pub(super) struct Names<'a>(Mutex<HashMap<&'a str, u16>>);

/// What one thread meets.
pub(super) struct Met<'n, 'a> {
    names: &'n Names<'a>,
    /// Those that this thread has met.
    known: HashMap<&'a str, u16>,
    /// By the name's number, of how many widgets it is.
    pub(super) widgets: Vec<u32>,
}

impl<'a> Names<'a> {
    /// For one thread.
    pub(super) fn meet(&self) -> Met<'_, 'a> {
        Met {
            names: self,
            known: HashMap::new(),
            widgets: Vec::new(),
        }
    }

    /// The numbers of the names in the order of the names.
    pub(super) fn sorted(self) -> Vec<u16> {
        let names = self.0.into_inner();
        let names = names.unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<(&str, u16)> = names.into_iter().collect();
        names.sort_unstable();
        names.into_iter().map(|(_, number)| number).collect()
    }
}

impl<'a> Met<'_, 'a> {
    /// The number of this name, which is one widget's more; `None` where there are too many names.
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
