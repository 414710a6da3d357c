//! What really happened, and what may not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pulsegate_core::v1::Fate;
use pulsegate_core::{Level, MessageId, Outcome, Sent};

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
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) sessions: Vec<Seen>,
    /// The client's messages, with those that may expire.
    pub(super) submitted: BTreeMap<u32, bool>,
    /// Handled means that the app has read it, and not only that it was written.
    handled_is_received: bool,
    fates: BTreeMap<u32, Fate>,
    /// Messages of the control API, by the number in their payload.
    pub(super) orders: BTreeMap<MessageId, u32>,
    ends: BTreeMap<MessageId, Outcome>,
    orders_got: BTreeSet<u32>,
    pub(super) objection: Option<Objection>,
}

impl Oracle {
    pub(super) fn new(handled_is_received: bool) -> Oracle {
        Oracle { handled_is_received, ..Oracle::default() }
    }

    pub(super) fn object(&mut self, invariant: Invariant, what: impl Into<String>) {
        self.objection.get_or_insert(Objection { invariant, what: what.into() });
    }

    fn session(&mut self) -> &mut Seen {
        if self.sessions.is_empty() {
            self.sessions.push(Seen::default());
        }
        self.sessions.last_mut().expect("there is one")
    }

    /// The client's code took a message.
    pub(super) fn client_got(&mut self, text: bool, payload: &[u8]) {
        let Some((kind, number)) = read(text, payload) else {
            self.object(
                Invariant::Bytes,
                format!("{} bytes to the client are not what the app sent", payload.len()),
            );
            return;
        };
        if kind == b'o' {
            if !self.orders_got.insert(number) {
                self.object(Invariant::Order, format!("order {number} came twice"));
            }
            return;
        }
        let got = &mut self.session().to_client;
        let expected = got.last().map_or(1, |last| last + 1);
        got.push(number);
        if number != expected {
            self.object(Invariant::Order, format!("the client got {number} instead of {expected}"));
        }
    }

    /// The app took a message.
    pub(super) fn app_got(&mut self, text: bool, payload: &[u8]) {
        let Some((_, number)) = read(text, payload) else {
            self.object(
                Invariant::Bytes,
                format!("{} bytes to the app are not what the client sent", payload.len()),
            );
            return;
        };
        let got = &mut self.session().to_app;
        let last = got.last().copied();
        got.push(number);
        let Some(last) = last else { return };
        let skipped = (last + 1..number).any(|missed| !self.submitted.get(&missed).copied().unwrap_or(false));
        if number <= last || skipped {
            self.object(Invariant::Order, format!("the app got {number} behind {last}"));
        }
    }

    fn app_has(&self, number: u32) -> bool {
        self.sessions.iter().any(|seen| seen.to_app.contains(&number))
    }

    pub(super) fn fate(&mut self, number: u32, fate: Fate) {
        if let Some(before) = self.fates.insert(number, fate) {
            self.object(Invariant::OneEnd, format!("{number}: {before:?}, then {fate:?}"));
        }
        let truth = match fate {
            Fate::Handled => self.app_has(number) || !self.handled_is_received,
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
        let got = self.orders_got.contains(&number);
        let truth = match outcome {
            Outcome::Delivered(Level::Handled) => got,
            Outcome::Delivered(Level::Kernel | Level::Received) => false,
            Outcome::Rejected => true,
            Outcome::Expired { sent: Sent::No, .. } => !got,
            Outcome::Expired { sent: Sent::Maybe, .. } => true,
        };
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

/// Makes a message: who sent it, its number, and bytes that follow from both.
pub(super) fn write(kind: u8, number: u32, bytes: usize) -> (bool, Vec<u8>) {
    let text = !number.is_multiple_of(3);
    let mut payload = vec![kind];
    payload.extend_from_slice(format!("{number:08}").as_bytes());
    payload.extend((0..bytes).map(|at| b'a' + ((at as u32 + number) % 26) as u8));
    if !text {
        payload.push(0xff);
    }
    (text, payload)
}

/// Reads a message back; `None` if it is not what was written.
fn read(text: bool, payload: &[u8]) -> Option<(u8, u32)> {
    let kind = *payload.first()?;
    let number: u32 = str::from_utf8(payload.get(1..9)?).ok()?.parse().ok()?;
    let rest = payload.len().checked_sub(9 + usize::from(!text))?;
    (write(kind, number, rest) == (text, payload.to_vec())).then_some((kind, number))
}
