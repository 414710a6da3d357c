//! Commands that talk to servers, which run in the test's own process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::Stdio;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Scratch, expect, pulsegate};

/// Listeners on ports of the kernel's choice.
const FREE_PORTS: [&str; 6] = ["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--control", "127.0.0.1:0"];

/// The same off the runtime's threads, since servers of the test run there.
async fn expect_beside(arguments: &[&str], code: i32) -> (String, String) {
    let mut command = pulsegate(arguments);
    tokio::task::spawn_blocking(move || expect(&mut command, code)).await.unwrap()
}

/// What a test server does with a connection.
#[derive(Clone, Copy)]
enum Server {
    /// WebSocket: answers pings, and sends a message first.
    Echo,
    /// WebSocket: never reads, so never answers a ping.
    Mute,
    /// WebSocket: closes with 4001 at the first message or ping.
    Closing,
    /// Answers HTTP with this status.
    Http(u16),
    /// Accepts and says nothing.
    Silent,
    /// Speaks something else.
    Banner,
}

async fn serve(server: Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(server, stream));
        }
    });
    address
}

async fn answer(server: Server, mut stream: TcpStream) {
    match server {
        Server::Echo => {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        }
        Server::Mute => {
            let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            std::future::pending::<()>().await;
            drop(socket);
        }
        Server::Closing => {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            let _ = socket.next().await;
            let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
                code: 4001.into(),
                reason: "enough".into(),
            };
            let _ = socket.close(Some(frame)).await;
            while let Some(Ok(_)) = socket.next().await {}
        }
        Server::Http(status) => {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        Server::Silent => {
            std::future::pending::<()>().await;
            drop(stream);
        }
        Server::Banner => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n").await;
        }
    }
}

/// An address that refuses connections as long as the socket lives: it is bound, and does not listen.
fn refusing() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address.to_string())
}

