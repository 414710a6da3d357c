//! Commands that need no network.

use std::process::{Output, Stdio};

use crate::{Scratch, expect, pulsegate};

#[test]
fn version_help_and_usage_have_their_codes() {
    let expected = format!("pulsegate {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(expect(&mut pulsegate(&["version"]), 0).0, expected);
    assert_eq!(expect(&mut pulsegate(&["--version"]), 0).0, expected);
    let (json, _) = expect(&mut pulsegate(&["version", "-o", "json"]), 0);
    assert!(json.contains("\"version\""), "{json}");
    assert!(expect(&mut pulsegate(&["--help"]), 0).0.contains("Exit codes"));
    for usage in
        [&["nonsense"][..], &["ping"], &["run", "--nonsense"], &["ping", "ws://a", "-i", "soon"], &[]]
    {
        let (stdout, stderr) = expect(&mut pulsegate(usage), 2);
        assert!(stdout.is_empty() && !stderr.is_empty(), "{usage:?}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (script, _) = expect(&mut pulsegate(&["completions", shell]), 0);
        assert!(script.contains("healthcheck"), "{shell}");
    }
}

#[test]
fn the_default_file_is_the_one_in_the_repository() {
    let (printed, _) = expect(&mut pulsegate(&["config", "default"]), 0);
    assert_eq!(printed, include_str!("../../../../config/pulsegate.toml"));
}

#[test]
fn print_says_where_values_come_from() {
    let file = Scratch::new("print.toml", "[drain]\nwindow = \"3s\"\n[log]\nlevel = \"debug\"\n");
    let mut command = pulsegate(&["config", "print", "--config", file.path(), "--profile", "fast"]);
    command.env("PULSEGATE_LOG_LEVEL", "warn").env("PULSEGATE_OPS", "127.0.0.1:9");
    let (printed, _) = expect(&mut command, 0);
    let line = |key: &str| printed.lines().find(|line| line.starts_with(key)).unwrap().to_string();
    assert!(line("drain.window = \"3s\"").ends_with(&format!("# {}:2:10", file.path())));
    assert!(line("log.level = \"warn\"").ends_with("# environment PULSEGATE_LOG_LEVEL=warn"));
    assert!(line("listen.ops = \"127.0.0.1:9\"").ends_with("# environment PULSEGATE_OPS=127.0.0.1:9"));
    assert!(line("liveness.profile = \"fast\"").ends_with("# flag --profile fast"));
    assert!(line("close.dead_app_code = 1012").ends_with("# default"));
    assert!(line("# liveness.ping_interval").ends_with("# unset: 1s"));
    let (json, _) = expect(command.args(["-o", "json"]), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["drain.window"]["value"], "3s");
    let (schema, _) = expect(&mut pulsegate(&["config", "schema"]), 0);
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["close"]["properties"]["dead_client_code"]["default"], 4408);
}

#[test]
fn a_bad_configuration_is_code_3_with_all_faults() {
    let file = Scratch::new("bad.toml", "[limits]\nsession_max = 3\nheaders_max = 0\n");
    let mut command = pulsegate(&["run", "--config", file.path(), "--listen", "nowhere"]);
    let (stdout, stderr) = expect(command.env("PULSEGATE_UPSTREEM", "http://a"), 3);
    assert!(stdout.is_empty());
    for part in [
        "bad.toml:2:1: unknown key `limits.session_max`",
        "2 | session_max = 3",
        "did you mean `limits.sessions_max`?",
        "bad.toml:3:15:",
        "did you mean PULSEGATE_UPSTREAM?",
        "flag --listen nowhere",
        "4 faults in the configuration",
    ] {
        assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
    let directory = std::env::temp_dir();
    let (_, stderr) = expect(&mut pulsegate(&["run", "--config", directory.to_str().unwrap()]), 3);
    assert!(stderr.contains("this is a directory"), "{stderr}");
    let (_, stderr) =
        expect(&mut pulsegate(&["config", "print", "--config", "/nowhere.toml", "--ops", "x"]), 3);
    assert!(stderr.contains("no such file") && stderr.contains("2 faults"), "{stderr}");
}

/// Kubernetes service links and the twins of other commands' flags are no unknown keys.
#[test]
fn variables_of_others_are_let_be() {
    let mut command = pulsegate(&["config", "print"]);
    command.env("PULSEGATE_PORT", "tcp://10.0.0.9:7080").env("PULSEGATE_SERVICE_HOST", "10.0.0.9");
    command
        .env("PULSEGATE_API", "http://127.0.0.1:1")
        .env("PULSEGATE_TOKEN_FILE", "/t")
        .env("PULSEGATE_CONFIG", "");
    expect(&mut command, 0);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    for arguments in
        [&["config", "default"][..], &["config", "schema"], &["completions", "bash"], &["--help"]]
    {
        let mut child = pulsegate(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert_eq!(
            (status.code(), String::from_utf8(stderr).unwrap().as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let Output { status, stderr, .. } =
        pulsegate(&["config", "default"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(String::from_utf8(stderr).unwrap().contains("can't write to stdout"));
}

#[test]
fn check_of_a_bad_file_is_code_3() {
    let file = Scratch::new("check.toml", "[close]\ndead_app_code = 1006\n");
    let (stdout, _) = expect(&mut pulsegate(&["check", file.path()]), 3);
    assert!(stdout.starts_with("× config: ") && stdout.contains(":2:17:"), "{stdout}");
    let (json, _) = expect(&mut pulsegate(&["check", file.path(), "-o", "json"]), 3);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["ok"].as_bool(), json["checks"][0]["status"].as_str()), (Some(false), Some("fail")));
}
