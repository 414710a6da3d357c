//! Log lines: JSON, or for people when stderr is a terminal.

use std::io::{IsTerminal, stderr};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::exit::{self, Failure};
use super::output;
use crate::config::{Log, LogFormat};

/// Lines that wait for a slow stderr; beyond them lines are dropped, for a full pipe must not stop sessions.
const LINES_WAITING_MAX: usize = 16_384;

/// Starts logging; lines are written until the guard is dropped.
///
/// # Errors
/// The filter can't be read.
pub(super) fn start(log: &Log) -> Result<WorkerGuard, Failure> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| Failure::new(exit::CONFIG_INVALID, format!("log.level {:?}: {error}", log.level)))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("pulsegate-log")
        .finish(stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let started = if json {
        builder.json().with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(output::colour(&stderr())).try_init()
    };
    started.map_err(|error| Failure::new(exit::FAILURE, format!("can't start logging: {error}")))?;
    Ok(guard)
}
