//! Frames over a socket.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink as _, Stream as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::http::{Uri, header::SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::task::clock;
use crate::event::{Frame, Transmit};
use crate::machine::Machine;

/// Bytes that wait for the socket before no more are taken from the machine.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// A connection whose handshake is done.
#[derive(Debug)]
pub(super) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What became of dialing.
#[derive(Debug)]
pub(super) enum Dialed {
    Open(Box<Socket>, Option<String>),
    /// The server took none of our subprotocols.
    Refused,
    Failed,
}

/// What came.
#[derive(Debug)]
pub(super) enum Input {
    Text(Utf8Bytes),
    Binary(Bytes),
    SignOfLife,
    Close(Option<CloseFrame>),
    Lost,
}

/// Dials, and offers `subprotocols`.
pub(super) async fn dial(uri: Uri, subprotocols: Vec<String>, limit: Duration) -> Dialed {
    let mut request = ClientRequestBuilder::new(uri);
    for subprotocol in subprotocols {
        request = request.with_sub_protocol(subprotocol);
    }
    let config =
        WebSocketConfig::default().read_buffer_size(WRITE_BUFFER_BYTES).write_buffer_size(WRITE_BUFFER_BYTES);
    match timeout(limit, connect_async_with_config(request, Some(config), true)).await {
        Ok(Ok((stream, response))) => {
            let protocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
            let protocol = protocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
            Dialed::Open(Box::new(Socket(stream)), protocol)
        }
        Ok(Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)))) => Dialed::Refused,
        Ok(Err(_)) | Err(_) => Dialed::Failed,
    }
}

impl Socket {
    /// Writes what the machine has, and waits for input.
    ///
    /// # Cancel safety
    /// What was taken from the machine is in the socket's buffer, and input is returned as soon as it was read.
    pub(super) async fn next<T: Copy>(&mut self, machine: &mut Machine<T>) -> Input {
        poll_fn(|cx| {
            let wrote = self.poll_write(cx, machine);
            if !machine.wants_input() {
                return if wrote.is_err() { Poll::Ready(Input::Lost) } else { Poll::Pending };
            }
            // Why writing fails may stand in what waits to be read.
            match self.poll_read(cx) {
                Poll::Pending if wrote.is_err() => Poll::Ready(Input::Lost),
                Poll::Pending => Poll::Pending,
                Poll::Ready(input) => Poll::Ready(input),
            }
        })
        .await
    }

    fn poll_write<T: Copy>(&mut self, cx: &mut Context<'_>, machine: &mut Machine<T>) -> Result<(), Error> {
        let mut stream = Pin::new(&mut self.0);
        while let Poll::Ready(ready) = stream.as_mut().poll_ready(cx) {
            ready?;
            let Some(transmit) = machine.poll_transmit(clock()) else { break };
            stream.as_mut().start_send(to_message(transmit))?;
        }
        match stream.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let mut stream = Pin::new(&mut self.0);
        Poll::Ready(match ready!(stream.as_mut().poll_next(cx)) {
            Some(Ok(Message::Text(text))) => Input::Text(text),
            Some(Ok(Message::Binary(payload))) => Input::Binary(payload),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Input::SignOfLife,
            Some(Ok(Message::Close(close))) => {
                // The answer to it; the connection is dropped next, and whoever can't take it does without.
                let _ = stream.poll_flush(cx);
                Input::Close(close)
            }
            Some(Err(_)) | None => Input::Lost,
        })
    }

    /// Cuts the connection with a reset.
    pub(super) fn cut(self) {
        if let MaybeTlsStream::Plain(tcp) = self.0.get_ref() {
            // Without it the connection ends with a FIN, which does as well.
            let _ = tcp.set_zero_linger();
        }
    }
}

fn to_message(transmit: Transmit) -> Message {
    match transmit {
        Transmit::Frame(Frame { text: true, payload }) => {
            let text = Utf8Bytes::try_from(payload).expect("the machine takes no other text");
            Message::Text(text)
        }
        Transmit::Frame(Frame { text: false, payload }) => Message::Binary(payload.into()),
        Transmit::Close { code, reason } => {
            Message::Close(Some(CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) }))
        }
    }
}
