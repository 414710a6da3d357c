//! The driver over real sockets, against a gateway that a test plays frame by frame.

#![allow(clippy::unwrap_used, reason = "the helpers of a test")]
#![allow(
    clippy::disallowed_methods,
    reason = "each side does one thing at a time: there is no other arm that could win"
)]

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use pulsegate_client::{Client, ClientConfig, Delivered, DeliveryError, Event, Payload, SendError};
use pulsegate_core::Sent;
use pulsegate_core::v1::{Ack, AckRules, Code, Envelope, Meta, ResumeFail, ResumeFailCode, Welcome};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async};

/// Nothing in a test takes so long.
const LIMIT: Duration = Duration::from_secs(20);

struct Gateway {
    listener: TcpListener,
    url: String,
}

/// One connection of a client.
struct Line {
    stream: WebSocketStream<TcpStream>,
    offer: Vec<String>,
}

impl Gateway {
    async fn new() -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        Gateway { listener, url }
    }

    fn client(&self) -> Client {
        let config = ClientConfig {
            subprotocols: vec!["chat.v2".to_owned()],
            backoff_min: Duration::from_millis(20),
            ..ClientConfig::default()
        };
        Client::connect(&self.url, config).unwrap()
    }

    async fn accept(&self, answer: &str) -> Line {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let mut offer = Vec::new();
        #[allow(clippy::result_large_err, reason = "the type is tungstenite's")]
        let shake = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let entries = request.headers()["sec-websocket-protocol"].to_str().unwrap();
            offer = entries.split(',').map(|entry| entry.trim().to_owned()).collect();
            response.headers_mut().insert("sec-websocket-protocol", answer.parse().unwrap());
            Ok(response)
        };
        let stream = accept_hdr_async(tcp, shake).await.unwrap();
        Line { stream, offer }
    }

    async fn greet(&self, resumed: bool, received: u64, next: u64, token: &str) -> Line {
        let mut line = self.accept("pulsegate.v1+chat.v2").await;
        let rules = AckRules { messages: 1, kib: 16, delay: Duration::from_millis(100) };
        let welcome = Welcome {
            resumed,
            received,
            next,
            token,
            resume_window_s: 60,
            window_messages: 4,
            window_kib: 1,
            ack: rules,
            heartbeat_ms: 60_000,
            features: 0,
        };
        line.say(&Envelope::Welcome(welcome)).await;
        line
    }
}

impl Line {
    async fn say(&mut self, envelope: &Envelope<'_>) {
        let mut payload = Vec::new();
        envelope.write(&mut payload);
        self.stream.send(Message::Binary(payload.into())).await.unwrap();
    }

    async fn text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    async fn ack(&mut self, handled: u64) {
        self.say(&Envelope::Ack(Ack { handled, window: None })).await;
    }

    async fn hear(&mut self) -> Message {
        self.stream.next().await.expect("the client is there").expect("it speaks WebSocket")
    }

    async fn expect(&mut self, envelope: &Envelope<'_>) {
        let frame = self.hear().await.into_data();
        assert_eq!(Envelope::parse(&frame).as_ref(), Ok(envelope));
    }

    async fn expect_text(&mut self, text: &str) {
        assert_eq!(self.hear().await, Message::text(text));
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        self.stream.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await.unwrap();
    }
}

fn text(text: &str) -> Payload {
    Payload::Text(text.to_owned())
}

async fn next(client: &mut Client) -> Event {
    client.next().await.expect("it is not over")
}

async fn within<F: Future>(test: F) -> F::Output {
    timeout(LIMIT, test).await.expect("in time")
}

