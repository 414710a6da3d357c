//! A session that fails by a fault of ours takes nobody else with it, and is not left listed.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pulsegate_core::EndReason;
use pulsegate_registry::Ending;

/// A future whose panic is its end. The panic hook has told of it by then.
pub(super) struct Fused<'a, F>(pub(super) &'a mut F);

/// It panicked, and must not be polled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;

impl<F: Future<Output = ()> + Unpin> Future for Fused<'_, F> {
    type Output = Result<(), Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What it leaves behind is only dropped.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *self.0).poll(cx)));
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Failed)),
        }
    }
}

/// What its peers see: connections that are cut.
pub(super) fn failed() -> Ending {
    let detail = Some("the session failed in the gateway");
    Ending { reason: EndReason::Reset, leg: None, close: None, detail, verdict: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_end_and_anything_else_stays_what_it_is() {
        assert_eq!(Fused(&mut std::future::ready(())).await, Ok(()));
        let mut broken = Box::pin(async { assert!(std::hint::black_box(false), "a fault of ours") });
        assert_eq!(Fused(&mut broken).await, Err(Failed));
    }
}
