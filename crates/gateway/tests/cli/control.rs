//! The commands over the control API of a real gateway.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

use crate::{expect, pulsegate};

/// A gateway that is ended with the test.
struct Gateway {
    process: Child,
    api: String,
}

impl Gateway {
    fn start(control: &str) -> Gateway {
        let any = "127.0.0.1:0";
        let mut process = pulsegate(&["run", "--listen", any, "--ops", any, "--control", control])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = lines
            .by_ref()
            .map(|line| serde_json::from_str::<Json>(&line.unwrap()).unwrap())
            .find(|line| line["fields"]["message"] == "listening")
            .expect("it listens");
        // Nobody else reads what it logs from here on, and a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let control = listening["fields"]["control"].as_str().unwrap();
        let api = if control.starts_with("unix:") { control.to_owned() } else { format!("http://{control}") };
        Gateway { process, api }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pulsegate(arguments);
        command.args(["--api", &self.api]);
        command
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn sessions_and_events_reach_a_gateway_over_tcp_and_a_unix_socket() {
    let socket = std::env::temp_dir().join(format!("pulsegate-cli-{}.sock", std::process::id()));
    for control in ["127.0.0.1:0", &format!("unix:{}", socket.display())] {
        let gateway = Gateway::start(control);
        let (stdout, _) = expect(&mut gateway.command(&["sessions", "ls"]), 0);
        assert_eq!(stdout, "ID  STATE  CLIENT  AGE  RTT  SILENT  IN  OUT  PATH\n");
        let (stdout, _) = expect(&mut gateway.command(&["sessions", "ls", "-o", "json"]), 0);
        assert_eq!(
            serde_json::from_str::<Json>(&stdout).unwrap(),
            serde_json::json!({ "items": [], "next": null })
        );
        let (stdout, stderr) = expect(&mut gateway.command(&["sessions", "get", "x"]), 1);
        assert!(stdout.is_empty() && stderr.contains("There is no such session"), "{stderr}");
        let (stdout, _) = expect(&mut gateway.command(&["events", "--follow=false"]), 0);
        assert_eq!(stdout, "");
    }
    let _ = std::fs::remove_file(&socket);
}

#[test]
fn ctrl_c_ends_the_feed_well() {
    let gateway = Gateway::start("127.0.0.1:0");
    // An id of another run: the feed begins with a gap, which tells us that it is open.
    let mut feed = gateway
        .command(&["events", "--last-event-id", "1-1", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(feed.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Json>(&line).unwrap()["type"], "gap");
    let told = Command::new("kill").args(["-INT", &feed.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(feed.wait().unwrap().code(), Some(0));
}
