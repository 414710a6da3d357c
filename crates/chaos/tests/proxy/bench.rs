//! A proxy with a target behind it, and what tests do with connections.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use pulsegate_chaos::{ConnectionId, ConnectionInfo, Control, FaultProxy};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What should happen happens within this, also on a busy machine.
const WITHIN: Duration = Duration::from_secs(20);

/// How long nothing must arrive before we believe that nothing does.
const SILENCE: Duration = Duration::from_millis(100);

pub(crate) struct Bench {
    pub(crate) proxy: FaultProxy,
    pub(crate) target: TcpListener,
}

/// A connection through the proxy: both ends, and its name.
pub(crate) struct Pair {
    pub(crate) client: TcpStream,
    pub(crate) target: TcpStream,
    pub(crate) id: ConnectionId,
}

impl Bench {
    pub(crate) async fn new() -> Bench {
        let target = listen().await;
        let proxy = FaultProxy::start(listen().await, target.local_addr().unwrap());
        // Shown when a test fails: the seed.
        println!("{proxy:?}");
        Bench { proxy, target }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.proxy.local_addr())).await.unwrap()
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        within(self.target.accept()).await.unwrap().0
    }

    pub(crate) async fn pair(&self) -> Pair {
        let client = self.connect().await;
        let target = self.accept().await;
        client.set_nodelay(true).unwrap();
        target.set_nodelay(true).unwrap();
        let id = self.info_of(client.local_addr().unwrap()).await.id;
        Pair { client, target, id }
    }

    /// Waits until the proxy lists the connection of this client.
    pub(crate) async fn info_of(&self, peer: SocketAddr) -> ConnectionInfo {
        let mut connections = self.when(|connections| connections.iter().any(|one| one.peer == peer)).await;
        connections.retain(|one| one.peer == peer);
        connections.remove(0)
    }

    pub(crate) async fn when(&self, condition: impl FnMut(&[ConnectionInfo]) -> bool) -> Vec<ConnectionInfo> {
        within(self.proxy.connections_when(condition)).await
    }

    pub(crate) fn control(&self, pair: &Pair) -> Control {
        self.proxy.connection(pair.id).expect("the connection is open")
    }

    pub(crate) async fn assert_empty(&self) {
        self.when(|connections| connections.is_empty()).await;
    }
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) async fn within<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(WITHIN, event).await.expect("it should have happened by now")
}

/// Nothing comes: no byte, no FIN, no RST.
pub(crate) async fn assert_silent(stream: &mut TcpStream) {
    let mut buffer = [0; 64];
    if let Ok(seen) = tokio::time::timeout(SILENCE, stream.read(&mut buffer)).await {
        panic!("expected silence, saw {seen:?}");
    }
}

pub(crate) async fn assert_receives(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    assert!(bytes == expected, "other bytes came, or in another order");
}

pub(crate) async fn assert_fin(stream: &mut TcpStream) {
    assert_eq!(within(stream.read(&mut [0; 64])).await.unwrap(), 0);
}

pub(crate) async fn assert_reset(stream: &mut TcpStream) {
    let error: io::Error = within(stream.read(&mut [0; 64])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

pub(crate) async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    within(stream.write_all(bytes)).await.unwrap();
}

pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Bytes in which a missing, doubled or moved one shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(len as u64);
    (0..len).map(|_| random.u8(..)).collect()
}
