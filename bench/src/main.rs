//! Side-by-side comparisons behind `docs/performance.md`.

mod null_store;

use clap::{Parser, Subcommand};
use prometheus::Registry;
use std::{error::Error, io::Write as _, net::SocketAddr};
use tokio::net::TcpListener;
use widgets_server::{Api, Limits, Settings, SystemClock};

/// Compares the service with named peers, in one run, alternating.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the same routes as `widgets serve` over a store that does nothing.
    ServeNull {
        /// The address to listen on.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { command } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match command {
        Command::ServeNull { listen } => runtime.block_on(serve_null(listen)),
    }
}

async fn serve_null(listen: SocketAddr) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    writeln!(std::io::stdout(), "bench listens on http://{address}")?;
    let stop = async {
        drop(tokio::signal::ctrl_c().await);
    };
    let api = Api::new(
        null_store::NullStore,
        Settings::default(),
        Registry::new(),
        SystemClock::new(),
    )?;
    widgets_server::serve(listener, &Limits::default(), move || api.clone(), stop).await?;
    Ok(())
}
