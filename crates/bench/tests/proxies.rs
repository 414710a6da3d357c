//! The load and the app of `bench proxies` against each other.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

/// The app; killed on drop.
struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        // It fails only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn any_endpoint_that_echoes_can_be_measured() {
    let child = Command::new(BENCH).arg("echo-app").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut app = App(child.expect("this program can be started"));
    let mut address = String::new();
    let out = app.0.stdout.take().expect("it is piped");
    BufReader::new(out).read_line(&mut address).expect("the app says its address");

    let url = format!("ws://{}/", address.trim());
    let done = Command::new(BENCH)
        .args(["proxies", "--brief", "--url", &url])
        .output()
        .expect("this program can be started");
    let (table, why) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{why}");
    for cell in ["32 B, 1 in flight", "1 KiB, 16 in flight", "64 KiB, 16 in flight", "latency"] {
        assert!(table.contains(cell), "{cell} is missing:\n{table}");
    }
}
