//! Programs of the lowest priority that keep the cores from falling asleep.

use std::{
    error::Error,
    process::{Child, Command},
};

/// One for each core; they end when this is dropped.
pub(crate) struct Busy(Vec<Child>);

impl Busy {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let mut busy = Self(Vec::new());
        for _ in 0..std::thread::available_parallelism()?.get() {
            // SCHED_IDLE: it runs where nothing else wants to.
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(std::env::current_exe()?);
            let child = command.arg("spin").spawn();
            busy.0
                .push(child.map_err(|error| format!("{command:?}: {error}"))?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// `widgets-bench spin`: such a program. It ends when whoever started it is gone.
pub(crate) fn spin() {
    let parent = rustix::process::getppid();
    while rustix::process::getppid() == parent {
        for _ in 0..10_000_000 {
            std::hint::spin_loop();
        }
    }
}
