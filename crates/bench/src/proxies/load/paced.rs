//! Messages on a fixed schedule. Each latency counts from the moment at which its message was to be sent, so a
//! proxy that holds up the load can't hide the wait that it caused (coordinated omission).

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Load, Pace, TOKEN_ORDERS};
use crate::clock::Moment;
use crate::proxies::wire::Batch;

/// How long the last echoes may take.
const LAST_MAX_SECONDS: f64 = 10.0;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) bytes: usize,
    pub(crate) per_second: u32,
    pub(crate) seconds: f64,
    /// At the beginning: caches warm up.
    pub(crate) unmeasured_seconds: f64,
}

impl Plan {
    fn messages_in(&self, seconds: f64) -> u64 {
        (seconds * f64::from(self.per_second)) as u64
    }

    /// Seconds from the start to the moment at which a message is to be sent.
    fn due(&self, number: u64) -> f64 {
        number as f64 / f64::from(self.per_second)
    }
}

impl Load {
    pub(super) fn pace(&mut self, plan: &Plan) -> Result<Pace> {
        // The kernel may wake a sleeper 50 µs late unless told otherwise: as much as what is measured.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let sessions = self.conns.len() as u64;
        ensure!(sessions > 0, "there are sessions");
        self.batch = Batch::new(plan.bytes, 1);
        for (conn, first) in self.conns.iter_mut().zip(0..) {
            conn.number_from(first, sessions);
        }
        let (unmeasured, all) = (plan.messages_in(plan.unmeasured_seconds), plan.messages_in(plan.seconds));
        let (mut sent, mut back) = (0, 0);
        let (mut times, mut late, mut ready) = (Vec::new(), Vec::new(), Vec::new());
        let start = Moment::now();
        while back < all {
            let now = Moment::now().seconds_since(start);
            while sent < all && plan.due(sent) <= now {
                let conn = &mut self.conns[usize::try_from(sent % sessions)?];
                if sent >= unmeasured {
                    late.push(Moment::now().seconds_since(start) - plan.due(sent));
                }
                conn.send_one(&self.poller, self.batch.numbered(sent))?;
                sent += 1;
            }
            let wait = if sent < all { plan.due(sent) } else { plan.due(all) + LAST_MAX_SECONDS }
                - Moment::now().seconds_since(start);
            ensure!(sent < all || wait > 0.0, "{} messages did not come back", all - back);
            self.poller.wait(&mut ready, Some(Duration::from_secs_f64(wait.max(0.0))))?;
            for one in ready.iter().filter(|one| one.token != TOKEN_ORDERS) {
                let conn = &mut self.conns[usize::try_from(one.token)?];
                let mut came_back = |number: u64| {
                    if number >= unmeasured {
                        times.push(Moment::now().seconds_since(start) - plan.due(number));
                    }
                };
                let news =
                    conn.turn(*one, &self.poller, Some(&mut self.batch), &mut self.buffer, &mut came_back)?;
                back += news.echoes;
            }
        }
        // Whatever is sent later has numbers of its own.
        for conn in &mut self.conns {
            conn.number_from(all, 1);
        }
        Ok(told(times, late))
    }
}

fn told(mut times: Vec<f64>, mut late: Vec<f64>) -> Pace {
    times.sort_by(f64::total_cmp);
    late.sort_by(f64::total_cmp);
    let micros = |sorted: &[f64], share: f64| {
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        sorted.get(at).map_or(0.0, |seconds| (seconds * 1e7).round() / 10.0)
    };
    Pace {
        messages: times.len() as u64,
        p50: micros(&times, 0.5),
        p99: micros(&times, 0.99),
        max: micros(&times, 1.0),
        late_p50: micros(&late, 0.5),
        late_p99: micros(&late, 0.99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_microseconds() {
        let pace = told(vec![0.003, 0.000_1, 0.002], vec![0.000_05]);
        assert_eq!((pace.messages, pace.p50, pace.max, pace.late_p50), (3, 2000.0, 3000.0, 50.0));
        assert_eq!(told(Vec::new(), Vec::new()), Pace::default());
    }
}
