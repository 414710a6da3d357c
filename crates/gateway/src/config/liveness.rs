//! The bounds that hold once the profile has filled in what was left unset.

use std::time::Duration;

use super::{Liveness, Profile};

/// The bounds in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Silence after which a peer is probed, at the latest.
    pub ping_interval: Duration,
    /// Time from the first unanswered probe to the verdict.
    pub verdict_after: Duration,
    /// Silence of a client whose kernel still acknowledges.
    pub client_frozen_after: Duration,
    /// The same for the app.
    pub app_frozen_after: Duration,
    /// Silence of a peer known never to answer a ping.
    pub idle_timeout: Duration,
    /// How long a client may take no byte while bytes wait for it.
    pub client_write_stall_after: Duration,
    /// The same for the app.
    pub app_write_stall_after: Duration,
}

impl Bounds {
    /// The longest that a silent idle peer stays undetected: `ping_interval + verdict_after`.
    pub fn silence_max(&self) -> Duration {
        self.ping_interval.saturating_add(self.verdict_after)
    }

    /// The longest that a silent client stays undetected, whether its kernel still acknowledges or not.
    pub fn client_silence_max(&self) -> Duration {
        self.silence_max().max(self.client_frozen_after)
    }

    /// The same for the app.
    pub fn app_silence_max(&self) -> Duration {
        self.silence_max().max(self.app_frozen_after)
    }
}

impl Liveness {
    /// Fills unset values from the profile, and unset client bounds from the sum of interval and verdict.
    pub fn bounds(&self) -> Bounds {
        let (profile_interval, profile_verdict) = self.profile.intervals();
        let ping_interval = self.ping_interval.unwrap_or(profile_interval);
        let verdict_after = self.verdict_after.unwrap_or(profile_verdict);
        let silence_max = ping_interval.saturating_add(verdict_after);
        Bounds {
            ping_interval,
            verdict_after,
            client_frozen_after: self.client_frozen_after.unwrap_or(silence_max),
            app_frozen_after: self.app_frozen_after,
            idle_timeout: self.idle_timeout,
            client_write_stall_after: self.client_write_stall_after.unwrap_or(silence_max),
            app_write_stall_after: self.app_write_stall_after,
        }
    }
}

impl Profile {
    /// `ping_interval` and `verdict_after`.
    fn intervals(self) -> (Duration, Duration) {
        let (interval_s, verdict_s) = match self {
            Profile::Fast => (1, 2),
            Profile::Balanced => (5, 5),
            Profile::Battery => (25, 15),
        };
        (Duration::from_secs(interval_s), Duration::from_secs(verdict_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn profiles_give_the_stated_bounds() {
        for (profile, interval_s, verdict_s) in
            [(Profile::Fast, 1, 2), (Profile::Balanced, 5, 5), (Profile::Battery, 25, 15)]
        {
            let bounds = Liveness { profile, ..Config::default().liveness }.bounds();
            let sum = Duration::from_secs(interval_s + verdict_s);
            assert_eq!(bounds.ping_interval, Duration::from_secs(interval_s));
            assert_eq!(bounds.verdict_after, Duration::from_secs(verdict_s));
            assert_eq!(bounds.silence_max(), sum);
            assert_eq!(bounds.client_frozen_after, sum);
            assert_eq!(bounds.client_write_stall_after, sum);
            assert_eq!(bounds.app_frozen_after, Duration::from_secs(30));
            assert_eq!(
                (bounds.client_silence_max(), bounds.app_silence_max().as_secs()),
                (sum, (interval_s + verdict_s).max(30))
            );
        }
    }

    #[test]
    fn what_is_set_wins_over_the_profile() {
        let ms = Duration::from_millis;
        let bounds = Liveness {
            ping_interval: Some(ms(500)),
            verdict_after: Some(ms(700)),
            client_write_stall_after: Some(ms(9)),
            ..Config::default().liveness
        }
        .bounds();
        assert_eq!((bounds.ping_interval, bounds.verdict_after), (ms(500), ms(700)));
        assert_eq!((bounds.client_frozen_after, bounds.client_write_stall_after), (ms(1200), ms(9)));
    }
}
