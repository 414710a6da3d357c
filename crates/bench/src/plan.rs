//! What one measurement is made of, and what it has to keep to.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The bad network's: 300 ms each way.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(600);

/// A liveness profile of the gateway, with what the promise about it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    Fast,
    Balanced,
    Battery,
}

impl Profile {
    pub(crate) const ALL: [Profile; 3] = [Profile::Fast, Profile::Balanced, Profile::Battery];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Profile::Fast => "fast",
            Profile::Balanced => "balanced",
            Profile::Battery => "battery",
        }
    }

    pub(crate) fn ping_interval(self) -> Duration {
        Duration::from_secs(match self {
            Profile::Fast => 1,
            Profile::Balanced => 5,
            Profile::Battery => 25,
        })
    }

    /// Longest silence of a dead client before the verdict.
    pub(crate) fn bound(self) -> Duration {
        self.ping_interval()
            + Duration::from_secs(match self {
                Profile::Fast => 2,
                Profile::Balanced => 5,
                Profile::Battery => 15,
            })
    }

    /// Longest stall of the bad but living network.
    pub(crate) fn stall_max(self) -> Duration {
        Duration::from_secs(match self {
            Profile::Fast => 1,
            Profile::Balanced => 3,
            Profile::Battery => 10,
        })
    }

    /// What the longest stall and the longest round trip of the bad network leave of the time that a peer has
    /// to answer a probe. If the network is late by more, the promise to the living says nothing.
    pub(crate) fn network_reserve(self) -> Duration {
        (self.bound() - self.ping_interval()).saturating_sub(self.stall_max() + ROUND_TRIP_MAX)
    }

    /// How long the bad network lasts: some ten stalls per client, and ten times the interval.
    pub(crate) fn bad_network_time(self) -> Duration {
        Duration::from_secs(match self {
            Profile::Fast | Profile::Balanced => 120,
            Profile::Battery => 240,
        })
    }
}

/// What the clients and the app say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Load {
    /// Nothing: only probes and pongs are on the wire.
    Quiet,
    /// The app pushes to each client, each client sends a little less.
    Busy,
}

impl Load {
    pub(crate) const ALL: [Load; 2] = [Load::Quiet, Load::Busy];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Load::Quiet => "quiet",
            Load::Busy => "busy",
        }
    }

    /// Messages per second from the app to each client.
    pub(crate) fn pushes_per_s(self) -> f64 {
        match self {
            Load::Quiet => 0.0,
            Load::Busy => 2.0,
        }
    }

    /// Messages per second from each client.
    pub(crate) fn client_messages_per_s(self) -> f64 {
        match self {
            Load::Quiet => 0.0,
            Load::Busy => 1.0,
        }
    }
}

/// What is between the clients and the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Network {
    /// A clean link, until it becomes a black hole.
    Good,
    /// 100 to 300 ms each way and a stall about every 15 s; at the end some clients vanish all the same, to
    /// show that it would have been seen.
    Bad,
}

impl Network {
    pub(crate) const ALL: [Network; 2] = [Network::Good, Network::Bad];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Network::Good => "good",
            Network::Bad => "bad",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    pub(crate) load: Load,
    pub(crate) network: Network,
    pub(crate) sessions: usize,
    /// How many of them vanish.
    pub(crate) dead: usize,
    /// How long the living are watched on the bad network before anybody vanishes.
    pub(crate) bad_network_time: Duration,
    /// What a loaded machine may add to the bound.
    pub(crate) slack: Duration,
    pub(crate) seed: u64,
}

impl Plan {
    pub(crate) fn title(&self) -> String {
        let (profile, load, network) = (self.profile.as_str(), self.load.as_str(), self.network.as_str());
        format!("{profile}, {load}, {network} network, {} of {} vanish", self.dead, self.sessions)
    }
}
