//! `upstream.hold`: the app goes away and comes back, and the client's connection stays.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use pulsegate::config::Config;
use pulsegate_client::{Client, ClientConfig, Event, Payload};
use pulsegate_core::v1::{Envelope, Meta, NackCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;

use crate::kit::{PATIENCE, Running, raw_client, read_rest};
use crate::v1_kit::{Got, Line};

const HOLD: Duration = Duration::from_secs(10);

/// An app that is asked for one connection at a time.
struct App {
    listener: TcpListener,
}

/// One connection of it, and what the gateway said of itself in its request.
struct Connection {
    socket: WebSocketStream<TcpStream>,
    session: String,
    resumed: Option<String>,
    replayed: Option<String>,
}

impl App {
    async fn start() -> App {
        App { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    async fn accept(&self) -> Connection {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("a dial in time").unwrap();
        let mut told = [None, None, None];
        #[allow(clippy::result_large_err, reason = "its type is tungstenite's")]
        let look = |request: &Request, response: Response| {
            told = ["pulsegate-session", "pulsegate-resumed", "pulsegate-replayed"]
                .map(|name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned()));
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, look).await.unwrap();
        let [session, resumed, replayed] = told;
        Connection { socket, session: session.unwrap(), resumed, replayed }
    }

    /// Answers a handshake with a status, and no more.
    async fn refuse(&self, status: &str) {
        let (mut stream, _) =
            timeout(PATIENCE, self.listener.accept()).await.expect("a dial in time").unwrap();
        let mut scrap = [0; 4096];
        let _ = stream.read(&mut scrap).await.unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut scrap).await;
    }
}

impl Connection {
    /// Reads the next message, and answers the pings before it.
    async fn read(&mut self) -> String {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
            match message.expect("a message").unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Binary(_) | Message::Close(_) | Message::Frame(_) => panic!("a text is expected"),
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    }

    /// Reads and answers pings, and says what comes, until it is dropped.
    fn attend(mut self) -> tokio::task::JoinHandle<Vec<String>> {
        tokio::spawn(async move {
            let mut came = Vec::new();
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Text(text) = message {
                    came.push(text.to_string());
                }
            }
            came
        })
    }
}

fn holding(config: &mut Config) {
    config.upstream.hold = HOLD;
    config.limits.close_timeout = Duration::from_millis(200);
}

async fn start(change: impl FnOnce(&mut Config)) -> (App, Running, Line, Connection) {
    let app = App::start().await;
    let gateway = Running::start(app.listener.local_addr().unwrap(), |config| {
        holding(config);
        change(config);
    })
    .await;
    let (line, connection) = tokio::join!(Line::open(&gateway), app.accept());
    (app, gateway, line, connection)
}

async fn until_held(gateway: &Running) {
    crate::v1_kit::until_state(gateway, "detached", 1).await;
}

