//! Messages of the control API on the client's connection: how far each is known to have come before the client's code says
//! that it has handled it. A connection is followed from the first of them on that wants to know.

use std::time::{Duration, Instant};

use pulsegate_core::{Level, MessageId, Outcome};
use pulsegate_heartbeat::{KernelView, PongHabit, ProbeId};

use super::client::ClientLeg;
use super::{Author, V1Limits, V1Note, V1Session};
use crate::delivery::{Confirm, Delivery, DeliveryNote, DeliveryRules};
use crate::session::Note;

/// A message of the control API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: MessageId,
    /// As far as it has to come.
    pub(super) level: Level,
    /// As far as it has come.
    pub(super) reached: Option<Level>,
}

fn rules(limits: &V1Limits) -> DeliveryRules {
    let answer_within = limits.session.client.verdict_after;
    DeliveryRules { confirm: Confirm::Off, interval: Duration::ZERO, answer_within }
}

impl ClientLeg {
    fn can_answer(&self) -> bool {
        self.watched.detector.pong_habit() != PongHabit::Never
    }

    fn wants_barrier(&self) -> bool {
        self.delivery.as_ref().is_some_and(|delivery| delivery.wants_barrier(self.can_answer()))
    }

    /// A message goes out, of the control API if `asked` says so.
    pub(super) fn note_passed(
        &mut self,
        asked: Option<Asked>,
        bytes: usize,
        limits: &V1Limits,
        now: Instant,
    ) {
        match asked.filter(|asked| asked.level < Level::Handled) {
            Some(Asked { id, level, .. }) => {
                self.delivery.get_or_insert_default().follow(id, level, bytes as u64, now);
            }
            None => {
                if let Some(delivery) = &mut self.delivery {
                    delivery.handle_passed(1, bytes as u64, &rules(limits), now);
                }
            }
        }
    }
}

impl V1Session {
    /// Takes note that the client's socket has taken everything that was written to it.
    pub fn handle_client_taken(&mut self, now: Instant) {
        let Some(client) = &self.client else { return };
        let position = client.watched.detector.written();
        self.follow_client(|delivery, _, _, notes| delivery.handle_taken(position, now, notes));
    }

    pub(super) fn note_client_probe(&mut self, id: ProbeId) {
        self.follow_client(|delivery, _, _, _| delivery.handle_probe(id));
    }

    pub(super) fn note_client_pong(&mut self, id: ProbeId) {
        self.follow_client(|delivery, rules, _, notes| delivery.handle_pong(id, rules, notes));
    }

    /// Returns the ping that asks how far the client's stack has read, if one is wanted: write it behind everything else.
    pub fn poll_client_barrier(&mut self, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        let client = self.client.as_mut().filter(|client| client.wants_barrier())?;
        let id = client.watched.detector.poll_barrier(now, ahead, len)?;
        self.follow_client(|delivery, _, _, _| delivery.handle_barrier(id));
        Some(id)
    }

    pub(super) fn handle_client_delivery_timeout(&mut self, kernel: Option<KernelView>, now: Instant) {
        let Some(client) = &self.client else { return };
        let acked = kernel.map(|kernel| client.watched.detector.delivered(kernel));
        self.follow_client(|delivery, rules, can_answer, notes| {
            if let Some(acked) = acked {
                delivery.handle_acked(acked, rules, can_answer, notes);
            }
            delivery.handle_timeout(rules, can_answer, true, now, notes);
        });
    }

    pub(super) fn poll_client_delivery_timeout(&self) -> Option<Instant> {
        let client = self.client.as_ref()?;
        client.delivery.as_ref()?.poll_timeout(&rules(&self.limits), client.can_answer())
    }

    /// The connection is over: what came no further yet may come further on the next.
    pub(super) fn end_client_delivery(&mut self) {
        self.follow_client(|delivery, rules, can_answer, notes| {
            delivery.handle_end(rules, can_answer, notes);
        });
    }

    /// What a client says that it has, when it comes back, its stack has read.
    pub(super) fn note_client_has(&mut self, received: u64) {
        let V1Session { out, notes, .. } = self;
        out.for_each_tag(|seq, tag| {
            if seq <= received {
                reach(tag, Level::Received, notes);
            }
        });
    }

    fn follow_client(
        &mut self,
        work: impl FnOnce(&mut Delivery, &DeliveryRules, bool, &mut dyn FnMut(DeliveryNote)),
    ) {
        let Some(client) = &mut self.client else { return };
        let can_answer = client.can_answer();
        let Some(delivery) = &mut client.delivery else { return };
        // What has no level, or not the one it should have, may still get there: its end is that of its number.
        let mut news = Vec::new();
        work(delivery, &rules(&self.limits), can_answer, &mut |note| {
            if let DeliveryNote::Settled(id, outcome) = note
                && let Some(level) = outcome.level()
            {
                news.push((id, level));
            }
        });
        let V1Session { out, notes, .. } = self;
        for (id, level) in news {
            out.for_each_tag(|_, tag| {
                if matches!(tag, Some(Author::Order(asked)) if asked.id == id) {
                    reach(tag, level, notes);
                }
            });
        }
    }
}

/// A message has come so far; if that is far enough, that is its end.
fn reach(tag: &mut Option<Author>, level: Level, notes: &mut std::collections::VecDeque<V1Note>) {
    let Some(Author::Order(asked)) = tag else { return };
    if level >= asked.level {
        let outcome = Outcome::Delivered(level);
        notes.push_back(V1Note::Session(Note::Delivery(DeliveryNote::Settled(asked.id, outcome))));
        *tag = None;
    } else {
        asked.reached = asked.reached.max(Some(level));
    }
}
