//! `pulsegate ping`

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::dial::{DialError, Dialed, dial};
use super::exit::{self, Failure};
use super::output::{Format, Output, print};
use crate::config::{parse_duration, show_duration};

/// Shortest interval: less is a flood, and servers cut floods.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Longest interval and longest wait.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Time for the closing handshake at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// ws://host:port/path
    url: String,
    /// Ends after this many pings
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..), env = "PULSEGATE_PING_COUNT")]
    count: Option<u64>,
    /// Time between pings: seconds, or "250ms"
    #[arg(short, long, default_value = "1s", value_parser = interval, env = "PULSEGATE_PING_INTERVAL")]
    interval: Duration,
    /// How long to wait for the connection and for each pong: seconds, or "250ms"
    #[arg(short = 'W', long, default_value = "5s", value_parser = seconds, env = "PULSEGATE_PING_TIMEOUT")]
    timeout: Duration,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let dialed = dial(&arguments.url, arguments.timeout).await.map_err(|error| {
        let code = match &error {
            DialError::Url(_) => exit::USAGE,
            DialError::Connect { .. }
            | DialError::Slow { .. }
            | DialError::Refused(_)
            | DialError::Handshake(_) => exit::APP_UNREACHABLE,
        };
        Failure::new(code, error.to_string())
    })?;
    let mut session = Session::new(&arguments, dialed)?;
    let ended = session.run().await?;
    session.close().await;
    session.finish(&ended)?;
    let cut = matches!(ended, Ended::Cut(_));
    Ok(if session.round_trips.is_empty() || cut { exit::FAILURE } else { exit::OK })
}

/// Why no more pings are sent.
enum Ended {
    /// All pings are settled, or the user has seen enough.
    Done,
    /// The server has left, and how.
    Cut(String),
}

struct Session<'a> {
    arguments: &'a Arguments,
    dialed: Dialed,
    begun: Instant,
    sent: u64,
    /// Number and time of pings without a pong, oldest first.
    waiting: VecDeque<(u64, Instant)>,
    round_trips: Vec<Duration>,
    /// Tells our pongs from any other.
    mark: u64,
}

impl<'a> Session<'a> {
    fn new(arguments: &'a Arguments, dialed: Dialed) -> Result<Session<'a>, Failure> {
        let took = ms(dialed.took);
        match arguments.format.output {
            Output::Table => print(&format!(
                "PING {} ({}): connected and upgraded in {took:.3} ms\n",
                arguments.url, dialed.peer
            ))?,
            Output::Json => line(
                &json!({ "type": "connected", "url": arguments.url, "peer": dialed.peer, "took_ms": took }),
            )?,
        }
        Ok(Session {
            arguments,
            dialed,
            begun: Instant::now(),
            sent: 0,
            waiting: VecDeque::new(),
            round_trips: Vec::new(),
            mark: fastrand::u64(..),
        })
    }

    async fn run(&mut self) -> Result<Ended, Failure> {
        let mut next_ping = self.begun;
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            let all_sent = self.arguments.count.is_some_and(|count| self.sent >= count);
            if all_sent && self.waiting.is_empty() {
                return Ok(Ended::Done);
            }
            let oldest = self.waiting.front().map_or(next_ping, |(_, at)| *at + self.arguments.timeout);
            tokio::select! {
                _ = &mut interrupt => return Ok(Ended::Done),
                message = self.dialed.socket.next() => {
                    if let Some(ended) = self.on_message(message)? {
                        return Ok(ended);
                    }
                }
                () = tokio::time::sleep_until(oldest), if !self.waiting.is_empty() => self.on_missing()?,
                () = tokio::time::sleep_until(next_ping), if !all_sent => {
                    next_ping += self.arguments.interval;
                    if let Err(why) = self.send().await {
                        return Ok(Ended::Cut(why));
                    }
                }
            }
        }
    }

