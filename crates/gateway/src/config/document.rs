//! The configuration written out: the documented default file, the values in force, JSON and the schema.

use serde_json::{Map, Value as Json, json};

use super::Config;
use super::key::{KEYS, Key, SECTIONS};
use super::kind::{Kind, Value};
use super::load::Loaded;
use super::quantity::{show_duration, show_size};

/// Head of the default file.
const HEAD: &str = "\
# pulsegate: every key with its default. A key left out has the value shown here.
# Flags win over the environment, the environment over this file:
#   --set liveness.ping_interval=2s   PULSEGATE_LIVENESS_PING_INTERVAL=2s
# Durations: \"250ms\", \"5s\", \"1m30s\", \"0\". Sizes: bytes, or \"64KiB\", \"1MiB\".
";

/// Durations as the schema knows them.
const DURATION_PATTERN: &str = "^(0|(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$";

/// Sizes as the schema knows them.
const SIZE_PATTERN: &str = "^[0-9]+(B|KiB|MiB|GiB)?$";

/// The default file: every key with one line why; unset keys are commented out.
pub fn default_file() -> String {
    let config = Config::default();
    let mut text = String::from(HEAD);
    for (section, why) in SECTIONS {
        text.push_str(&format!("\n# {why}\n[{section}]\n"));
        for key in KEYS.iter().filter(|key| key.section() == section) {
            let line = match key.get(&config) {
                Some(value) => format!("{} = {}", key.name(), key.kind.show(&value)),
                None => format!("# {} = \"{}\"", key.name(), example(key, &config)),
            };
            text.push_str(&format!("# {}\n{line}\n", key.why));
        }
    }
    text
}

/// Every value in force and where it was written, as TOML that can be loaded again.
pub fn effective(loaded: &Loaded) -> String {
    let lines: Vec<(String, String)> = KEYS
        .iter()
        .map(|key| match key.get(&loaded.config) {
            Some(value) => {
                (format!("{} = {}", key.path, key.kind.show(&value)), loaded.place(key).to_string())
            }
            None => (format!("# {}", key.path), format!("unset: {}", unset(key, &loaded.config))),
        })
        .collect();
    // One long value must not push all origins off the screen.
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|n| *n <= 60).max().unwrap_or(0);
    lines.iter().map(|(line, place)| format!("{line:width$}  # {place}\n")).collect()
}

/// The same for programs: `{"listen.data": {"value": …, "from": "default"}, …}`.
pub fn effective_json(loaded: &Loaded) -> Json {
    let entry = |key: &Key| {
        let value = key.get(&loaded.config).map_or(Json::Null, |value| to_json(&key.kind, &value));
        (key.path.to_owned(), json!({ "value": value, "from": loaded.place(key).to_string() }))
    };
    Json::Object(KEYS.iter().map(entry).collect())
}

/// A JSON Schema (draft 2020-12) of the file.
pub fn schema() -> Json {
    let config = Config::default();
    let sections = SECTIONS.iter().map(|(section, why)| {
        let keys = KEYS.iter().filter(|key| key.section() == *section);
        let properties: Map<_, _> = keys.map(|key| (key.name().into(), key_schema(key, &config))).collect();
        let schema = json!({
            "type": "object", "description": why, "properties": properties, "additionalProperties": false,
        });
        ((*section).to_owned(), schema)
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:pulsegate:config",
        "title": "pulsegate configuration",
        "type": "object",
        "properties": sections.collect::<Map<_, _>>(),
        "additionalProperties": false,
    })
}

impl Config {
    /// All settings in the shape of the file; durations and sizes in their written form.
    pub fn to_json(&self) -> Json {
        let section = |(section, _): &(&str, &str)| {
            let keys = KEYS.iter().filter(|key| key.section() == *section);
            let value = |key: &Key| key.get(self).map_or(Json::Null, |value| to_json(&key.kind, &value));
            ((*section).to_owned(), Json::Object(keys.map(|key| (key.name().into(), value(key))).collect()))
        };
        Json::Object(SECTIONS.iter().map(section).collect())
    }
}

fn unset(key: &Key, config: &Config) -> String {
    key.unset.map_or_else(|| "nothing".into(), |unset| unset(config))
}

/// What stands behind the `#` of an unset key: the value that holds, or one that could.
fn example(key: &Key, config: &Config) -> String {
    match &key.kind {
        Kind::Text(form) => form.example.into(),
        Kind::Duration { .. }
        | Kind::Size { .. }
        | Kind::Count { .. }
        | Kind::CloseCode
        | Kind::Choice(_)
        | Kind::List { .. }
        | Kind::Labels => unset(key, config),
    }
}

