//! Freezes are silent, and healing gives back all that they held.

use pulsegate_chaos::Direction::{ToClient, ToTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{
    Bench, assert_fin, assert_receives, assert_reset, assert_silent, pattern, reset, send, within,
};

#[tokio::test]
async fn both_ways_hold_and_heal_delivers() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    bench.control(&pair).freeze();
    send(&mut pair.client, b"to the target").await;
    send(&mut pair.target, b"to the client").await;
    assert_silent(&mut pair.target).await;
    assert_silent(&mut pair.client).await;
    let info = &bench.proxy.connections()[0];
    assert_eq!((info.to_target.held_bytes, info.to_client.held_bytes), (0, 0), "frozen is not read");
    bench.control(&pair).heal();
    assert_receives(&mut pair.target, b"to the target").await;
    assert_receives(&mut pair.client, b"to the client").await;
}

#[tokio::test]
async fn one_way_leaves_the_other_way_open() {
    for (frozen, open) in [(ToTarget, ToClient), (ToClient, ToTarget)] {
        let bench = Bench::new().await;
        let mut pair = bench.pair().await;
        bench.control(&pair).freeze_direction(frozen);
        let (from, to) = match open {
            ToTarget => (&mut pair.client, &mut pair.target),
            ToClient => (&mut pair.target, &mut pair.client),
        };
        send(from, b"passes").await;
        assert_receives(to, b"passes").await;
        send(to, b"held").await;
        assert_silent(from).await;
        bench.proxy.all().thaw();
        assert_receives(from, b"held").await;
    }
}

#[tokio::test]
async fn a_fin_is_silent_until_the_heal() {
    for frozen in [ToTarget, ToClient] {
        let bench = Bench::new().await;
        let mut pair = bench.pair().await;
        bench.control(&pair).freeze_direction(frozen);
        let (from, to) = match frozen {
            ToTarget => (&mut pair.client, &mut pair.target),
            ToClient => (&mut pair.target, &mut pair.client),
        };
        send(from, b"last").await;
        within(from.shutdown()).await.unwrap();
        assert_silent(to).await;
        bench.control(&pair).heal();
        let to = match frozen {
            ToTarget => &mut pair.target,
            ToClient => &mut pair.client,
        };
        assert_receives(to, b"last").await;
        assert_fin(to).await;
    }
}

#[tokio::test]
async fn a_reset_is_silent_until_the_heal() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    let control = bench.control(&pair);
    control.freeze();
    send(&mut pair.client, b"last").await;
    reset(pair.client);
    assert_silent(&mut pair.target).await;
    control.heal();
    assert_receives(&mut pair.target, b"last").await;
    assert_reset(&mut pair.target).await;
    bench.assert_empty().await;
}

/// The proxy learns of the reset by writing to the client; the target must not.
#[tokio::test]
async fn a_reset_found_by_writing_is_silent_until_the_heal() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    let control = bench.control(&pair);
    control.freeze_direction(ToTarget);
    reset(pair.client);
    send(&mut pair.target, b"anybody there?").await;
    bench.when(|connections| connections[0].to_client.held_bytes > 0).await;
    assert_silent(&mut pair.target).await;
    control.heal();
    assert_reset(&mut pair.target).await;
    bench.assert_empty().await;
}

/// A peer whose FIN has passed and who then dies is news to the other end.
#[tokio::test]
async fn a_reset_after_a_fin_is_forwarded_unless_frozen() {
    for frozen in [false, true] {
        let bench = Bench::new().await;
        let mut pair = bench.pair().await;
        let control = bench.control(&pair);
        within(pair.client.shutdown()).await.unwrap();
        assert_fin(&mut pair.target).await;
        // Let the proxy go to sleep: it must be woken by the reset alone.
        assert_silent(&mut pair.client).await;
        if frozen {
            control.freeze_direction(ToTarget);
        }
        reset(pair.client);
        if frozen {
            let silence = within(pair.target.write(b"still writable")).await;
            assert!(silence.is_ok());
            bench.when(|connections| connections.len() == 1 && connections[0].to_client.held_bytes > 0).await;
            control.heal();
        }
        bench.assert_empty().await;
        let error = loop {
            match within(pair.target.write(b"x")).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        // Linux calls a reset after a FIN a broken pipe.
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn healing_delivers_much_in_order() {
    let bench = Bench::new().await;
    let pair = bench.pair().await;
    let control = bench.control(&pair);
    let bytes = pattern(3_000_000);
    let (mut client, mut target) = (pair.client, pair.target);
    let expected = bytes.clone();
    let sender = tokio::spawn(async move {
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    let mut received = Vec::new();
    for part in 0..10 {
        let mut some = vec![0; 100_000 + part];
        let len = within(target.read(&mut some)).await.unwrap();
        received.extend_from_slice(&some[..len]);
        control.freeze_direction(ToTarget);
        control.heal();
    }
    within(target.read_to_end(&mut received)).await.unwrap();
    assert!(received == expected);
    drop(within(sender).await.unwrap());
}

/// The kernel accepts, and then nothing: not even the target hears of the connection.
#[tokio::test]
async fn a_connection_that_arrives_while_frozen_waits_for_the_heal() {
    for direction in [ToTarget, ToClient] {
        let bench = Bench::new().await;
        bench.proxy.all().freeze_direction(direction);
        let mut client = bench.connect().await;
        let info = bench.info_of(client.local_addr().unwrap()).await;
        assert_eq!(info.upstream, None);
        send(&mut client, b"hello").await;
        assert_silent(&mut client).await;
        assert_eq!(bench.proxy.connections()[0].upstream, None);
        bench.proxy.all().heal();
        let mut target = bench.accept().await;
        assert_receives(&mut target, b"hello").await;
    }
}
