//! The least that a proxy can do: copies bytes both ways, looks at nothing, watches nobody.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::report;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    app: SocketAddr,
}

/// Runs until stdin ends; says its address on stdout.
///
/// # Errors
/// It can't listen.
#[tokio::main]
pub(crate) async fn run(options: Options) -> Result<()> {
    crate::machine::raise_open_files(0)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    report::result(&listener.local_addr()?.to_string());
    let accepting = tokio::spawn(accept(listener, options.app));
    // Who started it keeps the other end.
    let _ = tokio::io::stdin().read(&mut [0]).await;
    accepting.abort();
    Ok(())
}

async fn accept(listener: TcpListener, app: SocketAddr) {
    loop {
        // A client that is gone again is no reason to stop.
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(copy(client, app));
    }
}

async fn copy(mut client: TcpStream, app: SocketAddr) -> std::io::Result<()> {
    let mut app = TcpStream::connect(app).await?;
    client.set_nodelay(true)?;
    app.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut app).await?;
    Ok(())
}
