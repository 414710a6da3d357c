//! The configuration's loader, from text that anyone may have written.

use std::time::Duration;

use pulsegate::config::{
    Config, ENVIRONMENT_PREFIX, FAULTS_MAX, Fault, Flag, KEYS, Kind, Loaded, Place, Sources, Value, document,
    load,
};
use tungstenite::protocol::frame::coding::CloseCode;

const FILE: &str = "pulsegate.toml";

/// Loads a file, variables and flags, and asserts:
/// - what loads is within the bounds of each key, and what a flag set last comes from that flag;
/// - `config print` of it loads again to the same, and prints the same again;
/// - what does not load says so: each fault has a message without control characters, and a place that is in
///   the file, in a variable or in a flag that was given, in that order.
///
/// The input is the file's text and, behind a NUL each, variables (`NAME=value`) and flags (`--set key=value`).
/// Text that is no UTF-8 is replaced, as it is refused before it gets here.
pub fn config(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let mut parts = input.split('\0');
    let file = parts.next().unwrap_or_default();
    let (mut environment, mut flags) = (Vec::new(), Vec::new());
    for part in parts {
        match part.strip_prefix("--") {
            Some(flag) => {
                let (name, argument) = flag.split_once(' ').unwrap_or((flag, ""));
                flags.push(Flag { name: name.into(), argument: argument.into() });
            }
            None => {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                environment.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    let sources = Sources { file: Some((FILE, file)), environment: &environment, flags: &flags };
    match load(&sources) {
        Ok(loaded) => check_loaded(&loaded, &flags),
        Err(faults) => check_faults(&faults, file, &environment),
    }
}

fn check_loaded(loaded: &Loaded, flags: &[Flag]) {
    for key in KEYS {
        if let Some(value) = key.get(&loaded.config) {
            assert!(is_within(&key.kind, &value), "{} = {value:?}", key.path);
        }
        let set =
            |flag: &Flag| flag.argument.split_once('=').is_some_and(|(name, _)| name.trim() == key.path);
        if flags.iter().any(|flag| Some(&*flag.name) == key.flag || (flag.name == "set" && set(flag))) {
            assert!(matches!(loaded.place(key), Place::Flag(_)), "a flag does not win for {}", key.path);
        }
    }
    check_rules(&loaded.config);
    let printed = document::effective(loaded);
    let again = match load(&Sources { file: Some((FILE, &printed)), ..Sources::default() }) {
        Ok(again) => again,
        Err(faults) => panic!("what was printed does not load: {faults:?}\n{printed}"),
    };
    assert_eq!(again.config, loaded.config, "{printed}");
    assert_eq!(again.config.to_json(), loaded.config.to_json());
    let json = document::effective_json(loaded);
    assert!(KEYS.iter().all(|key| json.get(key.path).is_some()), "a key is missing");
    assert!(printed.parse::<toml::Table>().is_ok(), "the ordinary parser reads it as well");
}

/// Checks a value against its key's bounds, with the types of others where there are any.
fn is_within(kind: &Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::Duration { min, max }, Value::Duration(duration)) => (min..=max).contains(&duration),
        (Kind::Size { min, max } | Kind::Count { min, max }, Value::Whole(number)) => {
            (min..=max).contains(&number)
        }
        (Kind::CloseCode, Value::Whole(code)) => {
            u16::try_from(*code).is_ok_and(|code| code == 1014 || CloseCode::from(code).is_allowed())
        }
        (Kind::Choice(words), Value::Text(text)) => words.contains(&text.as_str()),
        (Kind::Text(_), Value::Text(text)) => !text.contains(char::is_control),
        (Kind::List { items_max, .. }, Value::List(items)) => items.len() <= *items_max,
        (Kind::Labels, Value::Table(labels)) => labels.values().all(|source| source.contains(':')),
        _ => false,
    }
}

/// Rules between keys, as the documentation states them.
fn check_rules(config: &Config) {
    let url: http::Uri = config.upstream.url.parse().expect("upstream.url is an address");
    assert_eq!((url.scheme_str(), url.path(), url.query()), (Some("http"), "/", None), "{url}");
    let (data, ops) = (config.listen.data, config.listen.ops);
    assert!(data != ops || data.port() == 0, "two listeners on {data}");
    assert!(config.drain.window <= config.drain.deadline);
    let bounds = config.liveness.bounds();
    assert!(bounds.verdict_after >= Duration::from_millis(100) && bounds.ping_interval > Duration::ZERO);
}

fn check_faults(faults: &[Fault], file: &str, environment: &[(String, String)]) {
    assert!(!faults.is_empty() && faults.len() <= FAULTS_MAX + 1, "{} faults", faults.len());
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let lines: Vec<&str> = file.split('\n').collect();
    let mut before = (0, 0);
    for (index, fault) in faults.iter().enumerate() {
        let shown = fault.to_string();
        assert!(!fault.message.trim().is_empty(), "nothing is said");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        let rank = match &fault.place {
            Place::Line(place) => {
                assert!((1..=lines.len()).contains(&place.line), "line {} of {}", place.line, lines.len());
                let line = lines[place.line - 1];
                assert!((1..=line.chars().count() + 1).contains(&place.column), "{shown}");
                (1, place.line)
            }
            Place::Environment { name, .. } => {
                assert!(name.starts_with(ENVIRONMENT_PREFIX), "{name} is no variable of ours");
                assert!(environment.iter().any(|(given, _)| given == name), "{name} was not given");
                (2, 0)
            }
            Place::Flag(flag) => {
                assert!(flag.starts_with("--"), "{flag}");
                (3, 0)
            }
            Place::Default => {
                assert_eq!(index, FAULTS_MAX, "a fault without a place: {shown}");
                (4, 0)
            }
            Place::Path(path) => panic!("{path} was read"),
        };
        assert!(before <= rank, "out of order: {shown}");
        before = rank;
    }
}
