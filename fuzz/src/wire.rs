//! hyper over memory: heads are read and written by the parser that the gateway uses, without a socket.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, request, response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{client, server};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    // hyper arms a timer for each head; it never fires here, since the input is over at once.
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().build().expect("a runtime without I/O needs no resource");
}

/// Reads all requests that a client's bytes hold, in reads of at most `read_bytes_max`.
pub(crate) fn requests(
    server: &server::conn::http1::Builder,
    input: &[u8],
    read_bytes_max: usize,
) -> Vec<request::Parts> {
    let heads = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| {
        heads.borrow_mut().push(request.into_parts().0);
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    let (io, _written) = Memory::new(input, read_bytes_max, false);
    // How it ends is hyper's business: a head that it can't read never gets to us.
    let _ = RUNTIME.with(|runtime| runtime.block_on(server.serve_connection(TokioIo::new(io), service)));
    heads.into_inner()
}

/// Sends a request to an app that answers with `input`; returns the bytes sent and the answer's head, if any.
pub(crate) fn exchange(
    client: &client::conn::http1::Builder,
    request: Request<Empty<Bytes>>,
    input: &[u8],
    read_bytes_max: usize,
) -> (Vec<u8>, Option<response::Parts>) {
    let (io, written) = Memory::new(input, read_bytes_max, true);
    let answer = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut sender, connection) =
                client.handshake(TokioIo::new(io)).await.expect("HTTP/1 sends nothing before a request");
            let answer = async move {
                let answer = sender.send_request(request).await;
                // The connection ends once there is nobody to ask for more.
                drop(sender);
                answer.ok().map(|answer| answer.into_parts().0)
            };
            futures_util::future::join(answer, connection).await.0
        })
    });
    (written.take(), answer)
}

/// A connection: what comes is known, what goes is kept.
struct Memory {
    input: Bytes,
    read_bytes_max: usize,
    /// The peer says nothing before it was spoken to.
    answers: bool,
    waiting: Option<Waker>,
    written: Rc<RefCell<Vec<u8>>>,
}

impl Memory {
    fn new(input: &[u8], read_bytes_max: usize, answers: bool) -> (Memory, Rc<RefCell<Vec<u8>>>) {
        let written = Rc::default();
        let input = Bytes::copy_from_slice(input);
        (Memory { input, read_bytes_max, answers, waiting: None, written: Rc::clone(&written) }, written)
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.answers && self.written.borrow().is_empty() {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = self.input.len().min(buffer.remaining()).min(self.read_bytes_max);
        buffer.put_slice(&self.input.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(bytes);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
