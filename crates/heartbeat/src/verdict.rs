//! A verdict and its proof.

use std::fmt;
use std::time::Duration;

use pulsegate_core::Cause;
use serde::{Serialize, Serializer};

use crate::doubt::{Doubt, Doubts};

/// What our kernel knows of the peer's: from `TCP_INFO`, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KernelView {
    /// Bytes that we wrote and the peer's kernel has not acknowledged, sent or not.
    pub unacked_bytes: u64,
    /// Retransmissions of the segment under way, or probes of a shut window beyond the first, that nothing
    /// answered.
    pub retransmits: u32,
    /// Time since the last segment from the peer that carried an acknowledgement, be it of nothing new.
    #[serde(rename = "since_last_ack_seconds", serialize_with = "seconds")]
    pub since_last_ack: Duration,
}

/// What a call wants to know of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Whether what was written has arrived. If all of it has, that is all there is to know:
    /// [`KernelView::all_taken`].
    Delivery,
    /// Everything: the peer may be judged.
    Peer,
}

impl KernelView {
    /// Nothing waits for an acknowledgement.
    pub fn all_taken() -> KernelView {
        KernelView { unacked_bytes: 0, retransmits: 0, since_last_ack: Duration::ZERO }
    }

    /// Returns whether bytes wait for an acknowledgement, our kernel asked again in vain, and nothing of any
    /// kind came for `time`. Age alone proves nothing: a shut window (RFC 9293 section 3.8.6.1) is asked about
    /// at growing intervals, and its answers are all that comes.
    pub fn is_path_dead(&self, time: Duration) -> bool {
        self.unacked_bytes > 0 && self.retransmits > 0 && self.since_last_ack >= time
    }
}

/// What a verdict can rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Pings that got no pong.
    UnansweredProbes,
    /// Bytes that no kernel acknowledged, though ours sent them again.
    UnacknowledgedBytes,
    /// A kernel that acknowledges, and a process behind it that does not answer.
    AcknowledgingKernel,
    /// Bytes that wait, of which none was taken.
    StalledWrite,
    /// Our kernel gave the connection up.
    SocketTimeout,
}

impl Evidence {
    /// Returns the words used in the proof.
    pub fn as_str(self) -> &'static str {
        match self {
            Evidence::UnansweredProbes => "unanswered probes",
            Evidence::UnacknowledgedBytes => "unacknowledged bytes",
            Evidence::AcknowledgingKernel => "a kernel that acknowledges",
            Evidence::StalledWrite => "a stalled write",
            Evidence::SocketTimeout => "our kernel gave up",
        }
    }

    pub(crate) fn of(
        probes: u32,
        kernel: Option<KernelView>,
        stalled_for: Option<Duration>,
    ) -> Vec<Evidence> {
        let kernel = kernel.map(|kernel| {
            if kernel.is_path_dead(Duration::ZERO) {
                Evidence::UnacknowledgedBytes
            } else {
                Evidence::AcknowledgingKernel
            }
        });
        let probes = (probes > 0).then_some(Evidence::UnansweredProbes);
        let stalled = stalled_for.map(|_| Evidence::StalledWrite);
        [probes, stalled, kernel].into_iter().flatten().collect()
    }
}

/// The end of a peer, with the evidence it fell on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What kind of death.
    pub cause: Cause,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// Time since the last byte from the peer.
    #[serde(rename = "silent_for_seconds", serialize_with = "seconds")]
    pub silent_for: Duration,
    /// Probes that got no answer.
    pub probes_unanswered: u32,
    /// When the latest of them were sent (four at most), as time into the silence.
    #[serde(rename = "probes_sent_seconds", serialize_with = "all_seconds")]
    pub probes_sent: Vec<Duration>,
    /// How long bytes have waited for a peer that takes none.
    #[serde(rename = "write_stalled_for_seconds", serialize_with = "maybe_seconds")]
    pub write_stalled_for: Option<Duration>,
    /// What the kernel said, where it could tell.
    pub kernel: Option<KernelView>,
    /// Whether the kernel on the other end is that of a proxy in between, so that it says nothing of the
    /// peer's own.
    pub behind_proxy: bool,
    /// How late our own timers ran: that of the first probe, or that of the verdict if it was later.
    #[serde(rename = "timer_lag_seconds", serialize_with = "seconds")]
    pub timer_lag: Duration,
    /// How often the verdict had been withheld.
    pub withheld: u32,
    /// Why, the last time.
    pub doubt: Option<Doubt>,
    /// The same, counted by reason.
    #[serde(skip)]
    pub doubts: Doubts,
    /// Smoothed round trip before the silence.
    #[serde(rename = "round_trip_seconds", serialize_with = "maybe_seconds")]
    pub round_trip: Option<Duration>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "peer declared dead ({}): last byte {:.2} s ago",
            self.cause,
            self.silent_for.as_secs_f64()
        )?;
        if self.probes_unanswered > 0 {
            write!(f, ", probes unanswered {} (sent", self.probes_unanswered)?;
            for (n, sent) in self.probes_sent.iter().enumerate() {
                write!(f, "{} {:.1} s", if n == 0 { "" } else { "," }, sent.as_secs_f64())?;
            }
            f.write_str(" into the silence)")?;
        }
        if let Some(stalled) = self.write_stalled_for {
            write!(f, ", took no byte for {:.1} s while bytes waited", stalled.as_secs_f64())?;
        }
        match self.kernel {
            Some(kernel) => write!(
                f,
                ", tcp unacked {} B, retransmits {}, last ack {:.1} s ago",
                kernel.unacked_bytes,
                kernel.retransmits,
                kernel.since_last_ack.as_secs_f64()
            )?,
            None if self.evidence.contains(&Evidence::SocketTimeout) => {}
            None => f.write_str(", no word from the kernel")?,
        }
        if self.behind_proxy && self.kernel.is_some() {
            f.write_str(" (the kernel of the proxy in between)")?;
        }
        write!(f, ", own timer lag {} ms", self.timer_lag.as_millis())?;
        if let Some(doubt) = self.doubt {
            write!(f, ", withheld {} times before ({})", self.withheld, doubt.as_str())?;
        }
        f.write_str("; evidence: ")?;
        for (n, evidence) in self.evidence.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, evidence.as_str())?;
        }
        Ok(())
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn maybe_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

fn all_seconds<S: Serializer>(times: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().map(Duration::as_secs_f64))
}