#[tokio::test]
async fn check_passes_with_an_app_that_answers() {
    let url = format!("http://{}", serve(Server::Echo).await);
    let arguments =
        [&["check", "--upstream", &url, "--set", "limits.sessions_max=100"], &FREE_PORTS[..]].concat();
    let (stdout, _) = expect_beside(&arguments, 0).await;
    for part in
        ["√ config: valid", "√ data:", "√ ops:", "√ control:", "√ files:", "√ app: ws://", "answered 101"]
    {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
    assert!(!stdout.contains('\u{1b}'), "no colour into a pipe");
    let (json, _) = expect_beside(&[&arguments[..], &["-o", "json"]].concat(), 0).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ok"], true);
    assert!(json["checks"].as_array().unwrap().iter().all(|check| check["status"] == "ok"), "{json:#}");
}

#[tokio::test]
async fn check_names_what_is_wrong_with_the_app() {
    let (_held, address) = refusing();
    let closed = format!("http://{address}");
    let cases = [
        (closed, 1, "× app", "start the app"),
        (format!("http://{}", serve(Server::Http(500)).await), 1, "× app", "answered 500"),
        (format!("http://{}", serve(Server::Http(404)).await), 0, "‼ app", "--path /ws"),
        (format!("http://{}", serve(Server::Silent).await), 1, "× app", "accepts TCP but does not answer"),
        (format!("http://{}", serve(Server::Banner).await), 1, "× app", "does not speak WebSocket"),
    ];
    let few = [
        "--set",
        "limits.sessions_max=10",
        "--set",
        "upstream.handshake_timeout=250ms",
        "--set",
        "upstream.connect_timeout=250ms",
    ];
    for (url, code, sign, part) in cases {
        let arguments = [&["check", "--upstream", &url], &FREE_PORTS[..], &few].concat();
        let (stdout, _) = expect_beside(&arguments, code).await;
        assert!(stdout.contains(sign) && stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
}

#[tokio::test]
async fn check_names_ports_and_files_that_are_missing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).unwrap();
    let token = Scratch::new("token", "\n");
    let token_set = format!("control.token_file={}", token.path());
    let url = format!("http://{}", serve(Server::Echo).await);
    let arguments = [
        "check",
        "--upstream",
        &url,
        "--listen",
        &taken.1,
        "--ops",
        "203.0.113.1:0",
        "--control",
        "unix:/nowhere/at/all.sock",
        "--set",
        &token_set,
        "--set",
        "limits.connections_max=10000000",
        "--set",
        "limits.sessions_max=10000000",
        "-o",
        "json",
    ];
    let (json, _) = expect_beside(&arguments, 1).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ok"], false);
    let find = |name: &str| {
        json["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap().to_string()
    };
    assert!(find("data").contains("ss -ltnp"), "{json:#}");
    assert!(find("ops").contains("an address of this machine"), "{json:#}");
    assert!(find("control").contains("directory of /nowhere/at/all.sock is missing"), "{json:#}");
    assert!(find("token").contains("is empty"), "{json:#}");
    assert!(find("app").contains("\"ok\""), "{json:#}");
}

#[tokio::test]
async fn check_refuses_what_run_would_refuse() {
    let short = Scratch::new("short-token", "guess me\n");
    let token = format!("control.token_file={}", short.path());
    let control = format!("unix:{}", short.path());
    let url = format!("http://{}", serve(Server::Echo).await);
    let few = ["--set", "limits.sessions_max=10", "--set", &token, "--upstream", &url];
    let ports = ["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--control", &control];
    let (stdout, _) = expect_beside(&[&["check"], &few[..], &ports[..]].concat(), 1).await;
    for part in ["× control:", "is there already and is no socket", "× token:", "shorter than 16 bytes"] {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
    expect_beside(&[&["run"], &few[..], &ports[..]].concat(), 3).await;
}

#[tokio::test]
async fn ping_counts_round_trips() {
    let url = format!("ws://{}/any", serve(Server::Echo).await);
    let (stdout, _) = expect_beside(&["ping", &url, "-c", "3", "-i", "10ms"], 0).await;
    for part in [
        "PING ws://",
        "seq=1 time=",
        "seq=3 time=",
        "3 pings sent, 3 pongs received, 0% loss",
        "rtt min/avg/max/mdev",
    ] {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
    let (json, _) = expect_beside(&["ping", &url, "-c", "2", "-i", "10ms", "-o", "json"], 0).await;
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["connected", "pong", "pong", "summary"]);
    assert_eq!(lines[3]["loss_percent"], 0.0);
}

#[tokio::test]
async fn ping_without_a_pong_is_code_1() {
    let mute = format!("ws://{}", serve(Server::Mute).await);
    let (stdout, _) = expect_beside(&["ping", &mute, "-c", "2", "-i", "10ms", "-W", "100ms"], 1).await;
    assert!(stdout.contains("no pong for seq=2 within 100ms"), "{stdout}");
    assert!(stdout.contains("2 pings sent, 0 pongs received, 100% loss"), "{stdout}");
    let closing = format!("ws://{}", serve(Server::Closing).await);
    let (stdout, stderr) = expect_beside(&["ping", &closing], 1).await;
    assert!(stderr.contains("the server closed: 4001 enough"), "{stderr}");
    assert!(stdout.contains("ping statistics"), "{stdout}");
}

#[tokio::test]
async fn ping_that_cannot_connect_is_code_5() {
    let (_held, address) = refusing();
    let closed = format!("ws://{address}");
    let (_, stderr) = expect_beside(&["ping", &closed], 5).await;
    assert!(stderr.contains("can't connect"), "{stderr}");
    let silent = format!("ws://{}", serve(Server::Silent).await);
    expect_beside(&["ping", &silent, "-W", "0.1"], 5).await;
    let refused = format!("ws://{}", serve(Server::Http(403)).await);
    let (_, stderr) = expect_beside(&["ping", &refused], 5).await;
    assert!(stderr.contains("403"), "{stderr}");
    expect_beside(&["ping", "http://a"], 2).await;
}

#[tokio::test]
async fn an_interrupt_ends_ping_with_its_summary() {
    let url = format!("ws://{}", serve(Server::Echo).await);
    let rest = tokio::task::spawn_blocking(move || {
        let mut child = pulsegate(&["ping", &url, "-i", "10ms"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("pong") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0);
        }
        let process = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        rest
    });
    let rest = rest.await.unwrap();
    assert!(rest.contains("ping statistics") && rest.contains("0% loss"), "{rest}");
}

#[tokio::test]
async fn healthcheck_is_0_or_1() {
    let ready = serve(Server::Http(200)).await.to_string();
    let (stdout, _) = expect_beside(&["healthcheck", "--ops", &ready], 0).await;
    assert!(stdout.contains("/readyz: 200"), "{stdout}");
    let (stdout, _) = expect_beside(&["healthcheck", "--ops", &ready, "--live"], 0).await;
    assert!(stdout.contains("/livez"), "{stdout}");
    let wild = format!("0.0.0.0:{}", ready.rsplit_once(':').unwrap().1);
    expect_beside(&["healthcheck", "--ops", &wild], 0).await;
    let failing = serve(Server::Http(503)).await.to_string();
    let (_, stderr) = expect_beside(&["healthcheck", "--ops", &failing], 1).await;
    assert!(stderr.contains("503"), "{stderr}");
    let silent = serve(Server::Silent).await.to_string();
    let (_, stderr) = expect_beside(&["healthcheck", "--ops", &silent, "--timeout", "100ms"], 1).await;
    assert!(stderr.contains("no answer within 100ms"), "{stderr}");
    let (_held, closed) = refusing();
    expect_beside(&["healthcheck", "--ops", &closed], 1).await;
    expect_beside(&["healthcheck", "--ops", "nonsense"], 1).await;
}
