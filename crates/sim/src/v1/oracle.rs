//! What really happened, and what may not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pulsegate_core::v1::Fate;
use pulsegate_core::{Level, MessageId, Outcome, Sent};

use super::line::Frame;

/// What was broken; the numbers are those of the protocol's invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// 1: no gap, no double, no reorder.
    Order,
    /// 2, 3: what is acknowledged was handled, what is kept fits the window.
    Counts,
    /// 4: each message that was taken has one end.
    OneEnd,
    /// 4: the end that is told is true.
    TrueEnd,
    /// 6: a client always has a token that is taken.
    Token,
    /// 7: the last word is the final one.
    LastWord,
    /// 8: opcode and bytes are the same.
    Bytes,
    /// 10: one unanswered barrier at a time.
    Barrier,
    /// 11: who answers is not given up, who is silent is.
    Liveness,
    /// 12: when faults are over everything arrives.
    Progress,
    /// Both machines keep the protocol.
    Protocol,
}

/// An objection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Objection {
    /// What was broken.
    pub invariant: Invariant,
    /// How, and when.
    pub what: String,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

/// What one session has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Numbers of the app's messages that the client got.
    pub(super) to_client: Vec<u32>,
    /// Numbers of the client's messages that the app got.
    pub(super) to_app: Vec<u32>,
    /// The first of the client's messages that can be in it.
    base: u32,
    /// The last of them that came on the app's present connection.
    last: u32,
    /// So many of the next may have come before.
    repeats: u64,
    /// Nothing of what it gets again was written yet; for bugs.
    pub(super) is_replaying: bool,
    /// The app has had more than one connection.
    pub(super) restarted: bool,
    /// Those between them that the app did not get.
    missed: Vec<u32>,
    /// By the first message with a key: the one that the app got.
    keys: BTreeMap<u32, u32>,
    /// Messages that the client's code has handled, those of the control API as well.
    handled: u64,
    /// Messages of the control API that had an end without that: they may be SKIPs.
    skipped: u64,
    /// Messages of the app that the session took, and of the client that it passed on.
    pub(super) taken: [u64; 2],
    /// Those of either that had their end.
    pub(super) told: [u64; 2],
}

impl Seen {
    /// The app has it, or never gets it.
    fn knows(&self, number: u32) -> bool {
        self.to_app.binary_search(&number).is_ok() || self.missed.contains(&number)
    }
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) sessions: Vec<Seen>,
    /// The client's messages, with those that may expire.
    pub(super) submitted: BTreeMap<u32, bool>,
    /// Handled means that the app has read it, and not only that it was written.
    handled_is_received: bool,
    fates: BTreeMap<u32, Fate>,
    /// Messages that have the key of an earlier one, and which that is.
    pub(super) firsts: BTreeMap<u32, u32>,
    /// Messages of the control API, by the number in their payload.
    pub(super) orders: BTreeMap<MessageId, u32>,
    ends: BTreeMap<MessageId, Outcome>,
    /// Those that the client's stack has read.
    orders_read: BTreeSet<u32>,
    orders_got: BTreeSet<u32>,
    orders_handled: BTreeSet<u32>,
    order_sizes: BTreeMap<u32, usize>,
    /// The first message of the client that is not of an earlier session.
    pub(super) base: u32,
    pub(super) objection: Option<Objection>,
}

impl Oracle {
    pub(super) fn new(handled_is_received: bool) -> Oracle {
        Oracle { handled_is_received, base: 1, ..Oracle::default() }
    }

    pub(super) fn object(&mut self, invariant: Invariant, what: impl Into<String>) {
        self.objection.get_or_insert(Objection { invariant, what: what.into() });
    }

    /// Another session begins.
    pub(super) fn begin(&mut self) {
        self.sessions.push(Seen { base: self.base, last: self.base - 1, ..Seen::default() });
    }

    pub(super) fn session(&mut self) -> &mut Seen {
        if self.sessions.is_empty() {
            self.begin();
        }
        self.sessions.last_mut().expect("there is one")
    }

    /// The session is over: each message had one end in it.
    pub(super) fn session_over(&mut self) {
        let Seen { taken, told, .. } = self.session();
        if taken != told {
            let what = format!("{taken:?} messages were taken, {told:?} had an end");
            self.object(Invariant::OneEnd, what);
        }
    }

    /// The client's stack has read a frame; its code may never get it.
    pub(super) fn client_read(&mut self, frame: &Frame) {
        let (text, payload) = match frame {
            Frame::Text(payload) => (true, payload.as_slice()),
            Frame::Word(word) if word[0] == 0 => (false, &word[1..]),
            Frame::Word(_)
            | Frame::Hello(_)
            | Frame::Open
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Close(..)
            | Frame::Gone => return,
        };
        if let Some((b'o', number)) = read(text, payload, b'a', 0) {
            self.orders_read.insert(number);
        }
    }

