//! The format of a script: tests/conformance/README.md. Whatever is not in it is refused.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) format: u32,
    pub(crate) topic: String,
    pub(crate) scripts: Vec<Script>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    pub(crate) name: String,
    #[serde(rename = "section")]
    pub(crate) _section: String,
    /// Features that this client has all.
    #[serde(default, rename = "needs")]
    pub(crate) _needs: Vec<Feature>,
    #[serde(default)]
    pub(crate) client: Settings,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Feature {
    AckNow,
    Confirm,
    Counters,
    Key,
    Lone,
    ManualAck,
    Piggyback,
    PulsegateOnly,
    Silence,
    Ttl,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) subprotocols: Vec<String>,
    pub(crate) window_messages: usize,
    pub(crate) window_kib: usize,
    pub(crate) confirm_within_ms: u64,
    pub(crate) close_within_ms: u64,
    pub(crate) backoff_min_ms: u64,
    pub(crate) backoff_max_ms: u64,
    pub(crate) manual_ack: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            subprotocols: Vec::new(),
            window_messages: 1024,
            window_kib: 256,
            confirm_within_ms: 1000,
            close_within_ms: 5000,
            backoff_min_ms: 200,
            backoff_max_ms: 20_000,
            manual_ack: false,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Dial(Dial),
    Open(Open),
    Recv(Frame),
    Close(Close),
    Lost(True),
    Send(Submission),
    Handled(u64),
    Finish(True),
    AdvanceMs(u64),
    SleepMs(u64),
    Expect(Expect),
    ExpectDone(True),
}

/// A step without arguments.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "bool")]
pub(crate) struct True;

impl TryFrom<bool> for True {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<True, &'static str> {
        if value { Ok(True) } else { Err("there is no other than true") }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dial {
    pub(crate) protocols: Vec<String>,
    #[serde(default)]
    pub(crate) may: Vec<String>,
    #[serde(default)]
    pub(crate) after_ms: [u64; 2],
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Open {
    pub(crate) protocol: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Close {
    pub(crate) code: Option<u16>,
    #[serde(default)]
    pub(crate) reason: String,
}

/// A text frame or a binary one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Frame {
    pub(crate) text: Option<String>,
    pub(crate) binary: Option<String>,
    #[serde(default)]
    pub(crate) fill: String,
    #[serde(default)]
    pub(crate) times: usize,
    #[serde(rename = "is")]
    pub(crate) _is: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    pub(crate) id: String,
    pub(crate) text: Option<String>,
    pub(crate) binary: Option<String>,
    #[serde(default)]
    pub(crate) fill: String,
    #[serde(default)]
    pub(crate) times: usize,
    pub(crate) ttl_ms: Option<u64>,
    #[serde(default)]
    pub(crate) ack_now: bool,
    pub(crate) key: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) frames: Vec<Written>,
    pub(crate) events: Vec<Told>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// What the client is to have written.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Written {
    May(May),
    AnyOrder(AnyOrder),
    Item(Item),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct May {
    pub(crate) may: Item,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnyOrder {
    pub(crate) any_order: Vec<Item>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Item {
    Close(OwnClose),
    Drop(OwnDrop),
    Frame(Frame),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnClose {
    pub(crate) close: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnDrop {
    #[serde(rename = "drop")]
    pub(crate) _drop: True,
}

/// What the application is to have been told.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Told {
    Open {},
    Resumed {},
    Detached {},
    Reset {},
    Unsupported {},
    Closed {
        code: Option<u16>,
        reason: Option<String>,
    },
    Message {
        seq: u64,
        text: Option<String>,
        binary: Option<String>,
        #[serde(default)]
        fill: String,
        #[serde(default)]
        times: usize,
    },
}

/// How a message is to have ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Outcome {
    Delivered { id: String },
    Rejected { id: String, code: u64 },
    Expired { id: String, sent: Sent },
    NotTaken { id: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sent {
    No,
    Maybe,
}

/// Returns whether it is text, and its bytes.
pub(crate) fn bytes(
    text: Option<&str>,
    binary: Option<&str>,
    fill: &str,
    times: usize,
) -> Result<(bool, Vec<u8>), String> {
    match (text, binary) {
        (Some(text), None) => Ok((true, (text.to_owned() + &fill.repeat(times)).into_bytes())),
        (None, Some(binary)) => {
            let mut bytes = hex(binary)?;
            bytes.extend(hex(fill)?.repeat(times));
            Ok((false, bytes))
        }
        (Some(_), Some(_)) | (None, None) => Err("either text or binary".to_owned()),
    }
}

pub(crate) fn hex(digits: &str) -> Result<Vec<u8>, String> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(is_digit) {
        return Err(format!("{digits:?} is not lowercase hex"));
    }
    let byte = |place| u8::from_str_radix(&digits[place..place + 2], 16).map_err(|error| error.to_string());
    (0..digits.len()).step_by(2).map(byte).collect()
}

impl Frame {
    pub(crate) fn bytes(&self) -> Result<(bool, Vec<u8>), String> {
        bytes(self.text.as_deref(), self.binary.as_deref(), &self.fill, self.times)
    }
}

impl Submission {
    pub(crate) fn bytes(&self) -> Result<(bool, Vec<u8>), String> {
        bytes(self.text.as_deref(), self.binary.as_deref(), &self.fill, self.times)
    }
}

/// Reads all files of the suite, by name.
pub(crate) fn suite() -> BTreeMap<String, String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the suite is there") {
        let path = entry.expect("a file of the suite").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.ends_with(".json") && !name.ends_with(".schema.json") {
            files.insert(name, std::fs::read_to_string(&path).expect("a file that can be read"));
        }
    }
    files
}
