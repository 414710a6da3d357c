//! A TCP-like connection: two byte streams over a path that delays and loses segments.

use std::collections::VecDeque;

use crate::{MS, NEVER, SECOND, Time};

/// Bytes of the largest segment. Larger than on a wire, as the kernel hands them over.
pub(crate) const SEGMENT_MAX: u64 = 16 * 1024;

/// RFC 6298's timeout has this floor in Linux.
const RTO_MIN: Time = 200 * MS;

/// So many retransmissions of ours are at even gaps (`TCP_THIN_LINEAR_TIMEOUTS`).
const LINEAR_MAX: u32 = 6;

/// What a byte stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Ping([u8; 8]),
    Pong([u8; 8]),
    Data,
}

/// From whom a stream comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From us to the peer.
    Out,
    /// From the peer to us.
    In,
}

impl Way {
    pub(crate) fn back(self) -> Way {
        match self {
            Way::Out => Way::In,
            Way::In => Way::Out,
        }
    }
}

/// A segment on the wire. An empty one is an acknowledgement, or asks for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Demands an answer: data, or a probe of a shut window.
    pub(crate) asks: bool,
    /// What the sender of this segment has got, and how far it would take more.
    pub(crate) ack: u64,
    pub(crate) edge: u64,
}

/// The network between two kernels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    pub(crate) delay: Time,
    /// Scale of the heavy-tailed jitter.
    pub(crate) jitter: Time,
    /// Share of segments lost at random.
    pub(crate) loss: f64,
    /// Bytes a second.
    pub(crate) rate: u64,
    /// From, to, and which ways lose everything: out, in.
    pub(crate) outages: Vec<(Time, Time, [bool; 2])>,
}

impl Path {
    /// Returns whether a segment sent at `time` is lost for sure.
    pub(crate) fn is_cut(&self, way: Way, time: Time) -> bool {
        self.outages.iter().any(|&(from, to, ways)| from <= time && time < to && ways[way as usize])
    }

    /// Returns whether the path never lost a thing and is fast.
    pub(crate) fn is_clean(&self) -> bool {
        self.outages.is_empty() && self.loss == 0.0 && self.rate >= 1_000_000
    }

    /// Returns from when on nothing passes either way.
    pub(crate) fn dead_from(&self) -> Time {
        let dead = self.outages.iter().filter(|outage| outage.1 == NEVER && outage.2 == [true, true]);
        dead.map(|outage| outage.0).min().unwrap_or(NEVER)
    }

    /// Returns how long a segment is under way: a Pareto tail, cut at 40 times the scale.
    pub(crate) fn travel(&self, random: &mut fastrand::Rng) -> Time {
        let tail = (1.0 / (1.0 - random.f64()).sqrt() - 1.0).min(40.0);
        self.delay + (self.jitter as f64 * tail) as Time
    }
}

/// One direction: its sender's and its receiver's kernel.
#[derive(Debug)]
pub(crate) struct Pipe {
    items: VecDeque<(u64, Item)>,
    pub(crate) written: u64,
    sent: u64,
    pub(crate) acked: u64,
    edge: u64,
    pub(crate) received: u64,
    pub(crate) read: u64,
    /// Where the last item that was read ends.
    item_end: u64,
    window: u64,
    pub(crate) rto: Time,
    gap: Time,
    gap_max: Time,
    linear: bool,
    pub(crate) rto_at: Option<Time>,
    retransmits: u32,
    window_probes: u32,
    /// When the sender's kernel last got a segment from the other one.
    pub(crate) heard_at: Time,
    /// When the last bytes came to the receiver's kernel.
    pub(crate) arrived_at: Time,
    /// Since when bytes wait of which none is acknowledged.
    pub(crate) stuck_since: Option<Time>,
    pub(crate) busy_until: Time,
    pub(crate) last_due: Time,
    room: u64,
    lazy: Option<Lazy>,
    /// Up to where the receiver's kernel has acknowledged.
    told: u64,
    /// When it acknowledges the rest.
    pub(crate) ack_at: Option<Time>,
}

/// A kernel, or something on the way, that saves acknowledgements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lazy {
    /// It waits so long,
    pub(crate) time: Time,
    /// but not for more bytes than these.
    pub(crate) bytes: u64,
}

impl Pipe {
    pub(crate) fn new(window: u64, room: u64, path: &Path, gap_max: Time, linear: bool) -> Pipe {
        // The estimator has learnt how long a full window takes.
        let rto =
            RTO_MIN + 2 * path.delay + 2 * path.jitter + window.min(4 * SEGMENT_MAX) * SECOND / path.rate;
        Pipe {
            items: VecDeque::new(),
            written: 0,
            sent: 0,
            acked: 0,
            edge: window,
            received: 0,
            read: 0,
            item_end: 0,
            window,
            rto,
            gap: rto,
            gap_max: gap_max.max(rto),
            linear,
            rto_at: None,
            retransmits: 0,
            window_probes: 0,
            heard_at: 0,
            arrived_at: 0,
            stuck_since: None,
            busy_until: 0,
            last_due: 0,
            room,
            lazy: None,
            told: 0,
            ack_at: None,
        }
    }