    /// The client's code got a message; returns what it is, to be handled.
    pub(super) fn client_got(&mut self, text: bool, payload: &[u8]) -> (u8, u32) {
        let expected = self.session().to_client.last().map_or(1, |last| last + 1);
        let Some((kind, number)) = read(text, payload, b'a', expected) else {
            let what = format!("{} bytes to the client are not what the app sent", payload.len());
            self.object(Invariant::Bytes, what);
            return (0, 0);
        };
        if kind == b'o' {
            let last = self.orders_got.last().copied().unwrap_or_default();
            self.orders_got.insert(number);
            if number <= last {
                self.object(Invariant::Order, format!("order {number} came behind {last}"));
            }
            return (kind, number);
        }
        self.session().to_client.push(number);
        if number != expected {
            self.object(Invariant::Order, format!("the client got {number} instead of {expected}"));
        }
        (kind, number)
    }

    /// The client's code is done with it.
    pub(super) fn client_handled(&mut self, (kind, number): (u8, u32)) {
        self.session().handled += 1;
        if kind == b'o' {
            self.orders_handled.insert(number);
        }
    }

    /// The app has another connection, and is told how many of the next messages may have come before.
    pub(super) fn app_is_back(&mut self, repeats: u64) {
        let seen = self.session();
        (seen.last, seen.repeats, seen.restarted) = (seen.base - 1, repeats, true);
        seen.is_replaying = repeats > 0;
    }

    /// The app took a message.
    pub(super) fn app_got(&mut self, text: bool, payload: &[u8]) {
        let last = self.session().last;
        // Those without bytes have no time limit: it must be the next of them.
        let next_empty = (last + 1..).find(|number| is_empty(*number)).unwrap_or(last + 1);
        let Some((_, number)) = read(text, payload, b'c', next_empty) else {
            let what = format!("{} bytes to the app are not what the client sent", payload.len());
            self.object(Invariant::Bytes, what);
            return;
        };
        let wrong = number <= last || self.is_gap_wrong(last, number) || self.is_repeat_wrong(number);
        let first = self.first(number);
        let seen = self.session();
        seen.last = number;
        seen.repeats = seen.repeats.saturating_sub(1);
        let missed: Vec<u32> = (last + 1..number).filter(|it| !seen.knows(*it)).collect();
        seen.missed.extend(missed);
        if let Err(place) = seen.to_app.binary_search(&number) {
            seen.to_app.insert(place, number);
        }
        let before = *seen.keys.entry(first).or_insert(number);
        if wrong {
            self.object(Invariant::Order, format!("the app got {number} behind {last}"));
        } else if before != number {
            self.object(
                Invariant::Order,
                format!("the app got {number}, and had {before} with the same key"),
            );
        }
    }

    /// Returns whether what is left out between two messages to the app may not be left out.
    fn is_gap_wrong(&mut self, last: u32, number: u32) -> bool {
        let is_lossy = !self.handled_is_received;
        let seen = self.session();
        // What comes first on another connection is behind what the app is known to have.
        let is_first = seen.restarted && last < seen.base;
        let left_out: Vec<u32> = (last + 1..number)
            .filter(|it| !seen.missed.contains(it))
            .filter(|it| !is_first || seen.to_app.binary_search(it).is_err())
            .collect();
        // Where handled only means written, a connection that is cut takes some with it.
        let is_excused = is_lossy && is_first;
        let may_expire = |it: &u32| self.submitted.get(it).copied().unwrap_or(true);
        !is_excused && !left_out.iter().all(may_expire)
    }

    /// Returns whether the app may not get a message that it has had, or that was left out before.
    fn is_repeat_wrong(&mut self, number: u32) -> bool {
        let seen = self.session();
        let is_repeat = seen.to_app.binary_search(&number).is_ok();
        (is_repeat && seen.repeats == 0) || seen.missed.contains(&number)
    }

    /// Returns how many messages the client's code, and the app, can have acknowledged in this session.
    pub(super) fn handled_now(&mut self) -> (u64, u64) {
        let received = self.handled_is_received;
        let seen = self.session();
        let app = if received { seen.to_app.len() as u64 } else { u64::MAX };
        (seen.handled + seen.skipped, app)
    }

    /// Somebody orders a message.
    pub(super) fn order(&mut self, id: MessageId, bytes: usize) {
        let number = self.orders.len() as u32 + 1;
        self.orders.insert(id, number);
        self.order_sizes.insert(number, bytes);
    }

    /// Returns the bytes of those without an end.
    pub(super) fn order_bytes(&self) -> usize {
        self.order_sizes.values().sum()
    }

    /// When all is quiet: the app has each message that was not given an end without it.
    pub(super) fn check_all_arrived(&mut self) {
        // Where handled only means written, a connection that is cut takes some with it.
        if !self.handled_is_received && self.session().restarted {
            return;
        }
        let lacks = |number: &&u32| {
            !self.app_knows(**number)
                && !matches!(self.fates.get(number), Some(Fate::Refused(_) | Fate::Expired(_)))
        };
        if let Some(number) = self.submitted.range(self.base..).map(|(number, _)| number).find(lacks).copied()
        {
            self.object(Invariant::Progress, format!("the app lacks {number}"));
        }
    }

    fn first(&self, number: u32) -> u32 {
        self.firsts.get(&number).copied().unwrap_or(number)
    }

