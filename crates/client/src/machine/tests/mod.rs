//! The machine in virtual time, against a gateway made of the same windows.

mod gateway;
mod properties;
mod silence;
mod words;
mod world;

use std::time::{Duration, Instant};

use pulsegate_core::v1::{AckRules, Outgoing};

const HEARTBEAT: Duration = Duration::from_secs(2);
const RULES: AckRules = AckRules { messages: 3, kib: 1, delay: Duration::from_millis(750) };

#[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
fn origin() -> Instant {
    Instant::now()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A message that carries its own name; every second one is text.
fn message(tag: u32, expires_at: Option<Instant>, ack_now: bool) -> Outgoing<u32> {
    let (text, payload) = match tag % 2 {
        0 => (true, tag.to_string().into_bytes()),
        _ => (false, tag.to_be_bytes().to_vec()),
    };
    Outgoing { text, payload: payload.into(), expires_at, ack_now, key: None, tag: Some(tag) }
}

fn tag_of(text: bool, payload: &[u8]) -> u32 {
    let tag = match text {
        true => str::from_utf8(payload).unwrap().parse().unwrap(),
        false => u32::from_be_bytes(payload.try_into().unwrap()),
    };
    assert_eq!(text, tag % 2 == 0, "a message is of the kind that it was sent as");
    tag
}
