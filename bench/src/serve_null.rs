//! `widgets-bench serve-null`: the do-nothing route.

use crate::null_store::NullStore;
use prometheus::Registry;
use std::{error::Error, io::Write as _, net::SocketAddr};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use widgets_clock::SystemClock;
use widgets_server::{Api, Limits, Settings};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(arguments.listen))
}

async fn serve(listen: SocketAddr) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    writeln!(std::io::stdout(), "bench listens on http://{address}")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        terminate.recv().await;
    };
    let (settings, clock) = (Settings::default(), SystemClock::new());
    let api = Api::new(NullStore, settings, Registry::new(), clock)?;
    widgets_server::serve(listener, &Limits::default(), move || api.clone(), stop).await?;
    Ok(())
}
