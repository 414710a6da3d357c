//! One end of a WebSocket connection, as both the clients and the app have it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The default of 128 KiB would be 640 MiB for 5,000 connections.
const READ_BUFFER_BYTES: usize = 2 * 1024;
const MESSAGE_BYTES: usize = 64;

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0)
}

/// How a connection came to its end, as this side saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A Close frame with this code (1005: with none).
    Close(u16),
    /// No Close frame: the connection broke.
    Broken,
}

/// Answers pings (tungstenite does), and sends `messages_per_s` from a random moment on, until the other
/// side ends it.
pub(crate) async fn talk(socket: &mut WebSocketStream<TcpStream>, messages_per_s: f64) -> End {
    let mut pace = (messages_per_s > 0.0).then(|| pace(messages_per_s));
    loop {
        tokio::select! {
            got = socket.next() => match got {
                Some(Ok(Message::Close(frame))) => return End::Close(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(
                    Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                )) => {}
                Some(Err(_)) | None => return End::Broken,
            },
            () = tick(&mut pace) => {
                // In the turn, not as an arm: nothing can drop it half way.
                #[allow(clippy::disallowed_methods, reason = "no select! can drop this future")]
                if socket.send(Message::Binary(vec![b'x'; MESSAGE_BYTES].into())).await.is_err() {
                    return End::Broken;
                }
            }
        }
    }
}

/// Reads on after a Close, so that the closing handshake ends.
pub(crate) async fn leave(mut socket: WebSocketStream<TcpStream>) {
    while let Some(Ok(_)) = socket.next().await {}
}

fn pace(messages_per_s: f64) -> Interval {
    let period = Duration::from_secs_f64(1.0 / messages_per_s);
    let mut pace = interval_at(Instant::now() + period.mul_f64(fastrand::f64()), period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

async fn tick(pace: &mut Option<Interval>) {
    match pace {
        Some(pace) => {
            pace.tick().await;
        }
        None => std::future::pending().await,
    }
}
