//! The one timer of a session.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// Timers of all sessions fire on a common beat, so that a thread wakes up for many of them at once. A verdict may wait
/// for two of them, its probe's and its own: less than half of the room that a stated bound leaves for our own
/// scheduling, 50 ms with the shortest `ping_interval` that may be configured.
const BEAT: Duration = Duration::from_millis(10);

/// Wakes the session's task at a deadline, up to one [`BEAT`] late.
///
/// Setting a timer costs as much as a message, so it is not moved with every deadline: only if it would come too
/// late, or for nothing.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
}

impl Alarm {
    /// Beats are counted from `epoch`, here and later.
    pub(super) fn new(epoch: Instant, due: Instant) -> Alarm {
        let at = on_beat(epoch, due);
        Alarm { sleep: Box::pin(sleep_until(at.into())), at }
    }

    /// Sets it to `due`; returns how late it was if it has just fired.
    pub(super) fn poll(
        &mut self,
        epoch: Instant,
        due: Option<Instant>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Option<Duration> {
        let fired = self.sleep.as_mut().poll(cx).is_ready();
        let lag = fired.then(|| now.saturating_duration_since(self.at));
        let Some(due) = due else { return lag };
        let at = on_beat(epoch, due);
        if fired || at < self.at || self.is_idle(at, now) {
            self.at = at;
            self.sleep.as_mut().reset(at.into());
            if self.sleep.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        lag
    }

    /// Returns whether it would soon fire with nothing to do until `due`. A busy session's deadline moves with
    /// every message, and this moves the timer once in three quarters of that time.
    fn is_idle(&self, due: Instant, now: Instant) -> bool {
        self.at.saturating_duration_since(now) * 4 < due.saturating_duration_since(now)
    }
}

/// Returns the first beat at `due` or behind it.
fn on_beat(epoch: Instant, due: Instant) -> Instant {
    let since = due.saturating_duration_since(epoch).as_micros();
    let beat = BEAT.as_micros();
    due + Duration::from_micros((since.next_multiple_of(beat) - since) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const SECOND: Duration = Duration::from_secs(1);

    /// Polls at `now` with what is due, and tells where the timer stands then.
    fn set(alarm: &mut Alarm, epoch: Instant, due: Instant, now: Instant) -> Instant {
        alarm.poll(epoch, Some(due), now, &mut Context::from_waker(Waker::noop()));
        alarm.at
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_that_lie_close_together_fire_together_and_never_early() {
        let epoch = tokio::time::Instant::now().into_std();
        let mut beats = Vec::new();
        for micros in 1..=30_000 {
            let due = epoch + Duration::from_micros(micros);
            let at = on_beat(epoch, due);
            assert!(at >= due && at - due < BEAT, "{micros}");
            beats.push(at);
        }
        beats.dedup();
        assert_eq!(beats, [1, 2, 3].map(|beat| epoch + BEAT * beat));
        assert_eq!(on_beat(epoch, epoch), epoch);
    }

    #[tokio::test(start_paused = true)]
    async fn it_fires_at_its_deadline_and_tells_how_late_it_was() {
        let epoch = tokio::time::Instant::now().into_std();
        let mut alarm = Alarm::new(epoch, epoch + SECOND);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(alarm.poll(epoch, Some(epoch + SECOND), epoch, &mut cx), None);
        tokio::time::advance(SECOND + BEAT).await;
        let now = epoch + SECOND + BEAT;
        assert_eq!(alarm.poll(epoch, Some(now + SECOND), now, &mut cx), Some(BEAT));
        assert_eq!((alarm.at, alarm.poll(epoch, Some(now + SECOND), now, &mut cx)), (now + SECOND, None));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_moved_forward_at_once_and_back_only_before_it_fires_for_nothing() {
        let epoch = tokio::time::Instant::now().into_std();
        let at = |millis| epoch + Duration::from_millis(millis);
        let mut alarm = Alarm::new(epoch, at(5000));
        assert_eq!(set(&mut alarm, epoch, at(2000), epoch), at(2000));
        // A probe's deadline that its answer makes void.
        assert_eq!(set(&mut alarm, epoch, at(9000), epoch), at(9000));
        // A busy session: what is due is always 5 s away.
        let mut moved = 0;
        let mut alarm = Alarm::new(epoch, at(5000));
        for millis in 1..20_000 {
            let before = alarm.at;
            assert!(alarm.at >= at(millis), "it fired for nothing after {millis} ms");
            moved += u32::from(set(&mut alarm, epoch, at(millis + 5000), at(millis)) > before);
        }
        assert!((3..=7).contains(&moved), "moved {moved} times");
    }
}
