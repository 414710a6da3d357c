//! The loader from the outside with every source and every kind of fault.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn from_file(text: &str) -> Result<Loaded, Vec<Fault>> {
    load(&Sources { file: Some(("f.toml", text)), ..Sources::default() })
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Loaded, Vec<Fault>> {
    let environment: Vec<_> = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    load(&Sources { environment: &environment, ..Sources::default() })
}

fn from_flags(flags: &[(&str, &str)]) -> Result<Loaded, Vec<Fault>> {
    let flags: Vec<_> = flags
        .iter()
        .map(|(name, argument)| Flag { name: (*name).into(), argument: (*argument).into() })
        .collect();
    load(&Sources { flags: &flags, ..Sources::default() })
}

fn told(result: Result<Loaded, Vec<Fault>>) -> Vec<String> {
    result.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// Asserts that there is exactly one fault and that its text has all the given parts.
#[track_caller]
fn assert_one(result: Result<Loaded, Vec<Fault>>, parts: &[&str]) {
    let faults = told(result);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    for part in parts {
        assert!(faults[0].contains(part), "{part:?} is not in:\n{}", faults[0]);
    }
}

/// The pretty debug form names every field, so a field without a key can't hide.
#[test]
fn every_field_has_a_key_and_every_key_works() {
    let mut section = String::new();
    let mut fields = BTreeSet::new();
    for line in format!("{:#?}", Config::default()).lines() {
        let depth = line.len() - line.trim_start().len();
        let Some((name, _)) = line.trim_start().split_once(':') else { continue };
        match depth {
            4 => section = name.into(),
            8 => drop(fields.insert(format!("{section}.{name}"))),
            _ => {}
        }
    }
    let keys: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_string()).collect();
    assert_eq!(keys, fields);
    assert_eq!(keys.len(), KEYS.len(), "a key is listed twice");
    for key in KEYS {
        assert!(SECTIONS.iter().any(|(section, _)| *section == key.section()), "{}", key.path);
        if let Some(value) = key.get(&Config::default()) {
            assert!(key.set(&mut Config::default(), value), "{}: kind and field disagree", key.path);
        }
        assert_eq!(key.unset.is_some(), key.get(&Config::default()).is_none(), "{}", key.path);
    }
}

#[test]
fn bounds_of_numbers_fit_their_fields() {
    for key in KEYS {
        if let Kind::Count { min, max } | Kind::Size { min, max } = key.kind {
            for bound in [min, max] {
                assert!(key.set(&mut Config::default(), Value::Whole(bound)), "{} {bound}", key.path);
            }
        }
    }
}

#[test]
fn a_later_source_wins_and_says_so() {
    let file = "[listen]\ndata = \"127.0.0.1:1\"\nops = \"127.0.0.1:2\"\ncontrol = \"127.0.0.1:3\"\n";
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    let environment = [
        pair("PULSEGATE_LISTEN_OPS", "127.0.0.1:20"),
        pair("PULSEGATE_CONTROL", "127.0.0.1:30"),
        pair("HOME", "x"),
    ];
    let flags = [Flag { name: "control".into(), argument: "127.0.0.1:300".into() }];
    let loaded =
        load(&Sources { file: Some(("f.toml", file)), environment: &environment, flags: &flags }).unwrap();
    let listen = &loaded.config.listen;
    assert_eq!((listen.data.port(), listen.ops.port()), (1, 20));
    assert_eq!(listen.control.to_string(), "127.0.0.1:300");
    let place = |path: &str| loaded.place(Key::find(path).unwrap()).to_string();
    assert_eq!(place("listen.data"), "f.toml:2:8");
    assert_eq!(place("listen.ops"), "environment PULSEGATE_LISTEN_OPS=127.0.0.1:20");
    assert_eq!(place("listen.control"), "flag --control 127.0.0.1:300");
    assert_eq!(place("log.level"), "default");
}

