//! How much the machine was disturbed, and what a process used of it.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::clock::Moment;
use crate::stats::{Summary, round};

/// How often the tool looks at its own lateness.
const LAG_EVERY: Duration = Duration::from_millis(20);

/// What a record of figures begins with: how to repeat them, and where they were measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setting {
    command: String,
    cores: usize,
    kernel: String,
}

impl Setting {
    /// This run on this machine.
    ///
    /// # Errors
    /// The system does not tell how many cores there are.
    pub(crate) fn here() -> Result<Setting> {
        let words = std::iter::once("bench".to_owned()).chain(std::env::args().skip(1));
        Ok(Setting {
            command: words.collect::<Vec<_>>().join(" "),
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        })
    }
}

/// What disturbed a run from outside of it, or from its own load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Disturbance {
    /// How late the tool's own timers were, seconds.
    pub(crate) own_lag: Option<Summary>,
    /// Share of the time in which some task waited for a core (`/proc/pressure/cpu`), all processes of the
    /// machine together.
    pub(crate) cpu_pressure_percent: Option<f64>,
}

/// Watches from its start to [`Watch::end`].
pub(crate) struct Watch {
    start: Moment,
    pressure_us: Option<u64>,
    lags: Arc<Mutex<Vec<f64>>>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start() -> Watch {
        let lags = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(record_lags(lags.clone()));
        Watch { start: Moment::now(), pressure_us: pressure_us(), lags, task }
    }

    pub(crate) fn end(self) -> Disturbance {
        let seconds = Moment::now().seconds_since(self.start);
        let pressure =
            self.pressure_us.zip(pressure_us()).map(|(before, after)| (after - before) as f64 / 1e6);
        let lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        Disturbance {
            own_lag: Summary::of(&lags),
            cpu_pressure_percent: pressure.map(|waited| round(100.0 * waited / seconds)),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn record_lags(lags: Arc<Mutex<Vec<f64>>>) {
    loop {
        let start = Moment::now();
        tokio::time::sleep(LAG_EVERY).await;
        let lag = Moment::now().seconds_since(start) - LAG_EVERY.as_secs_f64();
        lags.lock().unwrap_or_else(PoisonError::into_inner).push(lag);
    }
}

fn pressure_us() -> Option<u64> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    text.lines().find(|line| line.starts_with("some"))?.rsplit_once("total=")?.1.parse().ok()
}

/// Processor time that a process has used, in seconds.
///
/// # Errors
/// It is gone.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = stat(pid)?;
    // User and system time.
    let fields = stat.split_whitespace().skip(11).take(2);
    let ticks = fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The fields of `/proc/PID/stat` behind the name, which stands in parentheses and may contain spaces.
///
/// # Errors
/// The process is gone.
pub(crate) fn stat(pid: u32) -> Result<String> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat is not as expected")?;
    Ok(fields.to_owned())
}

/// What `/proc/PID/FILE` says of `name`, in KiB.
///
/// # Errors
/// The process is gone, or there is no such line.
pub(crate) fn kib(pid: u32, file: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("process {pid} is gone"))?;
    let told = |line: &str| {
        line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    text.lines().find_map(told).with_context(|| format!("no {name}"))
}

/// Resident memory of a process, in MiB.
///
/// # Errors
/// It is gone.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    Ok((kib(pid, "status", "VmRSS")? / 1024.0 * 10.0).round() / 10.0)
}

/// Lets this process and its children have as many open files as the system allows.
///
/// # Errors
/// The system refuses, or allows fewer than `needed`.
pub(crate) fn raise_open_files(needed: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    anyhow::ensure!(
        allowed >= needed,
        "{needed} open files are needed, the system allows {allowed} (ulimit -Hn)"
    );
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}