fn to_json(kind: &Kind, value: &Value) -> Json {
    match value {
        Value::Duration(duration) => show_duration(*duration).into(),
        Value::Whole(bytes) if matches!(kind, Kind::Size { .. }) => {
            let shown = show_size(*bytes);
            if shown == bytes.to_string() { (*bytes).into() } else { shown.into() }
        }
        Value::Whole(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.clone().into(),
        Value::Table(entries) => json!(entries),
    }
}

fn key_schema(key: &Key, config: &Config) -> Json {
    let mut schema = match &key.kind {
        Kind::Duration { min, max } => json!({
            "type": "string", "pattern": DURATION_PATTERN,
            "$comment": format!("{} to {}", show_duration(*min), show_duration(*max)),
        }),
        Kind::Size { min, max } => json!({
            "anyOf": [
                { "type": "integer", "minimum": min, "maximum": max },
                { "type": "string", "pattern": SIZE_PATTERN },
            ],
            "$comment": format!("{} to {}", show_size(*min), show_size(*max)),
        }),
        Kind::Count { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::CloseCode => json!({
            "type": "integer",
            "anyOf": [
                { "minimum": 1000, "maximum": 1003 },
                { "minimum": 1007, "maximum": 1014 },
                { "minimum": 3000, "maximum": 4999 },
            ],
        }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Text(form) => json!({ "type": "string", "examples": [form.example] }),
        Kind::List { form, items_max } => json!({
            "type": "array", "maxItems": items_max,
            "items": { "type": "string", "examples": [form.example] },
        }),
        Kind::Labels => json!({
            "type": "object",
            "maxProperties": super::text::LABELS_MAX,
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" },
            "additionalProperties": { "type": "string", "pattern": "^(header|query|cookie):.+$" },
        }),
    };
    schema["description"] = key.why.into();
    if let Some(value) = key.get(config) {
        schema["default"] = to_json(&key.kind, &value);
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Fault, Flag, Sources, load};

    const DEFAULT_FILE: &str = include_str!("../../../../config/pulsegate.toml");

    fn from_file(text: &str) -> Result<Loaded, Vec<Fault>> {
        load(&Sources { file: Some(("f.toml", text)), ..Sources::default() })
    }

    fn from_flags(flags: &[(&str, &str)]) -> Result<Loaded, Vec<Fault>> {
        let flag =
            |(name, argument): &(&str, &str)| Flag { name: (*name).into(), argument: (*argument).into() };
        let flags: Vec<_> = flags.iter().map(flag).collect();
        load(&Sources { flags: &flags, ..Sources::default() })
    }

    #[test]
    fn the_documented_file_is_what_the_code_prints() {
        assert!(
            DEFAULT_FILE == default_file(),
            "write it anew: cargo run -- config default > config/pulsegate.toml"
        );
    }

    #[test]
    fn the_documented_file_gives_the_defaults() {
        let loaded = from_file(DEFAULT_FILE).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(load(&Sources::default()).unwrap().config, Config::default());
    }

    #[test]
    fn every_commented_line_of_the_documented_file_is_a_good_one() {
        let uncommented: String = DEFAULT_FILE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.split_once(" = \"").is_some_and(|(name, _)| !name.contains(' ')) => rest,
                Some(_) | None => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let loaded = from_file(&uncommented).unwrap();
        assert_eq!(loaded.config.liveness.bounds(), Config::default().liveness.bounds());
        assert_eq!(loaded.config.liveness.ping_interval, Some(Duration::from_secs(5)));
        assert!(loaded.config.control.token_file.is_some());
    }

    #[test]
    fn what_print_shows_can_be_loaded_again() {
        let sets = ["registry.labels=user=header:X-\"", "log.level=debug", "limits.frame_bytes_max=1MiB"];
        assert!(from_flags(&sets.map(|set| ("set", set))).is_err(), "a quote is no part of a header's name");
        let loaded = from_flags(&[
            ("set", "registry.labels=user=header:X-User,room=query:r'o\"m"),
            ("set", "liveness.verdict_after=7s"),
            ("set", "limits.frame_bytes_max=1025"),
            ("upstream", "http://app:81"),
        ])
        .unwrap();
        let printed = effective(&loaded);
        assert_eq!(from_file(&printed).unwrap().config, loaded.config);
        let line = printed.lines().find(|line| line.starts_with("upstream.url")).unwrap();
        assert!(line.ends_with("# flag --upstream http://app:81"), "{line}");
        assert!(printed.contains("# liveness.client_frozen_after"), "{printed}");
        assert!(printed.contains("# unset: 12s"), "{printed}");
        let json = effective_json(&loaded);
        assert_eq!(json["limits.frame_bytes_max"]["value"], 1025);
        assert_eq!(json["log.level"]["from"], "default");
        assert_eq!(loaded.config.to_json()["liveness"]["verdict_after"], "7s");
    }

    /// A default that no rule is held against must not become a choice by being printed.
    #[test]
    fn printed_defaults_break_no_rule() {
        for set in ["liveness.verdict_after=99m", "limits.connections_max=100"] {
            let loaded = from_flags(&[("set", set)]).unwrap();
            assert_eq!(from_file(&effective(&loaded)).unwrap().config, loaded.config, "{set}");
        }
    }

    #[test]
    fn the_schema_names_every_key() {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["additionalProperties"], false);
        for key in KEYS {
            let property = &schema["properties"][key.section()]["properties"][key.name()];
            assert_eq!(property["description"], key.why, "{}", key.path);
            assert_eq!(property.get("default").is_none(), key.unset.is_some(), "{}", key.path);
            assert_eq!(schema["properties"][key.section()]["additionalProperties"], false);
        }
    }
}