#[test]
fn every_kind_reads_from_every_source() {
    let file = r#"
        [liveness]
        profile = "fast"
        ping_interval = "1m30s"
        [limits]
        header_bytes_max = "16KiB"
        frame_bytes_max = 1500
        headers_max = 50
        [close]
        dead_client_code = 4000
        [forwarded]
        trusted = ["10.0.0.0/8", "::1"]
        [registry.labels]
        user = "header:X-User"
        room = "query:room"
        [control]
        token_file = "/t"
    "#;
    let sets = [
        "liveness.profile=fast",
        "liveness.ping_interval=1m30s",
        "limits.header_bytes_max=16KiB",
        "limits.frame_bytes_max=1500",
        "limits.headers_max=50",
        "close.dead_client_code=4000",
        "forwarded.trusted=10.0.0.0/8, ::1",
        "registry.labels=user=header:X-User,room=query:room",
        "control.token_file=/t",
    ];
    let toml_like = sets.map(|set| set.replace("10.0.0.0/8, ::1", "[\"10.0.0.0/8\", \"::1\"]")).map(|set| {
        set.replace("user=header:X-User,room=query:room", "{user='header:X-User', room='query:room'}")
    });
    let config = from_file(file).unwrap().config;
    assert_eq!(config.limits.header_bytes_max, 16 * 1024);
    assert_eq!(config.registry.labels.len(), 2);
    assert_eq!(from_flags(&sets.map(|set| ("set", set))).unwrap().config, config);
    assert_eq!(from_flags(&toml_like.each_ref().map(|set| ("set", set.as_str()))).unwrap().config, config);
    let pairs = sets.map(|set| {
        let (path, value) = set.split_once('=').unwrap();
        (Key::find(path).unwrap().environment(), value)
    });
    let pairs = pairs.each_ref().map(|(name, value)| (name.as_str(), *value));
    assert_eq!(from_environment(&pairs).unwrap().config, config);
}

#[test]
fn an_unknown_key_gets_a_suggestion_and_a_caret() {
    let expected = "f.toml:2:1: unknown key `liveness.ping_intervall`\n  |\n2 | ping_intervall = \"5s\"\n  | ^^^^^^^^^^^^^^\n  help: did you mean `liveness.ping_interval`?";
    assert_eq!(told(from_file("[liveness]\nping_intervall = \"5s\"\n")), [expected]);
    assert_one(from_file("[livenes]\n"), &["unknown section `livenes`", "did you mean `liveness`?"]);
    assert_one(from_file("ping_interval = \"5s\"\n"), &["did you mean `liveness.ping_interval`?"]);
    assert_one(from_file("[limits]\ntrusted = []\n"), &["did you mean `forwarded.trusted`?"]);
    assert_one(from_file("[zebra]\n"), &["unknown section `zebra`", "config default"]);
    assert_one(from_file("limits = 3\n"), &["`limits` is a section", "write [limits]"]);
    assert_one(from_file("[[limits]]\n"), &["`limits` is a section"]);
    assert_one(
        from_flags(&[("set", "limits.session_max=3")]),
        &["flag --set", "did you mean `limits.sessions_max`?"],
    );
    assert_one(from_flags(&[("set", "limits.sessions_max")]), &["expected key=value"]);
    assert_one(
        from_environment(&[("PULSEGATE_LIVENESS_PING_INTERVALL", "5s")]),
        &[
            "environment PULSEGATE_LIVENESS_PING_INTERVALL=5s",
            "did you mean PULSEGATE_LIVENESS_PING_INTERVAL?",
        ],
    );
    assert_one(from_environment(&[("PULSEGATE_UPSTREM", "http://a")]), &["did you mean PULSEGATE_UPSTREAM?"]);
}

