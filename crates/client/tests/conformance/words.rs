//! What a script says of its frames is what their bytes say.

use pulsegate_core::v1::{Ack, Envelope, Welcome};
use serde_json::Value;

use crate::format::{hex, suite};

fn say(envelope: &Envelope<'_>) -> String {
    match envelope {
        Envelope::Binary(_) => "BINARY".to_owned(),
        Envelope::Ack(ack) => format!("ACK {}", say_ack(ack)),
        Envelope::Probe => "PROBE".to_owned(),
        Envelope::ProbeAck(ack) => format!("PROBE_ACK {}", say_ack(ack)),
        Envelope::Skip { count, .. } => format!("SKIP count={count}"),
        Envelope::Meta(meta) => {
            let ttl = meta.ttl_ms.map(|ms| format!(" ttl_ms={ms}")).unwrap_or_default();
            let now = if meta.ack_now { " ack_now" } else { "" };
            let key = meta.key.map(|key| format!(" key={}", key.escape_ascii())).unwrap_or_default();
            format!("META{ttl}{now}{key}")
        }
        Envelope::Nack { seq, .. } => format!("NACK seq={seq}"),
        Envelope::Welcome(welcome) => say_welcome(welcome),
        Envelope::ResumeFail(fail) => {
            let counters =
                fail.counters.map(|(received, acked)| format!(" received={received} acked={acked}"));
            format!("RESUME_FAIL code={}{}", fail.code.as_str(), counters.unwrap_or_default())
        }
        Envelope::Bye { received, sent } => format!("BYE received={received} sent={sent}"),
        Envelope::Ignorable(tag) => format!("IGNORABLE tag={tag:02x}"),
    }
}

fn say_ack(ack: &Ack) -> String {
    let window = ack.window.map(|(messages, kib)| format!(" window={messages}/{kib}"));
    format!("handled={}{}", ack.handled, window.unwrap_or_default())
}

fn say_welcome(welcome: &Welcome<'_>) -> String {
    let Welcome { received, next, token, window_messages, window_kib, ack, heartbeat_ms, .. } = welcome;
    let resumed = if welcome.resumed { " resumed" } else { "" };
    format!(
        "WELCOME{resumed} received={received} next={next} token={token} window={window_messages}/{window_kib} \
         ack={}/{}/{} heartbeat={heartbeat_ms}",
        ack.messages,
        ack.kib,
        ack.delay.as_millis(),
    )
}

/// Calls `check` with each object that says what it is.
fn each_said(value: &Value, check: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| each_said(item, check)),
        Value::Object(members) => {
            if let (Some(said), Some(binary)) = (members.get("is"), members.get("binary")) {
                check(said.as_str().unwrap(), binary.as_str().unwrap());
            }
            members.values().for_each(|member| each_said(member, check));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn a_frame_is_what_its_script_says() {
    let mut frames = 0;
    for (name, text) in suite() {
        each_said(&serde_json::from_str(&text).unwrap(), &mut |said, binary| {
            frames += 1;
            let bytes = hex(binary).unwrap();
            let really = match Envelope::parse(&bytes) {
                Ok(envelope) => say(&envelope),
                Err(error) => error.as_str().to_owned(),
            };
            assert_eq!(said, really, "{name}: {binary}");
        });
    }
    assert!(frames > 0, "no frame says what it is");
}
