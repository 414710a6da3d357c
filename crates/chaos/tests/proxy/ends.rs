//! Resets, half-closes and cuts; and ends of the peers' own that must pass.

use pulsegate_chaos::Direction::{ToClient, ToTarget};
use pulsegate_chaos::{FaultProxy, Faults};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{
    Bench, assert_fin, assert_receives, assert_reset, assert_silent, listen, pattern, reset, send, within,
};

#[tokio::test]
async fn a_clean_line_passes_bytes_and_fins() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    send(&mut pair.client, b"question").await;
    within(pair.client.shutdown()).await.unwrap();
    assert_receives(&mut pair.target, b"question").await;
    assert_fin(&mut pair.target).await;
    send(&mut pair.target, b"answer after the FIN").await;
    assert_receives(&mut pair.client, b"answer after the FIN").await;
    let info = &bench.proxy.connections()[0];
    assert_eq!((info.to_target.forwarded_bytes, info.to_client.forwarded_bytes), (8, 20));
    drop(pair.target);
    assert_fin(&mut pair.client).await;
    bench.assert_empty().await;
}

#[tokio::test]
async fn a_peers_reset_passes() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    send(&mut pair.client, b"last").await;
    assert_receives(&mut pair.target, b"last").await;
    reset(pair.client);
    assert_reset(&mut pair.target).await;
    let mut pair = bench.pair().await;
    reset(pair.target);
    assert_reset(&mut pair.client).await;
    bench.assert_empty().await;
}

/// The proxy is full and does not read; the reset is news all the same.
#[tokio::test]
async fn a_peers_reset_overtakes_bytes_that_nobody_takes() {
    let bench = Bench::new().await;
    let pair = bench.pair().await;
    let (client, mut target) = (pair.client, pair.target);
    // Stuff everything between the two until the proxy's own buffer is full.
    let bytes = pattern(64 * 1024);
    let full =
        bench.when(|connections| connections[0].to_target.held_bytes == pulsegate_chaos::LINK_BYTES_MAX);
    tokio::pin!(full);
    loop {
        tokio::select! {
            _ = &mut full => break,
            written = client.writable() => { written.unwrap(); let _ = client.try_write(&bytes); }
        }
    }
    reset(client);
    bench.assert_empty().await;
    let mut rest = Vec::new();
    let error = within(target.read_to_end(&mut rest)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_reaches_both_ends_frozen_or_not() {
    for frozen in [false, true] {
        let bench = Bench::new().await;
        let mut pair = bench.pair().await;
        let control = bench.control(&pair);
        if frozen {
            control.freeze();
        }
        control.reset();
        assert_reset(&mut pair.client).await;
        assert_reset(&mut pair.target).await;
        bench.assert_empty().await;
        control.heal();
    }
}

#[tokio::test]
async fn a_reset_reaches_a_client_whose_target_was_not_dialled() {
    let bench = Bench::new().await;
    bench.proxy.all().freeze();
    let mut client = bench.connect().await;
    bench.info_of(client.local_addr().unwrap()).await;
    bench.proxy.all().reset();
    assert_reset(&mut client).await;
    bench.assert_empty().await;
}

#[tokio::test]
async fn a_target_that_refuses_resets_the_client() {
    let target = listen().await;
    let nobody = target.local_addr().unwrap();
    drop(target);
    let proxy = FaultProxy::start(listen().await, nobody);
    let mut client = within(tokio::net::TcpStream::connect(proxy.local_addr())).await.unwrap();
    assert_reset(&mut client).await;
}

#[tokio::test]
async fn a_half_close_ends_one_way_only() {
    for direction in [ToTarget, ToClient] {
        let bench = Bench::new().await;
        let mut pair = bench.pair().await;
        let control = bench.control(&pair);
        let (from, to) = match direction {
            ToTarget => (&mut pair.client, &mut pair.target),
            ToClient => (&mut pair.target, &mut pair.client),
        };
        send(from, b"before").await;
        assert_receives(to, b"before").await;
        control.half_close(direction);
        assert_fin(to).await;
        send(from, b"dropped").await;
        send(to, b"the other way works").await;
        assert_receives(from, b"the other way works").await;
        within(to.shutdown()).await.unwrap();
        assert_fin(from).await;
        drop(pair);
        bench.assert_empty().await;
    }
}

#[tokio::test]
async fn a_half_close_of_a_frozen_way_waits_for_the_heal() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    let control = bench.control(&pair);
    control.freeze_direction(ToClient);
    control.half_close(ToClient);
    assert_silent(&mut pair.client).await;
    control.heal();
    assert_fin(&mut pair.client).await;
}

/// Every length of a recorded exchange, in whole and in slices.
#[tokio::test]
async fn a_cut_lets_exactly_so_many_bytes_pass() {
    const TALK: &[u8] = b"GET /ws HTTP/1.1";
    for limit in 0..=TALK.len() {
        let bench = Bench::new().await;
        bench.proxy.all().slice(1 + limit % 4);
        bench.proxy.all().cut_after(ToTarget, limit as u64);
        let mut client = bench.connect().await;
        let mut target = bench.accept().await;
        // The cut may come first.
        let _ = client.write_all(TALK).await;
        let mut received = Vec::new();
        within(target.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, &TALK[..limit]);
        assert_fin(&mut client).await;
        drop((client, target));
        bench.assert_empty().await;
    }
}

#[tokio::test]
async fn a_cut_ends_a_connection_whose_peers_stay() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    bench.control(&pair).set(ToClient, Faults { cut_after_bytes: Some(3), ..Faults::default() });
    send(&mut pair.target, b"abcdef").await;
    assert_receives(&mut pair.client, b"abc").await;
    assert_fin(&mut pair.client).await;
    assert_fin(&mut pair.target).await;
    // Neither end closes: the proxy does not wait for them for ever.
    bench.assert_empty().await;
}

/// The end that the cut connection owes to a frozen side waits, and nothing leaks.
#[tokio::test]
async fn a_cut_is_silent_on_a_frozen_way() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    let control = bench.control(&pair);
    control.freeze_direction(ToClient);
    control.cut_after(ToTarget, 2);
    send(&mut pair.client, b"abc").await;
    assert_receives(&mut pair.target, b"ab").await;
    assert_fin(&mut pair.target).await;
    assert_silent(&mut pair.client).await;
    control.heal();
    assert_fin(&mut pair.client).await;
    drop(pair);
    bench.assert_empty().await;
}
