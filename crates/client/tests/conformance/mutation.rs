//! A suite that can't fail proves nothing: each expectation is broken, and has to be missed.

use serde_json::{Value, json};

use crate::format::{Script, suite};
use crate::player::play;

/// What `expect` lists.
const LISTS: [&str; 3] = ["frames", "events", "outcomes"];

/// Plays a script whose text was changed; one that can't be read any more has failed as well.
fn passes(script: &Value) -> bool {
    serde_json::from_value::<Script>(script.clone()).is_ok_and(|script| play(&script, 1).is_ok())
}

/// Returns the script's variants, each with one expectation broken.
fn broken(script: &Value) -> Vec<Value> {
    let mut variants = Vec::new();
    for (place, step) in script["steps"].as_array().unwrap().iter().enumerate() {
        let mut vary = |change: &dyn Fn(&mut Value)| {
            let mut variant = script.clone();
            change(&mut variant["steps"][place]);
            variants.push(variant);
        };
        if let Some(expect) = step.get("expect") {
            for list in LISTS {
                let items = expect[list].as_array().map_or(&[][..], Vec::as_slice);
                for (item, what) in items.iter().enumerate() {
                    if what.get("may").is_none() {
                        vary(&|step| drop(step["expect"][list].as_array_mut().unwrap().remove(item)));
                    }
                }
                let more = match list {
                    "frames" => json!({"binary": "ff"}),
                    "events" => json!({"event": "unsupported"}),
                    _ => json!({"outcome": "delivered", "id": "nobody's"}),
                };
                vary(&|step| {
                    let mut longer = items.to_vec();
                    longer.push(more.clone());
                    step["expect"][list] = longer.into();
                });
            }
        }
        if step.get("dial").is_some() {
            vary(&|step| step["dial"]["protocols"].as_array_mut().unwrap().push("x".into()));
            vary(&|step| step["dial"]["after_ms"] = json!([90_000, 90_000]));
        }
    }
    variants
}

#[test]
fn no_expectation_can_be_broken_unseen() {
    let mut variants = 0;
    for (name, text) in suite() {
        let file: Value = serde_json::from_str(&text).unwrap();
        for script in file["scripts"].as_array().unwrap() {
            assert!(passes(script), "{name}, {}", script["name"]);
            for variant in broken(script) {
                variants += 1;
                assert!(!passes(&variant), "{name}, {}: passes as {variant:#}", script["name"]);
            }
        }
    }
    assert!(variants > 1000, "{variants} variants");
}

#[test]
fn a_value_that_is_a_little_wrong_is_seen() {
    let welcome = "0800000102743164643210100a0000";
    let script = |acked: &str, seq: u64, after: u64, sent: &str| {
        json!({"name": "a", "section": "6", "steps": [
            {"dial": {"protocols": ["pulsegate.v1"]}},
            {"open": {"protocol": "pulsegate.v1"}},
            {"recv": {"binary": welcome}},
            {"expect": {"events": [{"event": "open"}]}},
            {"recv": {"text": "a"}},
            {"expect": {"events": [{"event": "message", "seq": seq, "text": "a"}]}},
            {"advance_ms": after},
            {"expect": {"frames": [{"binary": acked}]}},
            {"send": {"id": "m", "text": "b"}},
            {"expect": {"frames": [{"text": "b"}]}},
            {"close": {"code": 1000}},
            {"expect": {
                "events": [{"event": "closed", "code": 1000}],
                "outcomes": [{"outcome": "expired", "id": "m", "sent": sent}]
            }},
            {"expect_done": true},
        ]})
    };
    assert!(passes(&script("0101", 1, 10, "maybe")));
    assert!(!passes(&script("0102", 1, 10, "maybe")), "another number");
    assert!(!passes(&script("0301", 1, 10, "maybe")), "another tag");
    assert!(!passes(&script("0101", 2, 10, "maybe")), "another place");
    assert!(!passes(&script("0101", 1, 9, "maybe")), "too early");
    assert!(!passes(&script("0101", 1, 10, "no")), "another outcome");
}
