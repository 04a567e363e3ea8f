//! The observers of a run: the terminal view or plain lines, the HDR log, and live metrics.

mod hdr;
mod plain;
mod push;
mod terminal;
mod view;

pub(crate) use push::Push;

use crate::{
    error::Error,
    session::{Observer, Tick},
};
use std::{ops::ControlFlow, path::Path, time::Duration};
use tokio::time::sleep;

/// The identity of a run, for those who show it.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) run: String,
    pub(crate) url: String,
}

/// All observers of one run.
pub(crate) struct Watch {
    screen: Screen,
    hdr: Option<hdr::HdrLog>,
    push: Option<Push>,
    /// The current phase, such as `warm-up`. Only measured stretches go to the HDR log.
    phase: String,
    measured: bool,
}

enum Screen {
    Terminal(Box<terminal::Terminal>),
    Plain(Box<plain::Plain>),
}

impl Watch {
    pub(crate) fn new(
        subject: &Subject,
        terminal: bool,
        hdr: Option<&Path>,
        push: Option<Push>,
    ) -> Result<Self, Error> {
        let screen = if terminal {
            let terminal = terminal::Terminal::open(subject.clone()).map_err(Error::Thread)?;
            Screen::Terminal(Box::new(terminal))
        } else {
            Screen::Plain(Box::default())
        };
        let hdr = hdr.map(hdr::HdrLog::create).transpose()?;
        Ok(Self {
            screen,
            hdr,
            push,
            phase: String::new(),
            measured: false,
        })
    }

    /// Announces the next phase, and how long it will take, if that is known.
    pub(crate) fn phase(
        &mut self,
        phase: impl Into<String>,
        length: Option<Duration>,
        measured: bool,
    ) {
        self.phase = phase.into();
        self.measured = measured;
        match &mut self.screen {
            Screen::Terminal(terminal) => terminal.begin(&self.phase, length),
            Screen::Plain(plain) => plain.begin(&self.phase),
        }
    }

    /// Returns once the user wants to stop, which a terminal reports instead of the signal of
    /// Ctrl-C. For phases without ticks.
    pub(crate) async fn stopped(&self) {
        const PERIOD: Duration = Duration::from_millis(100);
        let Screen::Terminal(_) = &self.screen else {
            return std::future::pending().await;
        };
        while !terminal::Terminal::wants_to_stop() {
            sleep(PERIOD).await;
        }
    }

    /// Restores the terminal, and finishes the files if there was a run.
    pub(crate) async fn close(self, was_run: bool) -> Result<(), Error> {
        drop(self.screen);
        if let Some(push) = self.push {
            push.close().await;
        }
        match self.hdr {
            Some(hdr) if was_run => hdr.close(),
            _ => Ok(()),
        }
    }
}

impl Observer for Watch {
    fn tick(&mut self, tick: &Tick<'_>) -> ControlFlow<()> {
        if let (Some(hdr), true) = (&mut self.hdr, self.measured) {
            hdr.tick(tick);
        }
        if let Some(push) = &mut self.push {
            push.tick(tick, &self.phase);
        }
        match &mut self.screen {
            Screen::Terminal(terminal) => terminal.tick(tick),
            Screen::Plain(plain) => {
                plain.tick(tick);
                ControlFlow::Continue(())
            }
        }
    }
}