#[test]
fn all_faults_come_at_once_in_the_order_of_the_text() {
    let file = r#"
[drain]
window = "1m"
deadline = "5s"
[limits]
sessions_max = 0
fragment_max = 3
headers_max = "64"
frame_timeout = "0"
[liveness]
ping_interval = 5
verdict_after = "99ms"
[upstream]
url = "http://app/x"
[close]
dead_app_code = 1006
dead_client_code = 2999
[forwarded]
trusted = ["10.0.0.0/8", "nonsense", "10.0.0.0/99", 3]
[registry]
labels = { user = "body:x", "a b" = "header:A" }
"#;
    let environment = [("PULSEGATE_LIMITS_CLOSE_TIMEOUT".to_string(), "soon".to_string())];
    let flags = [Flag { name: "profile".into(), argument: "fats".into() }];
    let faults =
        told(load(&Sources { file: Some(("f.toml", file)), environment: &environment, flags: &flags }));
    let starts = [
        "f.toml:3:10: `drain.window` 1m is longer",
        "f.toml:6:16: `limits.sessions_max`: 0 is too small",
        "f.toml:7:1: unknown key",
        "f.toml:8:15: `limits.headers_max`: a whole number has no quotes: write 64",
        "f.toml:9:17: `limits.frame_timeout`: 0 is too short",
        "f.toml:11:17: `liveness.ping_interval`: a duration needs quotes and a unit: write \"5s\"",
        "f.toml:12:17: `liveness.verdict_after`: 99ms is too short: at least 1s",
        "f.toml:14:7: `upstream.url`: a path has no place here",
        "f.toml:16:17: `close.dead_app_code`: no such close code",
        "f.toml:17:20: `close.dead_client_code`: no such close code",
        "f.toml:19:26: `forwarded.trusted`: `nonsense` is no network",
        "f.toml:19:38: `forwarded.trusted`: `10.0.0.0/99` is no network",
        "f.toml:19:53: `forwarded.trusted`: expected a list",
        "f.toml:21:19: `registry.labels`: `body` is no source",
        "f.toml:21:29: `registry.labels`: a label's name has",
        "environment PULSEGATE_LIMITS_CLOSE_TIMEOUT=soon:",
        "flag --profile fats: `liveness.profile`: `fats` is not one of fast, balanced, battery; did you mean `fast`?",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(starts) {
        assert!(fault.starts_with(start), "expected {start:?}, found:\n{fault}");
    }
}

#[test]
fn wrong_types_say_what_was_expected() {
    for (text, parts) in [
        ("[log]\nlevel = 3", ["expected a log filter", "found a number"]),
        ("[log]\nlevel = [\"info\"]", ["expected a log filter", "found a list"]),
        ("[limits]\nheaders_max = 1.5", ["expected a whole number", "found a fraction"]),
        ("[limits]\nheaders_max = -1", ["-1 is too small", "at least 8"]),
        ("[limits]\nheaders_max = 99999999999999999999", ["out of range", "headers_max"]),
        ("[limits]\nheader_bytes_max = \"64KB\"", ["unknown unit `KB`", "KiB"]),
        ("[limits]\nheader_bytes_max = \"1KiB\"", ["too small", "at least 8KiB"]),
        ("[drain]\nwindow = true", ["expected a duration", "found true or false"]),
        ("[drain]\nwindow = 1979-05-27", ["expected a duration", "found a date"]),
        ("[origin]\nallow = \"https://a\"", ["expected a list", "found \"https://a\""]),
        ("[origin]\nallow = [\"https://a/\"]", ["is no origin", "2:10"]),
        ("[log]\nlevel = \"a=b=c\"", ["log.level", "level filter"]),
        ("[log]\nlevel = \"in\\u0007fo\"", ["log.level", "control character"]),
        ("[liveness]\nprofile = \"slow\"", ["one of fast, balanced, battery", "`slow`"]),
    ] {
        assert_one(from_file(text), &parts);
    }
}

#[test]
fn rules_between_keys_hold() {
    let cases: [(&str, &[&str]); 12] = [
        ("[listen]\nops = \"0.0.0.0:7080\"", &["2:7", "can't both be listened on"]),
        ("[listen]\nops = \"127.0.0.1:7080\"", &["can't both be listened on"]),
        ("[listen]\nops = \"[::]:7082\"", &["`listen.control`", "can't both"]),
        ("[listen]\ncontrol = \"127.0.0.1:7081\"", &["`listen.control`", "`listen.ops`"]),
        ("[listen]\ncontrol = \"0.0.0.0:7082\"", &["would be open to everyone", "control.token_file"]),
        ("[listen]\ncontrol = \"10.0.0.1:7082\"", &["would be open to everyone"]),
        ("[upstream]\nurl = \"http://localhost:7080\"", &["2:7", "own data port"]),
        ("[upstream]\nurl = \"http://127.0.0.1:7080/\"", &["own data port"]),
        (
            "[liveness]\napp_frozen_after = \"1s\"",
            &["app_frozen_after` 1s is shorter than the verdict takes (5s)"],
        ),
        ("[liveness]\nclient_frozen_after = \"2s\"", &["client_frozen_after` 2s is shorter"]),
        ("[limits]\nsessions_max = 20000", &["can't be reached", "connections_max` is 10000"]),
        ("[drain]\ndeadline = \"5s\"", &["2:12", "`drain.window` 10s is longer"]),
    ];
    for (text, parts) in cases {
        assert_one(from_file(text), parts);
    }
    for good in [
        "[listen]\ndata = \"127.0.0.1:0\"\nops = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"",
        "[listen]\ndata = \"127.0.0.1:7080\"\nops = \"127.0.0.2:7080\"",
        "[listen]\ncontrol = \"0.0.0.0:7082\"\n[control]\ntoken_file = \"/t\"",
        "[listen]\ncontrol = \"[::1]:7082\"",
        "[listen]\ncontrol = \"unix:/run/p.sock\"",
        "[limits]\nconnections_max = 10",
        "[liveness]\nprofile = \"battery\"",
    ] {
        assert_eq!(told(from_file(good)), [""; 0], "{good}");
    }
}

#[test]
fn what_is_not_toml_is_shown_where_it_breaks() {
    assert_one(from_file("[log]\nlevel = \"info\n"), &["f.toml:2:", "not TOML", "2 | level = \"info"]);
    assert_one(
        from_file("[log]\nlevel = \"a\"\nlevel = \"b\"\n"),
        &["f.toml:3:1", "not TOML", "duplicate key"],
    );
    assert!(!told(from_file("\u{0}")).is_empty());
    let two = told(from_file("a = \nb = 'x\n"));
    assert_eq!(two.len(), 2, "{two:#?}");
    assert_eq!(told(from_file("\u{feff}[log]\nlevel = \"debug\"\r\n")), [""; 0]);
}

#[test]
fn service_links_of_kubernetes_are_nobodys_mistake() {
    let links = [
        ("PULSEGATE_SERVICE_HOST", "10.0.0.9"),
        ("PULSEGATE_SERVICE_PORT", "7080"),
        ("PULSEGATE_SERVICE_PORT_DATA", "7080"),
        ("PULSEGATE_PORT", "tcp://10.0.0.9:7080"),
        ("PULSEGATE_PORT_7080_TCP", "tcp://10.0.0.9:7080"),
        ("PULSEGATE_PORT_7080_TCP_PROTO", "tcp"),
        ("PULSEGATE_PORT_7080_TCP_PORT", "7080"),
        ("PULSEGATE_PORT_7080_TCP_ADDR", "10.0.0.9"),
        ("PULSEGATE_PORT_53_UDP_ADDR", "10.0.0.9"),
        ("PULSEGATE_OPS_SERVICE_HOST", "10.0.0.9"),
        ("PULSEGATE_OPS_PORT", "tcp://10.0.0.9:7081"),
        ("PULSEGATE_OPS_PORT_7081_TCP_ADDR", "10.0.0.9"),
    ];
    assert_eq!(told(from_environment(&links)), [""; 0]);
    for (name, value) in [
        ("PULSEGATE_PORT", "7080"),
        ("PULSEGATE_PORT_X_TCP", "x"),
        ("PULSEGATE_PORT_7080_ICMP", "x"),
        ("PULSEGATE_PORT_7080_TCP_NAME", "x"),
        ("PULSEGATE_", "x"),
    ] {
        assert_one(from_environment(&[(name, value)]), &["unknown variable"]);
    }
    let named: Vec<String> =
        KEYS.iter().flat_map(|key| [Some(key.environment()), key.flag_environment()]).flatten().collect();
    let links: Vec<_> = named.iter().filter(|name| load::is_service_link(name, "tcp://x")).collect();
    assert!(links.is_empty(), "a key must not look like a service link: {links:?}");
    assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len(), "two keys share a variable");
}