#[tokio::test]
async fn a_cut_in_the_middle_loses_and_doubles_nothing() {
    within(async {
        let gateway = Gateway::new().await;
        let mut client = gateway.client();
        let mut line = gateway.greet(false, 0, 1, "one").await;
        assert_eq!(line.offer, ["pulsegate.v1+chat.v2", "pulsegate.v1", "chat.v2"]);
        assert_eq!(next(&mut client).await, Event::Live { resumed: false });

        client.send(text("first")).await.unwrap();
        let sender = client.sender();
        let delivering = tokio::spawn(async move { sender.deliver(Payload::Binary(vec![7]), None).await });
        line.expect_text("first").await;
        line.ack(1).await;
        line.expect(&Envelope::Meta(Meta { ack_now: true, ..Meta::default() })).await;
        line.expect(&Envelope::Binary(&[7])).await;
        line.text("to the client").await;
        let message = next(&mut client).await;
        assert_eq!(message, Event::Message { seq: 1, text: true, payload: Box::from(&b"to the client"[..]) });

        client.drop_connection().await;
        assert_eq!(next(&mut client).await, Event::Detached);
        client.send(text("while away")).await.unwrap();

        // The second one was lost on its way, and so was the client's ACK.
        let mut line = gateway.greet(true, 1, 2, "two").await;
        assert_eq!(line.offer, ["pulsegate.v1+chat.v2", "pgr.one.1"]);
        assert_eq!(next(&mut client).await, Event::Live { resumed: true });
        line.expect(&Envelope::Ack(Ack { handled: 1, window: None })).await;
        line.expect(&Envelope::Meta(Meta { ack_now: true, ..Meta::default() })).await;
        line.expect(&Envelope::Binary(&[7])).await;
        line.expect_text("while away").await;
        line.ack(3).await;
        assert_eq!(delivering.await.unwrap(), Ok(Delivered));
    })
    .await;
}

#[tokio::test]
async fn a_message_counts_as_handled_when_the_app_has_taken_it() {
    within(async {
        let gateway = Gateway::new().await;
        let mut client = gateway.client();
        let mut line = gateway.greet(false, 0, 1, "one").await;
        line.text("one").await;
        line.text("two").await;
        line.say(&Envelope::Probe).await;
        line.expect(&Envelope::ProbeAck(Ack { handled: 0, window: None })).await;
        assert_eq!(next(&mut client).await, Event::Live { resumed: false });
        for handled in [1, 2] {
            assert!(matches!(next(&mut client).await, Event::Message { seq, .. } if seq == handled));
            line.expect(&Envelope::Ack(Ack { handled, window: None })).await;
        }
    })
    .await;
}

