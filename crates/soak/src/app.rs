//! The app: it says numbered messages to each client and notes what it gets. It knows nothing of pulsegate.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::clock;
use crate::history::Way;
use crate::message::Name;
use crate::world::World;

type Write = futures_util::stream::SplitSink<WebSocketStream<TcpStream>, Message>;

/// How far it runs ahead of what its client has got. More than the gateway's window, so that the gateway does stop reading;
/// but an app that fills megabytes of socket buffers answers pings behind all that, and acknowledges as late.
const AHEAD_MAX: u64 = 1200;

/// How often one that is ahead looks whether it still is.
const LOOK: Duration = Duration::from_millis(5);

/// Messages that leave together, when there is no hurry.
const FLUSH_EVERY: u64 = 16;

/// Takes connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, world: Arc<World>) {
    while let Ok((stream, _)) = listener.accept().await {
        // As most servers do; without it, waiting for each other's packets would be what is measured.
        let _ = stream.set_nodelay(true);
        tokio::spawn(speak(stream, Arc::clone(&world)));
    }
}

async fn speak(stream: TcpStream, world: Arc<World>) {
    let mut who = None;
    #[allow(clippy::result_large_err, reason = "the type is tungstenite's")]
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        who = request.uri().query().and_then(|query| query.strip_prefix("who=")).map(str::to_owned);
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async(stream, note).await else { return };
    let (write, mut read) = socket.split();
    let client = who.as_deref().and_then(|who| who.strip_prefix("v1-")?.parse::<usize>().ok());
    let Some(client) = client else {
        // An unmodified client: it is told things by others.
        while let Some(Ok(_)) = read.next().await {}
        return;
    };
    let connection = world.history.app_opened(client, clock());
    let writing = tokio::spawn(say(write, client, Arc::clone(&world)));
    while let Some(Ok(message)) = read.next().await {
        if message.is_text() || message.is_binary() {
            let text = message.is_text();
            world.history.arrive(client, Way::ToApp, connection, text, &message.into_data(), clock());
        }
    }
    world.history.app_closed(client, clock());
    writing.abort();
}

async fn say(mut write: Write, client: usize, world: Arc<World>) {
    // Whoever can't write is told so by reading.
    let _ = async {
        for _ in 0..world.messages {
            if world.history.ahead(client, Way::ToClient) >= AHEAD_MAX {
                write.flush().await?;
                while world.history.ahead(client, Way::ToClient) >= AHEAD_MAX && !world.quiet.is_cancelled() {
                    sleep(LOOK).await;
                }
            }
            if world.quiet.is_cancelled() {
                break;
            }
            let number = world.history.send(client, Way::ToClient);
            let name = Name { client, way: Way::ToClient, number };
            let message = match name.is_text() {
                true => Message::text(String::from_utf8(name.payload()).expect("it is ASCII")),
                false => Message::binary(name.payload()),
            };
            write.feed(message).await?;
            if number.is_multiple_of(FLUSH_EVERY) {
                write.flush().await?;
            }
        }
        write.flush().await
    }
    .await;
    // Kept until the reader is done with it.
    std::future::pending::<()>().await;
}
