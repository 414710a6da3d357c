//! What a proxy costs, all of its processes together, and what others took meanwhile.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;

use crate::clock::Moment;
use crate::machine::{cpu_seconds, kib, stat};

/// Two accounts of the same processor time agree when they differ by no more than this for each process: the
/// coarse one counts in hundredths of a second.
const AGREE_SECONDS: f64 = 0.021;

/// Processor time that some processes have used.
#[derive(Debug)]
pub(crate) struct Used {
    /// Whole, but in hundredths of a second.
    coarse: f64,
    /// Exact, by thread: who has ended is missing.
    threads: BTreeMap<(u32, u32), u64>,
    processes: usize,
}

/// A process and all that descend from it, as they are now.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = numbers("/proc").filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        at += 1;
    }
    found
}

impl Used {
    /// # Errors
    /// One of them is gone.
    pub(crate) fn by(pids: &[u32]) -> Result<Used> {
        let mut used = Used { coarse: 0.0, threads: BTreeMap::new(), processes: pids.len() };
        for pid in pids {
            used.coarse += cpu_seconds(*pid)?;
            for thread in numbers(&format!("/proc/{pid}/task")) {
                // A thread may end in between.
                let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat"));
                let nanos = text.ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
                used.threads.extend(nanos.map(|nanos| ((*pid, thread), nanos)));
            }
        }
        Ok(used)
    }

    /// Seconds since `before`: exact if no thread has ended, else in hundredths.
    pub(crate) fn since(&self, before: &Used) -> f64 {
        let coarse = self.coarse - before.coarse;
        let earlier = |thread| before.threads.get(thread).copied().unwrap_or_default();
        let nanos: u64 =
            self.threads.iter().map(|(thread, nanos)| nanos.saturating_sub(earlier(thread))).sum();
        let exact = nanos as f64 / 1e9;
        let is_whole = (exact - coarse).abs() <= AGREE_SECONDS * self.processes as f64 + coarse * 0.01;
        if is_whole { exact } else { coarse }
    }
}

/// User-space memory in KiB: what is shared counts by shares, what the kernel holds for sockets does not.
///
/// # Errors
/// One of the processes is gone.
pub(crate) fn memory_kib(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| kib(*pid, "smaps_rollup", "Pss")).sum()
}

/// Watches what other programs take of the machine, while none of our own begins or ends.
#[derive(Debug)]
pub(crate) struct Outside {
    start: Moment,
    machine: f64,
    own: f64,
}

impl Outside {
    /// # Errors
    /// The system does not tell.
    pub(crate) fn watch() -> Result<Outside> {
        Ok(Outside { start: Moment::now(), machine: machine_seconds()?, own: own_seconds() })
    }

    /// Share of all cores' time that went to others since the start, in percent.
    ///
    /// # Errors
    /// The system does not tell.
    pub(crate) fn percent(&self) -> Result<f64> {
        let others = (machine_seconds()? - self.machine) - (own_seconds() - self.own);
        let cores = std::thread::available_parallelism()?.get() as f64;
        let all = Moment::now().seconds_since(self.start) * cores;
        Ok((100.0 * others / all).clamp(0.0, 100.0))
    }
}

/// Processor time that programs took of the machine, or that it was not given. Interrupts are left out: they are
/// nobody's.
fn machine_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _waiting, _irq, _softirq, stolen, ..] = fields[..] else {
        anyhow::bail!("/proc/stat is not as expected")
    };
    Ok((user + nice + system + stolen) / rustix::param::clock_ticks_per_second() as f64)
}

/// Processor time of this tool and all that it started and that still runs.
fn own_seconds() -> f64 {
    tree(std::process::id()).into_iter().filter_map(|pid| cpu_seconds(pid).ok()).sum()
}

fn parent(pid: u32) -> Option<u32> {
    // Behind the state.
    stat(pid).ok()?.split_whitespace().nth(1)?.parse().ok()
}

/// The entries of a directory whose names are numbers.
fn numbers(path: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_and_memory_are_seen() {
        let own = std::process::id();
        assert!(tree(own).contains(&own));
        let before = Used::by(&[own]).unwrap();
        let mut sum = 0_u64;
        let start = Moment::now();
        while Moment::now().seconds_since(start) < 0.1 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let used = Used::by(&[own]).unwrap().since(&before);
        assert!(used > 0.0, "{used} s of work");
        assert!(memory_kib(&[own]).unwrap() > 100.0);
    }

    #[test]
    fn a_thread_that_ended_is_not_lost() {
        let used = |coarse, nanos: &[u64]| Used {
            coarse,
            threads: (0..).map(|thread| (1, thread)).zip(nanos.iter().copied()).collect(),
            processes: 1,
        };
        let before = used(1.0, &[600_000_000, 400_000_000]);
        assert_eq!(used(3.0, &[1_605_000_000, 1_400_000_000]).since(&before), 2.005);
        assert_eq!(used(3.0, &[1_600_000_000]).since(&before), 2.0);
    }
}
