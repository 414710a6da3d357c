//! One way of one session: what was sent, what came out, and what its sender was told.

use super::ranges::Ranges;
use super::{Found, Outcome, Way, Wrong};
use crate::message::Name;

/// The numbers of one way. As large as what went wrong or expired, not as what went well.
#[derive(Debug, Default)]
pub(super) struct Track {
    sent: u64,
    /// The highest number that came out.
    latest: u64,
    /// Passed over by a later one.
    missing: Ranges,
    /// Told: delivered.
    delivered: Ranges,
    /// Told: never given to the app.
    never: Ranges,
    /// Told: nobody knows.
    unknown: Ranges,
}

impl Track {
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn arrived(&self) -> u64 {
        self.latest - self.missing.len()
    }

    pub(super) fn outcomes(&self) -> [u64; 3] {
        [self.delivered.len(), self.never.len(), self.unknown.len()]
    }

    /// Returns how many ranges it keeps.
    pub(super) fn pieces(&self) -> usize {
        [&self.missing, &self.delivered, &self.never, &self.unknown].iter().map(|set| set.pieces()).sum()
    }

    pub(super) fn send(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Judges what came out at the end that belongs to `client`.
    pub(super) fn arrive(
        &mut self,
        client: usize,
        way: Way,
        text: bool,
        payload: &[u8],
    ) -> Result<(), Found> {
        let due = Name { client, way, number: self.latest + 1 };
        // The common case costs one comparison.
        let name = if due.is(text, payload) { due } else { self.identify(due, text, payload)? };
        let number = name.number;
        if number > self.sent {
            return Err(Wrong::NeverSent.of(format!("number {number} came, {} were sent", self.sent)));
        }
        if number <= self.latest {
            return Err(if self.missing.contains(number) {
                Wrong::Order.of(format!("number {number} came behind {}", self.latest))
            } else {
                Wrong::Twice.of(format!("number {number} came again, {} was due", self.latest + 1))
            });
        }
        let hole = (self.latest + 1, number - 1);
        self.latest = number;
        if hole.0 <= hole.1 {
            self.missing.insert(hole.0, hole.1);
            self.judge_hole(hole, way)?;
        }
        match self.never.contains(number) {
            true => {
                Err(Wrong::FalseExpiry
                    .of(format!("number {number} came, its sender was told it never would")))
            }
            false => Ok(()),
        }
    }

    /// Says which message it is that is not the one that was due.
    fn identify(&self, due: Name, text: bool, payload: &[u8]) -> Result<Name, Found> {
        let name = match payload.is_empty() {
            // The next without bytes: all of them look alike.
            true => (due.number..).map(|number| Name { number, ..due }).find(|name| name.is_empty()),
            false => Name::read(payload),
        };
        let shown = || String::from_utf8_lossy(&payload[..payload.len().min(40)]).into_owned();
        match name {
            None => Err(Wrong::Changed.of(format!("{:?} came, which nobody says", shown()))),
            Some(name) if (name.client, name.way) != (due.client, due.way) => {
                Err(Wrong::Another.of(format!("{:?} came, which is another's", shown())))
            }
            Some(name) if !name.is(text, payload) => {
                Err(Wrong::Changed
                    .of(format!("number {} came with other bytes or as another kind", name.number)))
            }
            Some(name) => Ok(name),
        }
    }

    /// What is passed over must be allowed to expire, and nobody may have been told that it arrived.
    fn judge_hole(&self, (first, last): (u64, u64), way: Way) -> Result<(), Found> {
        if way == Way::ToClient {
            return Err(Wrong::Lost.of(format!("{first} to {last} were passed over")));
        }
        match (first..=last).find(|&number| self.delivered.contains(number)) {
            Some(number) => {
                Err(Wrong::FalseAck.of(format!("number {number} was acknowledged and passed over")))
            }
            None => Ok(()),
        }
    }

    /// Judges what a sender is told.
    pub(super) fn settle(&mut self, number: u64, outcome: Outcome) -> Result<(), Found> {
        if number == 0 || number > self.sent {
            return Err(Wrong::NeverSent.of(format!("an outcome for {number}, {} were sent", self.sent)));
        }
        if [&self.delivered, &self.never, &self.unknown].iter().any(|told| told.contains(number)) {
            return Err(Wrong::SecondOutcome.of(format!("number {number} has a second outcome, {outcome:?}")));
        }
        let came = number <= self.latest && !self.missing.contains(number);
        match outcome {
            Outcome::Delivered => {
                self.delivered.insert(number, number);
                if !came {
                    return Err(
                        Wrong::FalseAck.of(format!("number {number} was acknowledged before the app had it"))
                    );
                }
            }
            Outcome::NotSent | Outcome::Rejected => {
                self.never.insert(number, number);
                if came {
                    let told = format!("number {number} came, its sender is told {outcome:?}");
                    return Err(Wrong::FalseExpiry.of(told));
                }
            }
            Outcome::Unknown => self.unknown.insert(number, number),
        }
        Ok(())
    }

    /// Whether all that was sent has arrived, or its sender knows why not.
    pub(super) fn is_settled(&self, way: Way) -> bool {
        match way {
            Way::ToClient => self.arrived() == self.sent,
            Way::ToApp => {
                let told: u64 = self.outcomes().iter().sum();
                told == self.sent && self.arrived() + self.not_arrived().count() as u64 >= self.sent
            }
        }
    }

    /// Judges the whole when all is quiet.
    pub(super) fn finish(&self, way: Way) -> Vec<Found> {
        let mut found = Vec::new();
        if way == Way::ToApp {
            let told: u64 = self.outcomes().iter().sum();
            if told != self.sent {
                found.push(Wrong::NoOutcome.of(format!("{told} outcomes for {} messages", self.sent)));
            }
        }
        let tail = self.latest + 1..=self.sent;
        let lost: Vec<u64> =
            self.missing.iter().chain(tail).filter(|&number| !self.may_be_missing(number)).collect();
        if let Some(first) = lost.first() {
            found.push(Wrong::Lost.of(format!(
                "{} of {} are lost, the first is {first}",
                lost.len(),
                self.sent
            )));
        }
        found
    }

    fn may_be_missing(&self, number: u64) -> bool {
        self.never.contains(number) || self.unknown.contains(number)
    }

    /// Returns those whose sender was told that they may not have come, and which did not.
    fn not_arrived(&self) -> impl Iterator<Item = u64> {
        let came = |number: u64| number <= self.latest && !self.missing.contains(number);
        self.never.iter().chain(self.unknown.iter()).filter(move |&number| !came(number))
    }
}
