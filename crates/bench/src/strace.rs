//! System calls of a process, counted by `strace`.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::sleep;

/// Counts all system calls of a process and its threads for `time`, by name.
///
/// # Errors
/// There is no `strace`, or it may not trace.
pub(crate) async fn count(pid: u32, time: Duration) -> Result<HashMap<String, u64>> {
    let child = Command::new("strace")
        .args(["-c", "-f", "-U", "name,calls", "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run `strace` (Debian package strace)")?;
    let tracer =
        child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("strace has just been started")?;
    sleep(time).await;
    // As Ctrl-C would: it lets go of the process and writes its table.
    kill_process(tracer, Signal::INT)?;
    let done = child.wait_with_output().await?;
    let text = String::from_utf8_lossy(&done.stderr);
    let counts: HashMap<_, _> = text.lines().filter_map(row).collect();
    ensure!(!counts.is_empty(), "strace: {}", text.trim());
    Ok(counts)
}

/// A row of the table: a name and a number.
fn row(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_whitespace();
    let (name, calls) = (words.next()?, words.next()?);
    (name != "total").then_some((name.to_owned(), calls.parse().ok()?))
}
