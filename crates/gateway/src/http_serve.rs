//! Serves the gateway's own HTTP, control API and ops: an accept loop with a cap and time limits around an
//! axum router, since `axum::serve` has neither.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::config::Limits;
use crate::problem::Problem;

/// How long answers under way may take once the gateway finishes.
const GRACE: Duration = Duration::from_millis(500);

/// Pause after an accept that failed for want of files, so that the loop does not take the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A client that takes no byte for this long is dropped; a dead reader must not keep a place.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// hyper refuses to work with less.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// What is listened on.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Serves `router` on `listener` until `finish` is cancelled, then lets answers under way end.
///
/// At most `connections_max` connections at once; more are answered 503. Time and size of request heads are
/// bounded by `limits`, as on the data port.
pub(crate) async fn http_serve(
    listener: Listener,
    router: Router,
    limits: &Limits,
    connections_max: usize,
    finish: CancellationToken,
) {
    let server = Arc::new(Server {
        http: server_builder(limits),
        router,
        places: Arc::new(Semaphore::new(connections_max)),
        finish,
        cut: CancellationToken::new(),
    });
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.finish.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(Socket::Tcp(stream)) => {
                prepare(&stream);
                server.take(&tasks, stream);
            }
            Ok(Socket::Unix(stream)) => server.take(&tasks, stream),
            Err(error) if concerns_one_connection(&error) => debug!(%error, "gone before accept"),
            Err(error) => {
                warn!(%error, "can't accept connections to the gateway's own HTTP");
                tokio::select! {
                    () = server.finish.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    tasks.close();
    if timeout(GRACE, tasks.wait()).await.is_err() {
        server.cut.cancel();
        tasks.wait().await;
    }
}

/// Builds hyper's part of the connections to any port of the gateway, the data port included.
pub(crate) fn server_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers_max)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(buffer_bytes_max(limits))
        .half_close(false);
    builder
}

/// What hyper may hold of one direction of one connection.
pub(crate) fn buffer_bytes_max(limits: &Limits) -> usize {
    limits.header_bytes_max.max(BUFFER_BYTES_MIN)
}

/// Tells what befell a connection that waited in the queue, which accept(2) also reports, from a shortage.
pub(crate) fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

struct Server {
    http: http1::Builder,
    router: Router,
    places: Arc<Semaphore>,
    /// Cancelled when answers under way may end, and nothing new begins.
    finish: CancellationToken,
    /// Cancelled when they have had their time.
    cut: CancellationToken,
}

impl Server {
    fn take<S>(self: &Arc<Server>, tasks: &TaskTracker, stream: S)
    where
        S: AsyncRead + AsyncWrite + std::os::fd::AsFd + Unpin + Send + 'static,
    {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => {
                let server = Arc::clone(self);
                tasks.spawn(async move { server.run(stream, place).await });
            }
            Err(_) => refuse(&stream),
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, place: OwnedSemaphorePermit) {
        let service = TowerToHyperService::new(self.router.clone());
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.finish.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    outcome = connection.as_mut() => outcome,
                    () = self.cut.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = outcome {
            debug!(%error, "connection ended");
        }
        drop(place);
    }
}

fn prepare(stream: &TcpStream) {
    // Neither matters enough to refuse the connection.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(WRITE_STALL_MAX));
}

/// Answers 503 with one write and drops the connection.
fn refuse<S: std::os::fd::AsFd>(stream: &S) {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "connections-max", "Too many connections");
    let bytes = problem.detail("all connections to this port are taken").retry_after(1).into_last_bytes();
    // The client may be gone already; there is nobody to tell then.
    let _ = socket2::SockRef::from(stream).send(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use axum::body::Body;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(20);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn start(router: Router) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let finish = CancellationToken::new();
        let (listener, done) = (Listener::Tcp(listener), finish.clone());
        let limits = Config::default().limits;
        let task = tokio::spawn(async move { http_serve(listener, router, &limits, 1, done).await });
        (address, finish, task)
    }

    /// Sends a request; the connection stays open.
    async fn ask(address: SocketAddr) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut status = vec![0; 12];
        timeout(PATIENCE, stream.read_exact(&mut status)).await.unwrap().unwrap();
        (stream, String::from_utf8(status).unwrap())
    }

    #[test]
    fn a_shortage_of_files_does_not_concern_one_connection() {
        assert!(concerns_one_connection(&io::Error::from_raw_os_error(libc::ECONNABORTED)));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(!concerns_one_connection(&io::Error::from_raw_os_error(code)));
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_cap_are_refused_until_one_leaves() {
        let (address, _finish, _task) = start(Router::new().route("/", get(async || "hello"))).await;
        let (first, status) = ask(address).await;
        assert_eq!(status, "HTTP/1.1 200");
        assert_eq!(ask(address).await.1, "HTTP/1.1 503");
        drop(first);
        let free = async { while ask(address).await.1 != "HTTP/1.1 200" {} };
        timeout(PATIENCE, free).await.expect("the place is free again");
    }

    #[tokio::test]
    async fn idle_connections_and_answers_without_end_do_not_keep_the_gateway() {
        for endless in [false, true] {
            let answer = async move || {
                if !endless {
                    return Body::from("hello");
                }
                let never = futures_util::stream::pending::<Result<&str, io::Error>>();
                Body::from_stream(never)
            };
            let (address, finish, task) = start(Router::new().route("/", get(answer))).await;
            let (_stream, status) = ask(address).await;
            assert_eq!(status, "HTTP/1.1 200");
            finish.cancel();
            timeout(PATIENCE, task).await.expect("it stops").unwrap();
            assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
        }
    }

    #[tokio::test]
    async fn an_answer_under_way_may_end_and_is_the_last() {
        let (begun, end) = (CancellationToken::new(), CancellationToken::new());
        let (begins, ends) = (begun.clone(), end.clone());
        let answer = async move || {
            begins.cancel();
            ends.cancelled().await;
            "hello"
        };
        let (address, finish, task) = start(Router::new().route("/", get(answer))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        timeout(PATIENCE, begun.cancelled()).await.expect("the request is there");
        finish.cancel();
        // The listener goes before connections do: once it is gone, the connection knows as well.
        let gone = async { while TcpStream::connect(address).await.is_ok() {} };
        timeout(PATIENCE, gone).await.expect("nobody listens any more");
        end.cancel();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.contains("\r\nconnection: close\r\n") && answer.ends_with("hello"), "{answer}");
        timeout(PATIENCE, task).await.expect("it stops").unwrap();
    }
}
