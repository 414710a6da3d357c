//! Delay, jitter, rate and slices.

use std::time::Duration;

use pulsegate_chaos::Direction::{ToClient, ToTarget};
use pulsegate_chaos::Faults;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::bench::{Bench, assert_fin, assert_receives, pattern, send, within};

#[tokio::test]
async fn a_delay_holds_bytes_and_the_fin() {
    const DELAY: Duration = Duration::from_millis(80);
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    bench.control(&pair).set(ToTarget, Faults { delay: DELAY, ..Faults::default() });
    let start = Instant::now();
    send(&mut pair.client, b"late").await;
    within(pair.client.shutdown()).await.unwrap();
    assert_receives(&mut pair.target, b"late").await;
    assert!(start.elapsed() >= DELAY);
    assert_fin(&mut pair.target).await;
    // The other way is not delayed; only an upper bound that no busy machine breaks can show that.
    bench.control(&pair).set(ToTarget, Faults { delay: Duration::from_secs(3600), ..Faults::default() });
    send(&mut pair.target, b"prompt").await;
    assert_receives(&mut pair.client, b"prompt").await;
}

#[tokio::test]
async fn jitter_keeps_the_order() {
    let bench = Bench::new().await;
    let pair = bench.pair().await;
    bench.control(&pair).delay(Duration::from_millis(5), Duration::from_millis(5));
    let bytes = pattern(2000);
    let (mut client, mut target) = (pair.client, pair.target);
    let expected = bytes.clone();
    let sender = tokio::spawn(async move {
        for part in bytes.chunks(10) {
            client.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        client
    });
    assert_receives(&mut target, &expected).await;
    drop(within(sender).await.unwrap());
}

#[tokio::test]
async fn a_rate_is_kept() {
    const RATE: u64 = 100_000;
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    bench.control(&pair).rate(RATE);
    let bytes = pattern(20_000);
    let start = Instant::now();
    send(&mut pair.client, &bytes).await;
    assert_receives(&mut pair.target, &bytes).await;
    // 200 ms at this rate; the slack is 10 ms, once as credit and once as the size of a write.
    assert!(start.elapsed() >= Duration::from_millis(180), "took only {:?}", start.elapsed());
}

#[tokio::test]
async fn memory_is_bounded_when_nothing_may_pass() {
    let bench = Bench::new().await;
    let pair = bench.pair().await;
    bench.control(&pair).rate(0);
    let bytes = pattern(2 * pulsegate_chaos::LINK_BYTES_MAX + 8_000_000);
    let (mut client, mut target) = (pair.client, pair.target);
    let expected = bytes.clone();
    let sender = tokio::spawn(async move {
        client.write_all(&bytes).await.unwrap();
        client
    });
    let full = |held: usize| held == pulsegate_chaos::LINK_BYTES_MAX;
    bench.when(|connections| full(connections[0].to_target.held_bytes)).await;
    bench.proxy.all().heal();
    assert_receives(&mut target, &expected).await;
    drop(within(sender).await.unwrap());
}

/// The runtime has one thread, so proxy and reader take turns: what the reader sees at once is what the
/// proxy wrote at once, or little more.
#[tokio::test]
async fn slices_arrive_one_by_one() {
    const LEN: usize = 400;
    for (slice_bytes, reads_min) in [(Some(1), LEN / 4), (Some(7), LEN / 28)] {
        let bench = Bench::new().await;
        let mut pair = bench.pair().await;
        bench.control(&pair).update(ToClient, |faults| faults.slice_bytes = slice_bytes);
        let bytes = pattern(LEN);
        send(&mut pair.target, &bytes).await;
        let (mut received, mut reads) = (Vec::new(), 0);
        while received.len() < LEN {
            let mut some = [0; LEN];
            let len = within(pair.client.read(&mut some)).await.unwrap();
            assert_ne!(len, 0);
            received.extend_from_slice(&some[..len]);
            reads += 1;
        }
        assert!(received == bytes);
        assert!(reads >= reads_min, "{LEN} bytes came in {reads} reads");
    }
}
