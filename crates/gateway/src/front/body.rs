//! Bodies on their way through, never held as a whole: they carry the word on how an upload goes.
//!
//! `Expect: 100-continue` (RFC 9110 section 10.1.1) works end to end because hyper's server sends its 100
//! when the body is first polled: the body is polled when the app has asked for it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What may go wrong with a body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// So long the app may stay silent after `Expect: 100-continue` before the body is sent all the same: a
/// client must not wait for ever on an app that never sends a 100 (RFC 9110 section 10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// The body waits for the app to ask for it.
const HELD: u8 = 0;
/// The body passes.
const OPEN: u8 = 1;
/// The app has answered without asking: the body must not be read.
const REFUSED: u8 = 2;
/// The answer is through as well: the connection to the app can go.
const OVER: u8 = 3;

/// How the body of one request goes.
pub(super) struct Upload {
    gate: AtomicU8,
    waker: AtomicWaker,
    state: Mutex<UploadState>,
}

#[derive(Clone, Copy)]
struct UploadState {
    moved: Instant,
    waits_for_client: bool,
    broken: bool,
}

/// Who lets an upload wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stalled {
    /// The client has more to send, and doesn't.
    Client,
    /// The app takes nothing, or has it all and does not answer.
    App,
}

/// A body held back until the app's 100, its final answer or [`CONTINUE_WAIT`] was abandoned.
#[derive(Debug, thiserror::Error)]
#[error("the app did not want the body")]
struct NotWanted;

impl Upload {
    pub(super) fn new(held: bool) -> Arc<Upload> {
        let state = UploadState { moved: Instant::now(), waits_for_client: false, broken: false };
        Arc::new(Upload {
            gate: AtomicU8::new(if held { HELD } else { OPEN }),
            waker: AtomicWaker::new(),
            state: Mutex::new(state),
        })
    }

    /// Lets the body pass: the app has sent 100.
    pub(super) fn open(&self) {
        self.turn(HELD, OPEN);
    }

    /// Keeps a body that still waits from ever being read: the app has answered. Tells whether it was.
    pub(super) fn refuse(&self) -> bool {
        self.turn(HELD, REFUSED)
    }

    /// Ends a body that was refused.
    fn end(&self) {
        self.turn(REFUSED, OVER);
    }

    /// Tells whether the client broke off, or broke the framing.
    pub(super) fn is_broken(&self) -> bool {
        self.state().broken
    }

    /// Waits until the body has not moved for `limit`, be it on its way or sent.
    ///
    /// # Cancel safety
    /// Holds nothing.
    pub(super) async fn stalled(&self, limit: Duration) -> Stalled {
        loop {
            let deadline = self.state().moved + limit;
            if Instant::now() >= deadline {
                let waits_for_client = self.state().waits_for_client;
                return if waits_for_client { Stalled::Client } else { Stalled::App };
            }
            sleep_until(deadline).await;
        }
    }

    fn turn(&self, from: u8, to: u8) -> bool {
        let turned = self.gate.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if turned {
            self.waker.wake();
        }
        turned
    }

    fn state(&self) -> UploadState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, waits_for_client: bool, broken: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Waiting is no movement.
        let moved = if waits_for_client { state.moved } else { Instant::now() };
        *state = UploadState { moved, waits_for_client, broken };
    }
}

/// A client's body on its way to the app.
pub(super) struct RequestBody {
    inner: Option<Incoming>,
    upload: Arc<Upload>,
    patience: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, upload: &Arc<Upload>) -> RequestBody {
        RequestBody { inner: Some(inner), upload: Arc::clone(upload), patience: None }
    }

    /// A body that has nothing.
    pub(super) fn empty() -> RequestBody {
        RequestBody { inner: None, upload: Upload::new(false), patience: None }
    }

    /// Ready when the body may be read.
    fn poll_gate(&mut self, context: &mut Context<'_>) -> Poll<Result<(), NotWanted>> {
        if self.upload.gate.load(Ordering::Acquire) == OPEN {
            return Poll::Ready(Ok(()));
        }
        self.upload.waker.register(context.waker());
        // The first poll comes when the head is on its way to the app.
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(CONTINUE_WAIT)));
        if self.upload.gate.load(Ordering::Acquire) == HELD && patience.as_mut().poll(context).is_ready() {
            self.upload.open();
        }
        match self.upload.gate.load(Ordering::Acquire) {
            OPEN => Poll::Ready(Ok(())),
            OVER => Poll::Ready(Err(NotWanted)),
            _ => Poll::Pending,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        ready!(self.poll_gate(context))?;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let polled = Pin::new(inner).poll_frame(context);
        let broken = matches!(polled, Poll::Ready(Some(Err(_))));
        self.upload.set_state(polled.is_pending(), broken);
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An app's body on its way to the client.
pub(super) struct ResponseBody {
    inner: Incoming,
    upload: Option<Arc<Upload>>,
}

impl ResponseBody {
    /// `upload` is the body of the same request, if it had one that may still be held back.
    pub(super) fn new(inner: Incoming, upload: Option<Arc<Upload>>) -> ResponseBody {
        ResponseBody { inner, upload }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    /// hyper drops a body as soon as it has its last byte.
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.end();
        }
    }
}
