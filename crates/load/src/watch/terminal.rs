//! The live view in a terminal: opening it, its keys, and restoring it.

use super::{Subject, view::View};
use crate::session::Tick;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
};
use std::{io, ops::ControlFlow, time::Duration};

/// A terminal that is drawn on until this is dropped.
pub(super) struct Terminal {
    terminal: DefaultTerminal,
    view: View,
}

impl Terminal {
    pub(super) fn open(subject: Subject) -> io::Result<Self> {
        Ok(Self {
            terminal: ratatui::try_init()?,
            view: View::new(subject),
        })
    }

    pub(super) fn begin(&mut self, phase: &str, length: Option<Duration>) {
        self.view.begin(phase, length);
        self.draw();
    }

    /// Draws, and checks whether the user wants to stop.
    pub(super) fn tick(&mut self, tick: &Tick<'_>) -> ControlFlow<()> {
        self.view.take(tick);
        self.draw();
        if Self::wants_to_stop() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Reports whether the user pressed a key that stops the run.
    pub(super) fn wants_to_stop() -> bool {
        // In raw mode Ctrl-C is a key like any other. A terminal that cannot be read stops nothing.
        while event::poll(Duration::ZERO).unwrap_or(false) {
            if let Ok(Event::Key(key)) = event::read() {
                let control_c =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if control_c || key.code == KeyCode::Char('q') {
                    return true;
                }
            }
        }
        false
    }

    fn draw(&mut self) {
        // A terminal that has gone away must not end a run that others wait for.
        drop(self.terminal.draw(|frame| self.view.draw(frame)));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