#[test]
fn a_variable_and_its_twin_must_agree() {
    let twins = |one, other| from_environment(&[("PULSEGATE_OPS", one), ("PULSEGATE_LISTEN_OPS", other)]);
    assert_one(twins("127.0.0.1:1", "127.0.0.1:2"), &["sets `listen.ops` too", "only one of the two"]);
    assert_eq!(twins("127.0.0.1:1", "127.0.0.1:1").unwrap().config.listen.ops.port(), 1);
    assert_one(from_environment(&[("PULSEGATE_OPS", " ")]), &["the value is empty"]);
    assert!(from_environment(&[("PULSEGATE_ORIGIN_ALLOW", "")]).unwrap().config.origin.allow.is_empty());
}

#[test]
fn too_many_faults_are_counted() {
    let text: String = (0..60).map(|n| format!("k{n} = 1\n")).collect();
    let faults = told(from_file(&text));
    assert_eq!(faults.len(), 51);
    assert_eq!(faults[50], "and 10 more");
}

/// Each line of garbage is a fault; only those that are told may cost a walk over the text.
#[test]
fn a_file_of_garbage_is_refused_at_once() {
    let text = "=\n".repeat(200_000);
    let faults = load(&Sources { file: Some(("f.toml", &text)), ..Sources::default() }).unwrap_err();
    assert_eq!(faults.len(), FAULTS_MAX + 1);
}

