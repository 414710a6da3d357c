//! What goes wrong, until it heals.

use super::line::Frame;
use super::world::World;
use crate::{MS, NEVER, SECOND, Time};

/// How long it takes at most until a line that is dead for good is given up by both sides, or by neither but by its end.
const DEAD_FOR: Time = 12 * SECOND;

/// Old words that are kept to be said again.
const STALE_MAX: usize = 8;

impl World {
    pub(super) fn fault(&mut self) {
        let long = self.draw(3 * SECOND);
        let until = self.now + long;
        let line = self.client.line;
        let kind = self.random.u32(0..100);
        self.tell(|| format!("fault {kind} for {} ms", long / MS));
        match (kind, line) {
            (0..25, Some(place)) => self.lines[place].cut(self.now),
            (25..34, Some(place)) => self.lines[place].up.hold(until),
            (34..43, Some(place)) => self.lines[place].down.hold(until),
            (43..58, Some(place)) => {
                self.lines[place].up.hold(until);
                self.lines[place].down.hold(until);
            }
            (58..64, Some(place)) => return self.die(place, kind),
            (64..72, _) => self.gateway.stalled_until = self.gateway.stalled_until.max(until),
            (72..80, _) => self.client.hung_until = until * 2 - self.now,
            (80..86, _) => self.client.frozen_until = until,
            (86..90, _) if self.plan.holds() => self.app_leaves(kind < 88, until),
            (86..94, _) => self.app.paused_until = until,
            (94, _) => self.app_leaves(true, until),
            (95, _) => self.app_leaves(false, until),
            (96, _) if self.random.u32(0..4) == 0 => self.kick(),
            _ => return,
        }
        self.trouble_until = self.trouble_until.max(until * 2 - self.now);
    }

    /// A line that never heals, in one direction or both.
    fn die(&mut self, place: usize, kind: u32) {
        self.count("dead lines");
        if kind != 58 {
            self.lines[place].up.hold(NEVER);
        }
        if kind != 59 {
            self.lines[place].down.hold(NEVER);
        }
        self.trouble_until = self.trouble_until.max(self.now + DEAD_FOR);
    }

    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.tell(|| "healed".to_owned());
        for line in &mut self.lines {
            line.up.heal(self.now);
            line.down.heal(self.now);
            line.breaks_after = None;
        }
        self.gateway.stalled_until = self.gateway.stalled_until.min(self.now);
        self.client.hung_until = self.client.hung_until.min(self.now);
        self.client.frozen_until = self.client.frozen_until.min(self.now);
        self.app.paused_until = self.now;
        self.app_down_until = self.now;
    }

    /// Says an old word again now and then: ACK, PROBE, PROBE_ACK and NACK may come late and twice.
    pub(super) fn stale_word(&mut self, up: bool, frame: &Frame) -> Option<Frame> {
        let Frame::Word(word) = frame else { return None };
        if !matches!(word.first(), Some(1..=3 | 6)) {
            return None;
        }
        self.check_ack(up, word);
        let old = &mut self.stale[usize::from(up)];
        if old.len() == STALE_MAX {
            old.pop_front();
        }
        old.push_back(word.clone());
        if !self.is_busy() || self.random.u32(0..10) != 0 {
            return None;
        }
        self.count("stale words");
        let old = &self.stale[usize::from(up)];
        Some(Frame::Word(old[self.random.usize(0..old.len())].clone()))
    }
}
