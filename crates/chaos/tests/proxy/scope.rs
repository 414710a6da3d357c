//! Whom a fault meets, and how it all ends.

use std::time::Duration;

use pulsegate_chaos::Direction::{ToClient, ToTarget};
use pulsegate_chaos::{ConnectionId, Direction, FaultProxy, Faults};
use tokio::net::TcpStream;

use crate::bench::{Bench, assert_fin, assert_receives, assert_reset, assert_silent, listen, send, within};

#[tokio::test]
async fn connections_are_listed_with_both_addresses() {
    let bench = Bench::new().await;
    let mut first = bench.pair().await;
    let second = bench.pair().await;
    send(&mut first.client, b"12345").await;
    assert_receives(&mut first.target, b"12345").await;
    let connections = bench.proxy.connections();
    assert_eq!(connections.iter().map(|one| one.id).collect::<Vec<_>>(), [ConnectionId(1), ConnectionId(2)]);
    for (info, pair) in connections.iter().zip([&first, &second]) {
        assert_eq!(info.id, pair.id);
        assert_eq!(info.peer, pair.client.local_addr().unwrap());
        assert_eq!(info.upstream, Some(pair.target.peer_addr().unwrap()));
        assert_eq!((info.to_target.faults, info.to_client.faults), (Faults::default(), Faults::default()));
    }
    assert_eq!(connections[0].to_target.forwarded_bytes, 5);
    drop(first);
    bench.when(|connections| connections.len() == 1 && connections[0].id == second.id).await;
    assert!(bench.proxy.connection(ConnectionId(1)).is_none());
}

#[tokio::test]
async fn a_fault_of_one_connection_spares_the_others() {
    let bench = Bench::new().await;
    let (mut frozen, mut clean) = (bench.pair().await, bench.pair().await);
    bench.control(&frozen).freeze();
    send(&mut frozen.client, b"held").await;
    send(&mut clean.client, b"passes").await;
    assert_receives(&mut clean.target, b"passes").await;
    assert_silent(&mut frozen.target).await;
    let mut newcomer = bench.pair().await;
    send(&mut newcomer.client, b"passes too").await;
    assert_receives(&mut newcomer.target, b"passes too").await;
    bench.control(&clean).reset();
    assert_reset(&mut clean.client).await;
    bench.control(&frozen).heal();
    assert_receives(&mut frozen.target, b"held").await;
}

#[tokio::test]
async fn a_fault_of_all_meets_present_and_future() {
    let bench = Bench::new().await;
    let mut present = bench.pair().await;
    let faults = Faults { delay: Duration::from_secs(3600), slice_bytes: Some(3), ..Faults::default() };
    bench.proxy.all().set(ToTarget, faults);
    let mut future = bench.pair().await;
    for info in bench.proxy.connections() {
        assert_eq!((info.to_target.faults, info.to_client.faults), (faults, Faults::default()));
    }
    assert_eq!((bench.proxy.faults(ToTarget), bench.proxy.faults(ToClient)), (faults, Faults::default()));
    for pair in [&mut present, &mut future] {
        send(&mut pair.client, b"held").await;
        assert_silent(&mut pair.target).await;
    }
    bench.proxy.all().heal();
    for pair in [&mut present, &mut future] {
        assert_receives(&mut pair.target, b"held").await;
    }
    let after = bench.pair().await;
    assert_eq!(bench.info_of(after.client.local_addr().unwrap()).await.to_target.faults, Faults::default());
}

#[tokio::test]
async fn changing_one_fault_leaves_the_others() {
    let bench = Bench::new().await;
    let pair = bench.pair().await;
    bench.control(&pair).rate(1000);
    bench.proxy.all().freeze();
    bench.proxy.all().slice(2);
    bench.proxy.all().thaw();
    let expected = Faults { rate_bytes_per_s: Some(1000), slice_bytes: Some(2), ..Faults::default() };
    let info = &bench.proxy.connections()[0];
    assert_eq!((info.to_target.faults, info.to_client.faults), (expected, expected));
}

/// Nothing that is sent after `freeze` has returned escapes it: the promise that spares tests a sleep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_is_in_force_when_the_call_returns() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    let control = bench.control(&pair);
    for _ in 0..200 {
        send(&mut pair.client, b"before").await;
        assert_receives(&mut pair.target, b"before").await;
        control.freeze_direction(ToTarget);
        let forwarded = bench.proxy.connections()[0].to_target.forwarded_bytes;
        send(&mut pair.client, b"after").await;
        // A way through the proxy, so that its task has had every chance.
        send(&mut pair.target, b"x").await;
        assert_receives(&mut pair.client, b"x").await;
        let to_target = bench.proxy.connections()[0].to_target;
        assert_eq!((to_target.forwarded_bytes, to_target.held_bytes), (forwarded, 0));
        control.heal();
        assert_receives(&mut pair.target, b"after").await;
    }
}

#[tokio::test]
async fn a_shutdown_ends_all_tasks_whatever_the_faults() {
    let bench = Bench::new().await;
    let mut clean = bench.pair().await;
    let mut frozen = bench.pair().await;
    bench.control(&frozen).freeze();
    bench.proxy.all().freeze();
    let mut waiting = bench.connect().await;
    bench.info_of(waiting.local_addr().unwrap()).await;
    let address = bench.proxy.local_addr();
    within(bench.proxy.shutdown()).await.unwrap();
    assert!(bench.proxy.connections().is_empty());
    for stream in [&mut clean.client, &mut clean.target, &mut frozen.client, &mut frozen.target, &mut waiting]
    {
        assert_fin(stream).await;
    }
    assert!(within(TcpStream::connect(address)).await.is_err(), "the listener is closed");
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks, 0);
    within(bench.proxy.shutdown()).await.unwrap();
}

#[tokio::test]
async fn dropping_the_proxy_stops_it() {
    let bench = Bench::new().await;
    let mut pair = bench.pair().await;
    drop(bench.proxy);
    assert_fin(&mut pair.client).await;
    assert_fin(&mut pair.target).await;
}

#[tokio::test]
async fn debug_shows_the_seed() {
    let target = listen().await.local_addr().unwrap();
    let proxy = FaultProxy::start_seeded(listen().await, target, 4711);
    assert_eq!(proxy.seed(), 4711);
    assert!(format!("{proxy:?}").contains("seed: 4711"), "{proxy:?}");
    assert_eq!(Direction::ToTarget.other(), Direction::ToClient);
}
