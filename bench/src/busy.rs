//! Processes of the lowest priority that keep the cores out of idle states.

use std::{
    error::Error,
    process::{Child, Command},
};

/// One process for each core. Dropping this ends them.
pub(crate) struct Busy(Vec<Child>);

impl Busy {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let mut busy = Self(Vec::new());
        for _ in 0..std::thread::available_parallelism()?.get() {
            // SCHED_IDLE: it runs only when nothing else wants the core.
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

/// `widgets-bench spin`: the loop of one of these processes. It ends when its parent has ended.
pub(crate) fn spin() {
    let parent = rustix::process::getppid();
    while rustix::process::getppid() == parent {
        for _ in 0..10_000_000 {
            std::hint::spin_loop();
        }
    }
}