    async fn send(&mut self) -> Result<(), String> {
        self.sent += 1;
        let mut payload = self.mark.to_be_bytes().to_vec();
        payload.extend_from_slice(&self.sent.to_be_bytes());
        self.waiting.push_back((self.sent, Instant::now()));
        let socket = &mut self.dialed.socket;
        let write = async {
            socket.feed(Message::Ping(payload.into())).await?;
            socket.flush().await
        };
        match tokio::time::timeout(self.arguments.timeout, write).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the server takes no more bytes".into()),
        }
    }

    fn on_message(
        &mut self,
        message: Option<Result<Message, WebSocketError>>,
    ) -> Result<Option<Ended>, Failure> {
        match message {
            Some(Ok(Message::Pong(payload))) => self.on_pong(&payload).map(|()| None),
            Some(Ok(Message::Close(Some(frame)))) => {
                Ok(Some(Ended::Cut(format!("the server closed: {} {}", frame.code, frame.reason))))
            }
            Some(Ok(Message::Close(None))) => Ok(Some(Ended::Cut("the server closed".into()))),
            Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Frame(_))) => {
                Ok(None)
            }
            Some(Err(error)) => Ok(Some(Ended::Cut(error.to_string()))),
            None => Ok(Some(Ended::Cut("the connection ended".into()))),
        }
    }

    fn on_pong(&mut self, payload: &Bytes) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(number) = payload.strip_prefix(&self.mark.to_be_bytes()) else { return Ok(()) };
        let Some(index) = self.waiting.iter().position(|(sent, _)| sent.to_be_bytes() == number) else {
            return Ok(());
        };
        let Some((number, at)) = self.waiting.remove(index) else { return Ok(()) };
        let round_trip = now - at;
        self.round_trips.push(round_trip);
        match self.arguments.format.output {
            Output::Table => print(&format!(
                "pong from {}: seq={number} time={:.3} ms\n",
                self.dialed.peer,
                ms(round_trip)
            )),
            Output::Json => line(&json!({ "type": "pong", "seq": number, "time_ms": ms(round_trip) })),
        }
    }

    fn on_missing(&mut self) -> Result<(), Failure> {
        let Some((number, _)) = self.waiting.pop_front() else { return Ok(()) };
        match self.arguments.format.output {
            Output::Table => {
                let limit = show_duration(self.arguments.timeout);
                print(&format!("no pong for seq={number} within {limit}\n"))
            }
            Output::Json => line(&json!({ "type": "missing", "seq": number })),
        }
    }

    async fn close(&mut self) {
        // Politeness only: the answer changes nothing.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.dialed.socket.close(None)).await;
    }

    fn finish(&self, ended: &Ended) -> Result<(), Failure> {
        // Pings that the end overtook had no fair chance: they are no loss.
        let overtaken = match ended {
            Ended::Done => self.waiting.len() as u64,
            Ended::Cut(_) => 0,
        };
        let summary = Summary::new(self.sent - overtaken, &self.round_trips);
        let elapsed = self.begun.elapsed();
        let why = match ended {
            Ended::Done => None,
            Ended::Cut(why) => Some(why),
        };
        match self.arguments.format.output {
            Output::Json => line(&summary.json(elapsed, why)),
            Output::Table => {
                if let Some(why) = why {
                    super::output::say(why);
                }
                print(&summary.text(&self.arguments.url, elapsed))
            }
        }
    }
}

struct Summary {
    sent: u64,
    received: u64,
    loss_percent: f64,
    /// Least, mean, most and standard deviation in milliseconds.
    times: Option<[f64; 4]>,
}

impl Summary {
    fn new(sent: u64, round_trips: &[Duration]) -> Summary {
        let received = round_trips.len() as u64;
        let lost = sent.saturating_sub(received);
        let loss_percent = if sent == 0 { 0.0 } else { 100.0 * lost as f64 / sent as f64 };
        let times: Vec<f64> = round_trips.iter().copied().map(ms).collect();
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / count;
        let least = times.iter().copied().reduce(f64::min);
        let most = times.iter().copied().reduce(f64::max);
        let times = least.zip(most).map(|(least, most)| [least, mean, most, variance.sqrt()]);
        Summary { sent, received, loss_percent, times }
    }

    fn text(&self, url: &str, elapsed: Duration) -> String {
        let Summary { sent, received, loss_percent, times } = self;
        let mut text = format!(
            "--- {url} ping statistics ---\n{sent} pings sent, {received} pongs received, {} loss, time {:.0} ms\n",
            percent(*loss_percent),
            ms(elapsed)
        );
        if let Some([least, mean, most, deviation]) = times {
            text += &format!("rtt min/avg/max/mdev = {least:.3}/{mean:.3}/{most:.3}/{deviation:.3} ms\n");
        }
        text
    }

    fn json(&self, elapsed: Duration, why: Option<&String>) -> serde_json::Value {
        let [least, mean, most, deviation] = self.times.map_or([None; 4], |times| times.map(Some));
        json!({
            "type": "summary", "sent": self.sent, "received": self.received,
            "loss_percent": self.loss_percent, "elapsed_ms": ms(elapsed), "cut": why,
            "min_ms": least, "avg_ms": mean, "max_ms": most, "mdev_ms": deviation,
        })
    }
}

/// One JSON object a line, so that a reader needs not wait for the end.
fn line(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

fn percent(percent: f64) -> String {
    if percent.fract() == 0.0 { format!("{percent:.0}%") } else { format!("{percent:.1}%") }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Seconds as ping(8) takes them, or a duration with units.
fn seconds(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => parse_duration(text)?,
    };
    if duration.is_zero() || duration > DURATION_MAX {
        return Err(format!("more than 0 and at most {}", show_duration(DURATION_MAX)));
    }
    Ok(duration)
}

fn interval(text: &str) -> Result<Duration, String> {
    let duration = seconds(text)?;
    if duration < INTERVAL_MIN {
        return Err(format!("at least {}", show_duration(INTERVAL_MIN)));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_as_ping_does() {
        let summary = Summary::new(4, &[1, 2, 6].map(Duration::from_millis));
        let text = summary.text("ws://a", Duration::from_millis(3001));
        assert_eq!(
            text,
            "--- ws://a ping statistics ---\n4 pings sent, 3 pongs received, 25% loss, time 3001 ms\n\
             rtt min/avg/max/mdev = 1.000/3.000/6.000/2.160 ms\n"
        );
        let nothing = Summary::new(2, &[]);
        assert_eq!(nothing.text("ws://a", Duration::ZERO).lines().count(), 2);
        assert!(nothing.json(Duration::ZERO, None)["min_ms"].is_null());
    }

    #[test]
    fn intervals_are_seconds_or_durations() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "1ms", "NaN", "inf", "1e99", "2d", "soon"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
