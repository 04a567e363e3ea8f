//! `widgets serve`: wires a store to the server and runs them until a signal.

use crate::Outcome;
use prometheus::Registry;
use std::{error::Error, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use widgets_engine::{Engine, Settings};
use widgets_server::{Api, Limits, SystemClock};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The address to listen on. Anyone who reaches it may do everything.
    #[arg(long, env = "WIDGETS_LISTEN", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// The directory of the embedded store. Made where it is missing.
    #[arg(long, env = "WIDGETS_DATA_DIR", default_value = "widgets-data")]
    data_dir: PathBuf,
}

pub(crate) fn run(arguments: Arguments) -> Outcome {
    // It accepts connections and waits for signals. Requests are served on the workers' own runtimes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(Arguments { listen, data_dir }: Arguments) -> Result<(), Box<dyn Error>> {
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
    let client = engine.client();
    let api = Api::new(
        client.clone(),
        widgets_server::Settings::default(),
        Registry::new(),
        SystemClock::new(),
    )?;
    let worker = move || api.with_store(client.on_current_runtime());
    widgets_server::serve(listener, &Limits::default(), worker, stop).await?;
    drop(engine);
    tracing::info!("stopped");
    Ok(())
}