proptest! {
    #[test]
    fn any_file_is_answered(text in "(?s).{0,300}") {
        for fault in told(from_file(&text)) {
            prop_assert!(!fault.is_empty());
        }
    }

    /// Text with the parts of a real file reaches deeper than noise does.
    #[test]
    fn any_mixture_of_good_parts_is_answered(
        parts in proptest::collection::vec(prop_oneof![
            Just("[liveness]\n".to_string()), Just("[limits]\n".into()), Just("[registry.labels]\n".into()),
            Just("ping_interval".into()), Just("labels".into()), Just(" = ".into()), Just("\"5s\"\n".into()),
            Just("[".into()), Just("]".into()), Just("{".into()), Just("}".into()), Just("\n".into()),
            Just("5\n".into()), Just("1.5\n".into()), Just(".".into()), Just(",".into()), "\\PC{0,8}",
        ], 0..40),
    ) {
        let text = parts.concat();
        told(from_file(&text));
        let flag = Flag { name: "set".into(), argument: text.clone() };
        told(load(&Sources { flags: &[flag], ..Sources::default() }));
    }

    #[test]
    fn any_value_of_any_key_is_answered(index in 0..KEYS.len(), value in "(?s).{0,60}") {
        let key = &KEYS[index];
        let set = format!("{}={value}", key.path);
        told(from_flags(&[("set", &set)]));
        told(from_environment(&[(&key.environment(), &value)]));
        let quoted = toml::Value::String(value).to_string();
        told(from_file(&format!("{} = {quoted}\n", key.path)));
    }
}