#[tokio::test]
async fn sending_waits_for_room() {
    within(async {
        let gateway = Gateway::new().await;
        let client = gateway.client();
        let mut line = gateway.greet(false, 0, 1, "one").await;
        // Its window is known by now.
        client.send(text("1")).await.unwrap();
        line.expect_text("1").await;
        let sender = client.sender();
        let sending = tokio::spawn(async move {
            for number in 2..=9 {
                sender.send(text(&number.to_string())).await.unwrap();
            }
        });
        for number in 2..=4 {
            line.expect_text(&number.to_string()).await;
        }
        // Only a PROBE comes now: four wait for their ACK.
        line.expect(&Envelope::Probe).await;
        assert!(!sending.is_finished());
        for number in 5..=9 {
            line.ack(number - 4).await;
            line.expect_text(&number.to_string()).await;
        }
        sending.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn many_are_under_way_in_order_before_the_end_of_any() {
    within(async {
        let gateway = Gateway::new().await;
        let client = gateway.client();
        let mut line = gateway.greet(false, 0, 1, "one").await;
        let mut deliveries = Vec::new();
        for seq in 1..=4 {
            let delivery = client.sender().begin(text(&seq.to_string()), None).await.unwrap();
            assert_eq!(delivery.seq(), seq);
            deliveries.push(delivery);
        }
        for seq in 1..=4 {
            line.expect(&Envelope::Meta(Meta { ack_now: true, ..Meta::default() })).await;
            line.expect_text(&seq.to_string()).await;
        }
        line.ack(4).await;
        for delivery in deliveries {
            assert_eq!(delivery.end().await, Ok(Delivered));
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_gone_is_told_and_the_next_begins() {
    within(async {
        let gateway = Gateway::new().await;
        let mut client = gateway.client();
        let mut line = gateway.greet(false, 0, 1, "one").await;
        assert_eq!(next(&mut client).await, Event::Live { resumed: false });
        let sender = client.sender();
        let delivering = tokio::spawn(async move { sender.deliver(text("lost"), None).await });
        line.expect(&Envelope::Meta(Meta { ack_now: true, ..Meta::default() })).await;
        line.expect_text("lost").await;
        drop(line);

        let mut line = gateway.accept("pulsegate.v1+chat.v2").await;
        let code = ResumeFailCode::Unknown;
        line.say(&Envelope::ResumeFail(ResumeFail { code, counters: None })).await;
        assert_eq!(delivering.await.unwrap(), Err(DeliveryError::Expired(Sent::Maybe)));
        line.close(Code::TokenUnknown.number(), "").await;

        let line = gateway.greet(false, 0, 1, "two").await;
        assert_eq!(line.offer, ["pulsegate.v1+chat.v2", "pulsegate.v1", "chat.v2"]);
        let mut events = Vec::new();
        while events.last() != Some(&Event::Live { resumed: false }) {
            events.push(next(&mut client).await);
        }
        assert!(events.contains(&Event::Reset { undelivered: 1 }), "{events:?}");
    })
    .await;
}

#[tokio::test]
async fn closing_says_goodbye() {
    within(async {
        let gateway = Gateway::new().await;
        let client = gateway.client();
        let mut line = gateway.greet(false, 0, 1, "one").await;
        client.send(text("last words")).await.unwrap();
        line.expect_text("last words").await;
        let sender = client.sender();
        let play = async {
            line.expect(&Envelope::Bye { received: 0, sent: 1 }).await;
            let Message::Close(Some(close)) = line.hear().await else { panic!("no Close") };
            assert_eq!(u16::from(close.code), 1000);
            // The answer to it leaves when the stream is polled again.
            assert!(line.stream.next().await.is_none_or(|ended| ended.is_err()));
        };
        tokio::join!(client.close(), play);
        assert_eq!(sender.send(text("late")).await, Err(SendError::Closed));
    })
    .await;
}

#[tokio::test]
async fn the_app_s_close_ends_it() {
    within(async {
        let gateway = Gateway::new().await;
        let mut client = gateway.client();
        let mut line = gateway.greet(false, 0, 1, "one").await;
        assert_eq!(next(&mut client).await, Event::Live { resumed: false });
        line.close(Code::AppClosed.number(), "3001 enough").await;
        let mut events = vec![next(&mut client).await];
        while let Some(event) = client.next().await {
            events.push(event);
        }
        assert_eq!(events, [Event::Closed { code: Some(3001), reason: "enough".to_owned() }]);
    })
    .await;
}

#[tokio::test]
async fn a_server_without_a_gateway_is_told() {
    within(async {
        let gateway = Gateway::new().await;
        let mut client = gateway.client();
        let delivering = client.sender();
        let delivering = tokio::spawn(async move { delivering.deliver(text("x"), None).await });
        let _line = gateway.accept("chat.v2").await;
        assert_eq!(next(&mut client).await, Event::Unsupported);
        assert_eq!(client.next().await, None);
        let refused = delivering.await.unwrap();
        assert!(
            matches!(
                refused,
                Err(DeliveryError::Expired(Sent::No) | DeliveryError::NotTaken(SendError::Closed))
            ),
            "{refused:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_server_without_subprotocols_is_told() {
    within(async {
        let gateway = Gateway::new().await;
        let mut client = gateway.client();
        let (tcp, _) = gateway.listener.accept().await.unwrap();
        let _stream = accept_async(tcp).await.unwrap();
        assert_eq!(next(&mut client).await, Event::Unsupported);
        assert_eq!(client.next().await, None);
    })
    .await;
}

#[tokio::test]
async fn only_urls_that_can_be_dialed_are_taken() {
    for url in ["", "wss://localhost/", "http://localhost/", "/x", "ws://"] {
        assert!(Client::connect(url, ClientConfig::default()).is_err(), "{url}");
    }
}
