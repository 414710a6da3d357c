//! The commands over the control API, against a real one.

use std::time::Duration;

use clap::Parser as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::exit::{self, Failure};
use super::{Cli, Command, events, sessions};
use crate::control::tests::{Kit, TOKEN, TempDir, cut, secret, unreachable};

/// No wait in these tests is meant to take this long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn run(arguments: &[&str], api: &str) -> Result<u8, Failure> {
    let api = ["--api", api];
    let line = ["pulsegate"].iter().chain(arguments).chain(&api);
    let command = match Cli::try_parse_from(line) {
        Ok(cli) => cli.command,
        Err(error) => return Err(Failure::new(exit::USAGE, error.to_string())),
    };
    let work = async {
        match command {
            Command::Sessions(arguments) => sessions::run(arguments).await,
            Command::Events(arguments) => events::run(arguments).await,
            Command::Run(_)
            | Command::Demo(_)
            | Command::Check(_)
            | Command::Config(_)
            | Command::Ping(_)
            | Command::Healthcheck(_)
            | Command::Version(_)
            | Command::Completions(_) => panic!("not over the control API"),
        }
    };
    timeout(PATIENCE, work).await.expect("the command ends")
}

/// The exit code, and what goes to stderr.
async fn outcome(arguments: &[&str], api: &str) -> (u8, String) {
    match run(arguments, api).await {
        Ok(code) => (code, String::new()),
        Err(failure) => (failure.code, failure.message),
    }
}

#[tokio::test]
async fn sessions_are_listed_shown_and_ended() {
    let kit = Kit::new().await;
    let api = format!("http://{}", kit.address);
    let (live, dead, torn) = (kit.open(&[("room", "a")]), kit.open(&[]), kit.open(&[]));
    kit.end(&dead, unreachable());
    kit.end(&torn, cut());
    let id = live.id().to_string();
    for good in [
        vec!["sessions", "ls"],
        vec!["sessions", "ls", "-o", "json", "--limit", "5000", "--state", "live", "--label", "room=a b&c"],
        vec!["sessions", "get", &id],
        vec!["sessions", "get", &id, "-o", "json"],
        vec!["sessions", "kick", &id, "--code", "4001", "--reason", "a break & more"],
        vec!["events", "--follow=false"],
        vec!["events", "--follow=false", "-o", "json", "--session", &id],
    ] {
        assert_eq!(outcome(&good, &api).await, (0, String::new()), "{good:?}");
    }
    assert!(live.order().unwrap().contains("code: 4001, reason: \"a break & more\""));
    let dead = dead.id().to_string();
    for command in ["get", "kick"] {
        let (code, why) = outcome(&["sessions", command, &dead], &api).await;
        assert_eq!(code, 1);
        assert!(why.starts_with("The session ended: unreachable: peer declared dead"), "{why}");
        let (code, why) = outcome(&["sessions", command, "nobody"], &api).await;
        assert!(code == 1 && why.starts_with("There is no such session"), "{why}");
    }
    for bad in [
        vec!["sessions", "ls", "--state", "dead"],
        vec!["sessions", "ls", "--limit", "0"],
        vec!["sessions", "kick", &id, "--code", "1001"],
        vec!["events", "--session", "x"],
        vec!["sessions", "ls", "--token-file", "/nowhere"],
    ] {
        assert_eq!(outcome(&bad, &api).await.0, 2, "{bad:?}");
    }
    assert_eq!(outcome(&["sessions", "ls"], "https://x").await.0, 2);
}

#[tokio::test]
async fn a_token_opens_the_api() {
    let dir = TempDir::new();
    let kit = Kit::with(|_| {}, Some(secret(&dir.path("")))).await;
    let api = format!("http://{}", kit.address);
    let (code, why) = outcome(&["sessions", "ls"], &api).await;
    assert!(code == 1 && why.contains("token"), "{code} {why}");
    assert_eq!(outcome(&["events"], &api).await.0, 1);
    let file = dir.path("token");
    let file = file.to_str().unwrap();
    assert_eq!(outcome(&["sessions", "ls", "--token-file", file], &api).await.0, 0);
    std::fs::write(file, TOKEN.to_uppercase()).unwrap();
    let (code, why) = outcome(&["sessions", "ls", "--token-file", file], &api).await;
    assert!(code == 1 && !why.contains(&TOKEN.to_uppercase()), "{why}");
}

#[tokio::test]
async fn an_api_that_is_not_there_has_an_exit_code_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let id = "0".repeat(26);
    for command in
        [vec!["sessions", "ls"], vec!["sessions", "get", &id], vec!["sessions", "kick", &id], vec!["events"]]
    {
        for api in [&*api, "unix:/nowhere/at/all.sock"] {
            let (code, why) = outcome(&command, api).await;
            assert_eq!(code, 6, "{command:?}");
            assert!(why.contains("can't be reached"), "{why}");
        }
    }
}

#[tokio::test]
async fn events_come_back_where_they_were() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let gateway = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in [
            // Breaks off inside an event: what came whole counts.
            "200 OK\r\n\r\nid: 1-3\n\nid: 1-4\ndata: {}\n\nid: 1-5\nda",
            "503 Service Unavailable\r\n\r\n",
            "400 Bad Request\r\n\r\n",
        ] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                stream.read_line(&mut head).await.unwrap();
            }
            let id = head.lines().find_map(|line| line.strip_prefix("last-event-id: ").map(str::to_owned));
            asked.push(id);
            let answer = format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nconnection: close\r\n", 1));
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        asked
    });
    assert_eq!(outcome(&["events", "--last-event-id", "1-2"], &api).await.0, 2, "the last answer ends it");
    let asked = gateway.await.unwrap();
    assert_eq!(asked, ["1-2", "1-4", "1-4"].map(|id| Some(id.to_owned())));
}
