//! What the process on the other end does.

use crate::link::Item;
use crate::{NEVER, Time};

/// What a peer is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Answers every ping.
    Answers,
    /// Answers none.
    NeverPongs,
    /// Answers each second ping.
    EachSecond,
    /// Answers each third ping.
    EachThird,
    /// Answers the newest of the pings that wait.
    Newest,
    /// Answers the oldest of the pings that wait.
    Oldest,
    /// Answers, again and again, and sends pongs that nobody asked for.
    Floods,
    /// Sends and never reads.
    NeverReads,
    /// Its process stops.
    Frozen,
    /// Its host vanishes.
    HostGone,
    /// Reads a little at a time.
    SlowReader,
    /// Sends all the time.
    Busy,
    /// Says and reads nothing from the start.
    Silent,
    /// Its host vanishes before the first ping.
    DiesEarly,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = [
        Kind::Answers,
        Kind::NeverPongs,
        Kind::EachSecond,
        Kind::EachThird,
        Kind::Newest,
        Kind::Oldest,
        Kind::Floods,
        Kind::NeverReads,
        Kind::Frozen,
        Kind::HostGone,
        Kind::SlowReader,
        Kind::Busy,
        Kind::Silent,
        Kind::DiesEarly,
    ];

    /// Returns whether every ping that it reads is answered at once, while it lives.
    pub(crate) fn answers_all(self) -> bool {
        match self {
            Kind::Answers | Kind::Floods | Kind::Frozen | Kind::HostGone | Kind::Busy | Kind::DiesEarly => {
                true
            }
            Kind::NeverPongs
            | Kind::EachSecond
            | Kind::EachThird
            | Kind::Newest
            | Kind::Oldest
            | Kind::NeverReads
            | Kind::SlowReader
            | Kind::Silent => false,
        }
    }
}

/// One peer's process.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    /// From here on it does nothing.
    pub(crate) stops_at: Time,
    /// How long it takes to read what came.
    pub(crate) think: Time,
    /// Bytes that it reads at once.
    pub(crate) gulp: u64,
    /// Between two messages of its own.
    pub(crate) send_every: Time,
    pub(crate) send_bytes: u64,
    pub(crate) next_send: Time,
    pub(crate) read_at: Option<Time>,
    pings: u64,
    last: [u8; 8],
}

impl Peer {
    pub(crate) fn new(kind: Kind) -> Peer {
        Peer {
            kind,
            stops_at: NEVER,
            think: 0,
            gulp: u64::MAX,
            send_every: NEVER,
            send_bytes: 100,
            next_send: NEVER,
            read_at: None,
            pings: 0,
            last: [0; 8],
        }
    }

    pub(crate) fn reads(&self, now: Time) -> bool {
        now < self.stops_at && self.kind != Kind::NeverReads && self.kind != Kind::Silent
    }

    /// Takes what it read; what it answers goes to `out`.
    pub(crate) fn handle(&mut self, items: &[Item], out: &mut Vec<(u64, Item)>) {
        let mut pings: Vec<[u8; 8]> = Vec::new();
        for item in items {
            match *item {
                Item::Ping(payload) => pings.push(payload),
                Item::Pong(_) | Item::Data => {}
            }
        }
        let Some(&newest) = pings.last() else { return };
        let mut answer = |payload| out.push((14, Item::Pong(payload)));
        let before = self.pings;
        self.pings += pings.len() as u64;
        match self.kind {
            Kind::NeverPongs | Kind::NeverReads | Kind::Silent => {}
            Kind::EachSecond | Kind::EachThird => {
                let each = if self.kind == Kind::EachSecond { 2 } else { 3 };
                for (number, &payload) in (before + 1..).zip(&pings) {
                    if number % each == 0 {
                        answer(payload);
                    }
                }
            }
            Kind::Newest => answer(newest),
            Kind::Oldest => answer(pings[0]),
            Kind::Floods => pings.iter().for_each(|&payload| (0..3).for_each(|_| answer(payload))),
            Kind::Answers
            | Kind::Frozen
            | Kind::HostGone
            | Kind::SlowReader
            | Kind::Busy
            | Kind::DiesEarly => pings.iter().for_each(|&payload| answer(payload)),
        }
        self.last = newest;
    }

    /// What it sends of its own.
    pub(crate) fn own_message(&self) -> (u64, Item) {
        if self.kind == Kind::Floods {
            // An old answer again, or one to a ping of nobody's.
            return (14, Item::Pong(self.last));
        }
        (self.send_bytes, Item::Data)
    }
}