    /// Returns whether the app has a message, or one with its key.
    fn app_knows(&self, number: u32) -> bool {
        let first = self.first(number);
        self.app_has(first) || self.sessions.iter().any(|seen| seen.keys.contains_key(&first))
    }

    fn app_has(&self, number: u32) -> bool {
        self.sessions.iter().any(|seen| seen.to_app.contains(&number))
    }

    pub(super) fn fate(&mut self, number: u32, fate: Fate) {
        if let Some(before) = self.fates.insert(number, fate) {
            self.object(Invariant::OneEnd, format!("{number}: {before:?}, then {fate:?}"));
        }
        let truth = match fate {
            Fate::Handled => self.app_knows(number) || !self.handled_is_received,
            Fate::Refused(_) | Fate::Expired(Sent::No) => !self.app_has(number),
            Fate::Expired(Sent::Maybe) => true,
        };
        if !truth {
            self.object(Invariant::TrueEnd, format!("{number}: {fate:?}"));
        }
    }

    pub(super) fn end(&mut self, id: MessageId, outcome: Outcome) {
        let Some(&number) = self.orders.get(&id) else { return };
        if let Some(before) = self.ends.insert(id, outcome) {
            self.object(Invariant::OneEnd, format!("order {number}: {before:?}, then {outcome:?}"));
        }
        self.order_sizes.remove(&number);
        let got = self.orders_got.contains(&number);
        let truth = match outcome {
            Outcome::Delivered(Level::Handled) => self.orders_handled.contains(&number),
            Outcome::Delivered(Level::Received)
            | Outcome::Expired { sent: Sent::Maybe, reached: Some(Level::Received) } => {
                self.orders_read.contains(&number)
            }
            // Nobody asks the client's kernel here, and what was handled does not expire.
            Outcome::Delivered(Level::Kernel)
            | Outcome::Expired { reached: Some(Level::Kernel | Level::Handled), .. } => false,
            Outcome::Rejected => true,
            Outcome::Expired { sent: Sent::No, reached: None } => !got,
            Outcome::Expired { sent: Sent::No, reached: Some(_) } => false,
            Outcome::Expired { sent: Sent::Maybe, reached: None } => true,
        };
        if let Outcome::Rejected | Outcome::Expired { .. } = outcome {
            self.session().skipped += 1;
        }
        if !truth {
            self.object(Invariant::TrueEnd, format!("order {number}: {outcome:?}"));
        }
    }

    /// At the end of everything: each message has its end, and none that was told as not arrived came later.
    pub(super) fn close(&mut self) {
        for number in self.submitted.keys().copied().collect::<Vec<_>>() {
            match self.fates.get(&number).copied() {
                None => self.object(Invariant::OneEnd, format!("{number} has no end")),
                Some(Fate::Refused(_) | Fate::Expired(Sent::No)) if self.app_has(number) => {
                    self.object(Invariant::TrueEnd, format!("{number} came after all"));
                }
                Some(_) => {}
            }
        }
        for number in self.sessions.iter().flat_map(|seen| &seen.missed).copied().collect::<Vec<_>>() {
            let is_repeat = self.firsts.contains_key(&number);
            if self.handled_is_received && !is_repeat && self.fates.get(&number) == Some(&Fate::Handled) {
                self.object(
                    Invariant::TrueEnd,
                    format!("{number} is handled, and later ones came without it"),
                );
            }
        }
        for (id, number) in self.orders.clone() {
            match self.ends.get(&id) {
                None => self.object(Invariant::OneEnd, format!("order {number} has no end")),
                Some(Outcome::Expired { sent: Sent::No, .. }) if self.orders_got.contains(&number) => {
                    self.object(Invariant::TrueEnd, format!("order {number} came after all"));
                }
                Some(_) => {}
            }
        }
    }
}

/// Some messages have no bytes at all; those of the control API always have.
pub(super) fn is_empty(number: u32) -> bool {
    number % 13 == 7
}

/// Makes a message: who sent it, its number, and bytes that follow from both.
pub(super) fn write(kind: u8, number: u32, bytes: usize) -> (bool, Vec<u8>) {
    let text = !number.is_multiple_of(3);
    if is_empty(number) && kind != b'o' {
        return (text, Vec::new());
    }
    let mut payload = vec![kind];
    payload.extend_from_slice(format!("{number:08}").as_bytes());
    payload.extend((0..bytes).map(|at| b'a' + ((at as u32 + number) % 26) as u8));
    if !text {
        payload.push(0xff);
    }
    (text, payload)
}

/// Reads a message back; `None` if it is not what was written. One without bytes is the one that is expected, or wrong.
fn read(text: bool, payload: &[u8], from: u8, expected: u32) -> Option<(u8, u32)> {
    if payload.is_empty() {
        return (write(from, expected, 0) == (text, Vec::new())).then_some((from, expected));
    }
    let kind = *payload.first()?;
    let number: u32 = str::from_utf8(payload.get(1..9)?).ok()?.parse().ok()?;
    let rest = payload.len().checked_sub(9 + usize::from(!text))?;
    (write(kind, number, rest) == (text, payload.to_vec())).then_some((kind, number))
}