    /// Makes the receiver's kernel save acknowledgements, which the sender's has learnt to wait for.
    pub(crate) fn with_lazy(mut self, lazy: Option<Lazy>) -> Pipe {
        if let Some(lazy) = lazy {
            self.rto += lazy.time;
            self.gap = self.rto;
            self.gap_max = self.gap_max.max(self.rto);
        }
        self.lazy = lazy;
        self
    }

    /// Returns how many bytes the sender's socket takes.
    pub(crate) fn free(&self) -> u64 {
        self.room.saturating_sub(self.written - self.acked)
    }

    /// Puts bytes into the sender's socket; `item` ends with the last of them.
    pub(crate) fn write(&mut self, bytes: u64, item: Option<Item>, now: Time) {
        self.stuck_since.get_or_insert(now);
        self.written += bytes;
        if let Some(item) = item {
            self.items.push_back((self.written, item));
        }
    }

    /// Returns the next segment (its range) that may go out now, if one may.
    pub(crate) fn next_segment(&mut self, now: Time) -> Option<(u64, u64)> {
        if self.retransmits > 0 && self.sent > self.acked {
            return None;
        }
        let end = self.written.min(self.edge).min(self.sent + SEGMENT_MAX);
        if self.acked < self.written && self.rto_at.is_none() {
            self.rto_at = Some(now + self.gap);
        }
        if end <= self.sent {
            return None;
        }
        let start = self.sent;
        self.sent = end;
        Some((start, end))
    }

    /// The retransmission timer ran out: returns the range to send again; empty for a probe of a shut window.
    pub(crate) fn handle_rto(&mut self, now: Time) -> Option<(u64, u64)> {
        self.rto_at = None;
        if self.acked >= self.written {
            return None;
        }
        let shut = self.sent <= self.acked && self.edge <= self.acked;
        let tries = if shut { &mut self.window_probes } else { &mut self.retransmits };
        *tries += 1;
        if shut || !self.linear || *tries > LINEAR_MAX {
            self.gap = (self.gap * 2).min(self.gap_max);
        }
        self.rto_at = Some(now + self.gap);
        if shut {
            return Some((self.acked, self.acked));
        }
        let end = self.written.min(self.acked + SEGMENT_MAX).min(self.edge.max(self.acked + 1));
        self.sent = self.sent.max(end);
        Some((self.acked, end))
    }

    /// The sender's kernel got a segment from the other one.
    pub(crate) fn handle_ack(&mut self, ack: u64, edge: u64, now: Time) {
        self.heard_at = now;
        self.window_probes = 0;
        self.edge = self.edge.max(edge);
        if ack > self.acked {
            self.acked = ack;
            // What was lost behind it goes out again as well.
            self.sent = if self.retransmits > 0 { ack } else { self.sent.max(ack) };
            self.retransmits = 0;
            self.gap = self.rto;
            self.rto_at = None;
            self.stuck_since = (self.acked < self.written).then_some(now);
        }
    }

    /// The receiver's kernel got a segment. Returns whether new bytes can be read.
    pub(crate) fn handle_segment(&mut self, segment: Segment, now: Time) -> bool {
        let end = segment.end.min(self.read + self.window);
        if segment.start > self.received || end <= self.received {
            return false;
        }
        self.received = end;
        self.arrived_at = now;
        true
    }

    /// Returns when the segment that just came is acknowledged, if not at once. What is not fresh was sent
    /// again, or asks about the window: that is never put off (RFC 5681 section 4.2).
    pub(crate) fn put_off_ack(&mut self, fresh: bool, now: Time) -> Option<Time> {
        let lazy = self.lazy.filter(|lazy| fresh && self.received - self.told < lazy.bytes)?;
        Some(*self.ack_at.get_or_insert(now + lazy.time))
    }

    /// Returns how far apart acknowledgements can be while a line of this rate is never idle, delays aside.
    pub(crate) fn longest_ack_gap(&self, rate: u64) -> Time {
        self.lazy.map_or(0, |lazy| lazy.time) + 2 * SEGMENT_MAX * SECOND / rate
    }

    /// The receiver acknowledges: returns what, and how far it takes more.
    pub(crate) fn acknowledge(&mut self) -> (u64, u64) {
        (self.told, self.ack_at) = (self.received, None);
        (self.received, self.read + self.window)
    }

    /// Returns how many bytes wait to be read.
    pub(crate) fn waiting(&self) -> u64 {
        self.received - self.read
    }

    /// Reads up to `max` bytes; returns how many, what ends in them, and whether a shut window opens.
    pub(crate) fn take(&mut self, max: u64, items: &mut Vec<Item>) -> (u64, bool) {
        let taken = self.waiting().min(max);
        let was_shut = self.read + self.window < self.received + self.window / 2;
        self.read += taken;
        while self.items.front().is_some_and(|item| item.0 <= self.read) {
            if let Some((end, item)) = self.items.pop_front() {
                self.item_end = end;
                items.push(item);
            }
        }
        (taken, was_shut && self.read + self.window >= self.received + self.window / 2)
    }

    /// Returns whether a part of an item was read.
    pub(crate) fn is_within_item(&self) -> bool {
        self.read > self.item_end
    }

    /// Unacknowledged bytes and vain attempts, as the sender's kernel would tell them.
    pub(crate) fn view(&self) -> (u64, u32) {
        (self.written - self.acked, self.retransmits + self.window_probes.saturating_sub(1))
    }
}
