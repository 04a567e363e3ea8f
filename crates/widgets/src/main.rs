//! The one binary: the command line, and the wiring of store and server.

use clap::{Parser, Subcommand};
use std::{error::Error, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use widgets_engine::{Engine, Settings};

/// Registers widgets and associates them port to port.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the service on the embedded store.
    Serve {
        /// The address to listen on. Anyone who reaches it may do everything.
        #[arg(long, env = "WIDGETS_LISTEN", default_value = "127.0.0.1:3000")]
        listen: SocketAddr,
        /// The directory of the embedded store. Made where it is missing.
        #[arg(long, env = "WIDGETS_DATA_DIR", default_value = "widgets-data")]
        data_dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let Task::Serve { listen, data_dir } = Arguments::parse().task;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "starting the runtime failed");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(listen, data_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(listen: SocketAddr, data_dir: PathBuf) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(&data_dir, &Settings::default())?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("listening on {listen}: {error}"))?;
    let address = listener.local_addr()?;
    // For people and for scripts that let the system choose the port.
    writeln!(std::io::stdout(), "widgets listens on http://{address}")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: answering what was accepted");
    };
    axum::serve(listener, widgets_server::router(engine.client()))
        .with_graceful_shutdown(stop)
        .await?;
    drop(engine);
    tracing::info!("stopped");
    Ok(())
}