#[tokio::test]
async fn an_app_that_is_back_gets_what_it_has_not_answered_for_and_the_client_notices_nothing() {
    let (app, gateway, mut line, mut first) = start(|_| {}).await;
    assert_eq!((first.resumed.as_deref(), first.replayed.as_deref()), (None, None));
    line.text("one").await;
    assert_eq!(first.read().await, "one");
    // The pong to the ping behind it goes out with the next message.
    first.socket.send(Message::text("got one")).await.unwrap();
    line.expect_text("got one").await;
    let Ok(_) = timeout(Duration::from_millis(300), first.socket.next()).await else {
        panic!("a ping was expected")
    };
    first.socket.flush().await.unwrap();
    assert_eq!(line.read_ack().await, 1);
    // These are given to the app's connection, and it reads none of them.
    line.text("two").await;
    line.text("three").await;
    let accepted = "pulsegate_deliveries_accepted_total{direction=\"to_app\"}";
    timeout(PATIENCE, async { while gateway.scrape(accepted).await < 3 {} }).await.expect("they are given");
    let session = first.session.clone();
    drop(first);
    until_held(&gateway).await;
    line.text("four").await;
    let unacked = "pulsegate_unacked_messages{direction=\"to_app\"}";
    timeout(PATIENCE, async { while gateway.scrape(unacked).await != 3 {} }).await.expect("they wait");
    let mut second = app.accept().await;
    assert_eq!(second.session, session);
    assert_eq!((second.resumed.as_deref(), second.replayed.as_deref()), (Some("?1"), Some("2")));
    line.text("five").await;
    for expected in ["two", "three", "four", "five"] {
        assert_eq!(second.read().await, expected);
    }
    second.socket.send(Message::text("here again")).await.unwrap();
    line.expect_text("here again").await;
    let attending = second.attend();
    while line.read_ack().await < 5 {}
    assert_eq!(gateway.scrape("pulsegate_app_resumes_total").await, 1);
    assert_eq!(gateway.scrape("pulsegate_retransmits_total{direction=\"to_app\"}").await, 2);
    let settled = "pulsegate_deliveries_settled_total{direction=\"to_app\"";
    assert_eq!(gateway.scrape(settled).await, 5, "one end each");
    drop(line);
    gateway.stop().await;
    assert_eq!(attending.await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_app_that_says_that_it_restarts_is_waited_for_and_one_that_is_done_is_not() {
    for (code, waits) in
        [(1001, true), (1011, true), (1012, true), (1013, true), (1000, false), (4001, false)]
    {
        let (app, gateway, mut line, mut first) = start(|_| {}).await;
        first.socket.close(Some(CloseFrame { code: code.into(), reason: "so".into() })).await.unwrap();
        first.attend().await.unwrap();
        if waits {
            let mut second = app.accept().await;
            line.text("hello").await;
            assert_eq!(second.read().await, "hello", "{code}");
            drop(second);
        } else {
            assert_eq!(line.read_message().await, Got::Close(4411, format!("{code} so")));
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_app_that_is_not_ready_is_asked_again_and_one_that_refuses_is_not() {
    let (app, gateway, mut line, first) = start(|_| {}).await;
    drop(first);
    app.refuse("503 Service Unavailable").await;
    app.refuse("502 Bad Gateway").await;
    app.refuse("429 Too Many Requests").await;
    let second = app.accept().await;
    line.text("hello").await;
    drop(second);
    app.refuse("401 Unauthorized").await;
    let nack = Envelope::Nack { seq: 1, code: NackCode::AppGone, reason: "" };
    let mut word = Vec::new();
    nack.write(&mut word);
    let got = line.read_message().await;
    // It was given to the second connection, or not: then the client knows that it never got there.
    let close = Got::Close(4411, "1008 the app answered 401 Unauthorized".to_owned());
    if got != close {
        let Got::Word(told) = got else { panic!("{got:?}") };
        assert_eq!(told[..3], word[..3]);
        assert_eq!(line.read_message().await, close);
    }
    assert_eq!(gateway.scrape("pulsegate_app_redials_total{result=\"failed\"}").await, 3);
    assert_eq!(gateway.scrape("pulsegate_app_redials_total{result=\"connected\"}").await, 1);
    assert_eq!(gateway.scrape("pulsegate_app_redials_total{result=\"refused\"}").await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn an_app_that_stays_away_ends_the_session_when_its_time_is_over() {
    let hold = Duration::from_millis(1500);
    let (app, gateway, mut line, first) = start(|config| config.upstream.hold = hold).await;
    let lost_at = Instant::now();
    drop(first);
    drop(app);
    until_held(&gateway).await;
    line.text("in vain").await;
    let Got::Word(nack) = line.read_message().await else { panic!("a NACK is expected") };
    let Ok(Envelope::Nack { seq: 1, code: NackCode::AppGone, .. }) = Envelope::parse(&nack) else {
        panic!("{nack:?}")
    };
    assert_eq!(line.read_message().await, Got::Close(4411, "1006 app connection lost".to_owned()));
    let waited = lost_at.elapsed();
    assert!(waited >= hold && waited < hold + Duration::from_secs(1), "{waited:?}");
    let unsent = "pulsegate_deliveries_settled_total{direction=\"to_app\",outcome=\"expired_unsent\"";
    assert_eq!(gateway.scrape(unsent).await, 1);
    gateway.stop().await;
}

/// However often the app lets us in: while it does not stay, its time runs out, and the dials become fewer.
#[tokio::test]
async fn an_app_that_crashes_in_a_loop_gets_few_dials_and_no_more_time() {
    let hold = Duration::from_secs(3);
    let (app, gateway, mut line, first) = start(|config| config.upstream.hold = hold).await;
    let lost_at = Instant::now();
    drop(first);
    let mut dials = 0;
    let close = loop {
        tokio::select! {
            connection = app.accept() => {
                dials += 1;
                drop(connection);
            }
            got = line.read_message() => break got,
        }
    };
    assert!(matches!(close, Got::Close(4411, _)), "{close:?}");
    let waited = lost_at.elapsed();
    assert!(waited >= hold / 2 && waited < hold + Duration::from_secs(1), "{waited:?}");
    // Full jitter from a quarter of a second on: eight are the mean for 3 s, and forty never come.
    assert!((1..40).contains(&dials), "{dials}");
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_too_old_when_the_app_is_back_never_gets_there_and_the_client_knows() {
    let (app, gateway, mut line, first) = start(|_| {}).await;
    let address = app.listener.local_addr().unwrap();
    drop(first);
    drop(app);
    until_held(&gateway).await;
    line.word(Envelope::Meta(Meta { ttl_ms: Some(200), ..Meta::default() })).await;
    line.text("soon old").await;
    line.text("patient").await;
    let Got::Word(nack) = line.read_message().await else { panic!("a NACK is expected") };
    let Ok(Envelope::Nack { seq: 1, code: NackCode::Expired, .. }) = Envelope::parse(&nack) else {
        panic!("{nack:?}")
    };
    let app = App { listener: TcpListener::bind(address).await.unwrap() };
    let mut second = app.accept().await;
    assert_eq!(second.replayed.as_deref(), Some("0"));
    assert_eq!(second.read().await, "patient");
    let attending = second.attend();
    while line.read_ack().await < 2 {}
    gateway.stop().await;
    attending.await.unwrap();
}

/// Whoever was told that a message is too old may send it again; a repeat of it that came before shares its fate.
#[tokio::test]
async fn the_key_of_what_was_too_old_is_good_again() {
    let (app, gateway, mut line, first) = start(|_| {}).await;
    let address = app.listener.local_addr().unwrap();
    drop(first);
    drop(app);
    until_held(&gateway).await;
    let keyed = |ttl_ms| Envelope::Meta(Meta { ttl_ms, key: Some(b"k"[..].into()), ..Meta::default() });
    for text in ["soon old", "soon old, again"] {
        line.word(keyed(Some(200))).await;
        line.text(text).await;
    }
    for number in 1..=2 {
        let Got::Word(nack) = line.read_message().await else { panic!("a NACK is expected") };
        let Ok(Envelope::Nack { seq, code: NackCode::Expired, .. }) = Envelope::parse(&nack) else {
            panic!("{nack:?}")
        };
        assert_eq!(seq, number);
    }
    line.word(keyed(None)).await;
    line.text("another time").await;
    let app = App { listener: TcpListener::bind(address).await.unwrap() };
    let mut second = app.accept().await;
    assert_eq!(second.read().await, "another time");
    let attending = second.attend();
    while line.read_ack().await < 3 {}
    gateway.stop().await;
    assert_eq!(attending.await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn client_and_app_may_be_away_at_once() {
    let (app, gateway, mut line, first) = start(|_| {}).await;
    line.text("one").await;
    let token = line.token.clone();
    drop(line);
    drop(first);
    let mut second = app.accept().await;
    assert_eq!(second.read().await, "one");
    second.socket.send(Message::text("for later")).await.unwrap();
    let attending = second.attend();
    let (stream, got) = Line::resume(&gateway, &token, 0).await;
    let mut line = Line::welcomed(stream, got, true, 1, 1);
    line.expect_text("for later").await;
    assert_eq!(line.read_ack().await, 1);
    gateway.stop().await;
    attending.await.unwrap();
}

#[tokio::test]
async fn plain_sessions_end_with_their_app_as_ever() {
    let app = App::start().await;
    let gateway = Running::start(app.listener.local_addr().unwrap(), holding).await;
    let (mut client, first) = tokio::join!(raw_client(gateway.data), app.accept());
    drop(first);
    let rest = read_rest(&mut client).await;
    assert_eq!(rest.get(2..4), Some(&1012u16.to_be_bytes()[..]), "{rest:?}");
    gateway.stop().await;
}

/// While the app is cut every 60 messages: nothing is missing, and what comes twice was announced.
#[tokio::test]
async fn an_app_that_restarts_again_and_again_lacks_nothing() {
    const MESSAGES: usize = 300;
    let app = App::start().await;
    let gateway = Running::start(app.listener.local_addr().unwrap(), holding).await;
    let mut client = Client::connect(&format!("ws://{}/", gateway.data), ClientConfig::default()).unwrap();
    let sender = client.sender();
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            sender.send(Payload::Text(number.to_string())).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sender.deliver(Payload::Text(MESSAGES.to_string()), None).await.unwrap();
    });
    let listening = tokio::spawn(async move {
        while let Some(event) = client.next().await {
            match event {
                Event::Live { .. } | Event::Message { .. } => {}
                Event::Closed { .. } | Event::Detached => break,
                Event::Reset { .. } | Event::Unsupported => panic!("{event:?}"),
            }
        }
    });
    let mut had: Vec<usize> = Vec::new();
    while had.last() != Some(&MESSAGES) {
        let mut connection = app.accept().await;
        let again: usize = connection.replayed.as_deref().unwrap_or("0").parse().unwrap();
        let start = had.len() - had.len().min(again);
        for place in 0..60 {
            let number: usize = connection.read().await.parse().unwrap();
            match place < again && had.get(start..).is_some_and(|tail| tail.contains(&number)) {
                true => {}
                false => had.push(number),
            }
            if number == MESSAGES {
                tokio::spawn(connection.attend());
                break;
            }
        }
    }
    assert_eq!(had, (0..=MESSAGES).collect::<Vec<_>>());
    timeout(PATIENCE, sending).await.expect("an end in time").unwrap();
    assert!(gateway.scrape("pulsegate_app_resumes_total").await >= 4);
    assert_eq!(gateway.scrape("pulsegate_resumes_total").await, 0, "the client noticed nothing");
    gateway.stop().await;
    timeout(PATIENCE, listening).await.expect("an end in time").unwrap();
}
