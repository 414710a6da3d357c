//! A client that speaks `pulsegate.v1` by hand, frame by frame.

use std::time::Duration;

use pulsegate::config::Config;
use pulsegate_core::v1::{Ack, Envelope, OfferedResume, ResumeFailCode, Welcome};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_tungstenite::tungstenite::Message;

use crate::kit::{Running, Seen, bare_app, echo_app, frame, next, raw_client_with, read_frame};

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;

/// A connection to a session.
pub(crate) struct Line {
    pub(crate) stream: TcpStream,
    pub(crate) token: String,
}

/// What comes on a line.
#[derive(Debug, PartialEq)]
pub(crate) enum Got {
    Text(String),
    /// An envelope as it stands on the wire.
    Word(Vec<u8>),
    Close(u16, String),
}

impl Line {
    /// Dials with the entries of an offer and whatever else, and returns the first frame.
    pub(crate) async fn dial(gateway: &Running, offer: &str, headers: &str) -> (TcpStream, Got) {
        let headers = format!("Sec-WebSocket-Protocol: {offer}\r\n{headers}");
        let (stream, head) = raw_client_with(gateway.data, &headers).await;
        assert!(head.to_lowercase().contains("sec-websocket-protocol: pulsegate.v1\r\n"), "{head}");
        let mut line = Line { stream, token: String::new() };
        let first = line.read().await;
        (line.stream, first)
    }

    /// Begins a session.
    pub(crate) async fn open(gateway: &Running) -> Line {
        let (stream, first) = Line::dial(gateway, "pulsegate.v1", "").await;
        Line::welcomed(stream, first, false, 0, 1)
    }

    /// Comes back, having received so many messages.
    pub(crate) async fn resume(gateway: &Running, token: &str, received: u64) -> (TcpStream, Got) {
        let entry = OfferedResume::to_entry(token, received);
        Line::dial(gateway, &format!("pulsegate.v1, {entry}"), "").await
    }

    pub(crate) fn welcomed(stream: TcpStream, first: Got, resumed: bool, received: u64, next: u64) -> Line {
        let Got::Word(word) = first else { panic!("{first:?}") };
        let Ok(Envelope::Welcome(welcome)) = Envelope::parse(&word) else { panic!("{word:?}") };
        assert_eq!((welcome.resumed, welcome.received, welcome.next), (resumed, received, next));
        let Welcome { token, .. } = welcome;
        Line { stream, token: token.to_owned() }
    }

    /// Reads what comes next; pings are answered, so that nobody is taken for dead.
    pub(crate) async fn read(&mut self) -> Got {
        loop {
            let (first, payload) = read_frame(&mut self.stream).await;
            match first {
                TEXT => return Got::Text(String::from_utf8(payload).unwrap()),
                BINARY => return Got::Word(payload),
                CLOSE => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    return Got::Close(code, String::from_utf8(payload[2..].to_vec()).unwrap());
                }
                PING => self.stream.write_all(&frame(0x8a, &payload)).await.unwrap(),
                other => panic!("{other:#x}"),
            }
        }
    }

    pub(crate) async fn expect_text(&mut self, text: &str) {
        assert_eq!(self.read_message().await, Got::Text(text.to_owned()));
    }

    /// Reads until something comes that is no ACK, no PROBE and no BYE.
    pub(crate) async fn read_message(&mut self) -> Got {
        loop {
            match self.read().await {
                Got::Word(word) if matches!(word[0], 1..=3 | 0x0a) => {}
                got => return got,
            }
        }
    }

    /// Reads until an ACK comes, past messages.
    pub(crate) async fn read_ack(&mut self) -> u64 {
        loop {
            if let Got::Word(word) = self.read().await
                && let Ok(Envelope::Ack(ack) | Envelope::ProbeAck(ack)) = Envelope::parse(&word)
            {
                return ack.handled;
            }
        }
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.stream.write_all(&frame(TEXT, text.as_bytes())).await.unwrap();
    }

    pub(crate) async fn word(&mut self, envelope: Envelope<'_>) {
        let mut payload = Vec::new();
        envelope.write(&mut payload);
        self.stream.write_all(&frame(BINARY, &payload)).await.unwrap();
    }

    pub(crate) async fn ack(&mut self, handled: u64) {
        self.word(Envelope::Ack(Ack { handled, window: None })).await;
    }
}

pub(crate) async fn gateway(change: impl FnOnce(&mut Config)) -> (Running, UnboundedReceiver<Seen>) {
    let (app, seen) = echo_app().await;
    let quick = |config: &mut Config| {
        config.limits.close_timeout = Duration::from_millis(200);
        change(config);
    };
    (Running::start(app, quick).await, seen)
}

pub(crate) async fn app_sees(seen: &mut UnboundedReceiver<Seen>, text: &str) {
    assert_eq!(next(seen).await, Seen::Message(Message::text(text)));
}

/// Comes back and is told no.
pub(crate) async fn assert_refused(
    gateway: &Running,
    token: &str,
    received: u64,
    code: ResumeFailCode,
    counters: Option<(u64, u64)>,
) {
    let (stream, got) = Line::resume(gateway, token, received).await;
    assert_refusal(stream, got, code, counters).await;
}

pub(crate) async fn assert_refusal(
    stream: TcpStream,
    got: Got,
    code: ResumeFailCode,
    counters: Option<(u64, u64)>,
) {
    let Got::Word(word) = got else { panic!("{got:?}") };
    let Ok(Envelope::ResumeFail(fail)) = Envelope::parse(&word) else { panic!("{word:?}") };
    assert_eq!((fail.code, fail.counters), (code, counters));
    let mut line = Line { stream, token: String::new() };
    assert_eq!(line.read().await, Got::Close(code.close().number(), code.as_str().to_owned()));
}

pub(crate) async fn until_ended(seen: &mut UnboundedReceiver<Seen>, (code, reason): (u16, &str)) {
    loop {
        match next(seen).await {
            Seen::Close(told) => {
                assert_eq!(told, Some((code, reason.to_owned())));
                return;
            }
            // Perhaps that of an earlier session.
            Seen::Open | Seen::Message(_) | Seen::End => {}
        }
    }
}

/// A gateway with a client that speaks v1 and an app that is a bare socket behind its handshake.
pub(crate) async fn bare_v1_pair(change: impl FnOnce(&mut Config)) -> (Running, Line, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Running::start(listener.local_addr().unwrap(), |config| {
        config.limits.close_timeout = Duration::from_millis(200);
        change(config);
    })
    .await;
    let (line, app) = tokio::join!(Line::open(&gateway), bare_app(&listener));
    (gateway, line, app)
}

pub(crate) async fn until_state(gateway: &Running, state: &str, sessions: u64) {
    let series = format!("pulsegate_sessions{{state=\"{state}\"}}");
    while gateway.scrape(&series).await != sessions {}
}
