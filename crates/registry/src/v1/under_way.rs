//! The client's messages that the app is not known to have.

use std::collections::VecDeque;
use std::time::Instant;

use super::ToApp;

/// They stay until the app has them, so that another connection of the app can be given them again.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    queue: VecDeque<Kept>,
    bytes: usize,
    /// So many of them, from the front, were given to the app's present connection or are dropped.
    given: usize,
    /// So many were dropped so far.
    dropped: u64,
    /// Repeats of those that wait.
    repeats: usize,
}

/// The key of a message that waits, and the numbers of those that came with the same one since. They share its fate.
#[derive(Debug)]
struct Keyed {
    key: Box<[u8]>,
    repeats: Vec<u64>,
}

#[derive(Debug)]
struct Kept {
    seq: u64,
    since: Instant,
    text: bool,
    /// A connection of the app has been given it.
    was_given: bool,
    /// It came too late for its time limit: the app never gets it.
    is_dropped: bool,
    bytes: usize,
    /// `None`: there is no other connection that could be given it.
    payload: Option<Box<[u8]>>,
    expires_at: Option<Instant>,
    keyed: Option<Box<Keyed>>,
}

impl UnderWay {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Their payload bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns when the oldest of them came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|kept| kept.since)
    }

    /// Returns how many were given to the app's present connection.
    pub(super) fn given(&self) -> usize {
        self.given
    }

    /// Returns whether a message that comes now may go to the app at once.
    pub(super) fn is_all_given(&self) -> bool {
        self.given == self.queue.len()
    }

    /// Returns how many, of all that came, no connection of the app was given so far.
    pub(super) fn unsent(&self) -> u64 {
        let waiting = self.queue.iter().skip(self.given).filter(|kept| kept.is_waiting());
        self.dropped + waiting.count() as u64
    }

    /// Takes a message that is given to the app at once.
    pub(super) fn push_given(&mut self, seq: u64, message: ToApp<'_>, keep: bool, now: Instant) {
        self.push(seq, message, keep, (None, None), now);
        self.given = self.queue.len();
        self.queue.back_mut().into_iter().for_each(|kept| kept.was_given = true);
    }

    /// Takes a message that waits.
    pub(super) fn push_waiting(
        &mut self,
        seq: u64,
        message: ToApp<'_>,
        expires_at: Option<Instant>,
        key: Option<Box<[u8]>>,
        now: Instant,
    ) {
        let keyed = key.map(|key| Box::new(Keyed { key, repeats: Vec::new() }));
        self.push(seq, message, true, (expires_at, keyed), now);
    }

    /// Takes the number of a message that came again. If the first one still waits, it waits for as long as the later of
    /// the two may.
    pub(super) fn repeat(&mut self, key: &[u8], seq: u64, expires_at: Option<Instant>) {
        let mut waiting = self.queue.iter_mut().skip(self.given).filter(|kept| kept.is_waiting());
        let first = waiting.find(|kept| kept.keyed.as_ref().is_some_and(|keyed| *keyed.key == *key));
        if let Some(Kept { keyed: Some(keyed), expires_at: until, .. }) = first {
            keyed.repeats.push(seq);
            self.repeats += 1;
            *until = until.zip(expires_at).map(|(one, other)| one.max(other));
        }
    }

    /// Returns how many messages the client has under way: these, and the repeats of those that wait.
    pub(super) fn with_repeats(&self) -> usize {
        self.queue.len() + self.repeats
    }

    fn push(
        &mut self,
        seq: u64,
        message: ToApp<'_>,
        keep: bool,
        (expires_at, keyed): (Option<Instant>, Option<Box<Keyed>>),
        now: Instant,
    ) {
        let ToApp { text, payload, .. } = message;
        self.bytes += payload.len();
        self.queue.push_back(Kept {
            seq,
            since: now,
            text,
            was_given: false,
            is_dropped: false,
            bytes: payload.len(),
            payload: keep.then(|| payload.into()),
            expires_at,
            keyed,
        });
    }

    /// Returns the size of the next that waits.
    pub(super) fn next_bytes(&mut self) -> Option<usize> {
        while self.queue.get(self.given)?.is_dropped {
            self.given += 1;
        }
        self.queue.get(self.given).map(|kept| kept.bytes)
    }

    /// Gives the next that waits, and whether a connection before this one was given it.
    pub(super) fn give(&mut self) -> Option<(ToApp<'_>, bool)> {
        self.next_bytes()?;
        let kept = self.queue.get_mut(self.given)?;
        self.given += 1;
        let again = std::mem::replace(&mut kept.was_given, true);
        self.repeats -= kept.keyed.take().map_or(0, |keyed| keyed.repeats.len());
        let payload = kept.payload.as_deref().unwrap_or_default();
        Some((ToApp { text: kept.text, payload, is_now: true }, again))
    }

    /// The app has so many more of those that were given to its present connection.
    pub(super) fn settle(&mut self, mut messages: u64) {
        while let Some(kept) = self.queue.pop_front_if(|kept| kept.is_dropped || messages > 0) {
            messages -= u64::from(!kept.is_dropped);
            self.bytes -= kept.bytes;
            self.given = self.given.saturating_sub(1);
        }
    }

    /// The app's connection is gone: all wait for the next. Returns how many had been given to it.
    pub(super) fn restart(&mut self) -> u64 {
        let given = std::mem::take(&mut self.given);
        self.queue.iter().take(given).filter(|kept| !kept.is_dropped).count() as u64
    }

    /// Returns how many the app may have although it was given them by an earlier connection.
    pub(super) fn repeats(&self) -> u64 {
        self.queue.iter().skip(self.given).take_while(|kept| kept.was_given || kept.is_dropped).count() as u64
    }

    /// Drops those whose time is over before any connection was given them; `dropped` gets their numbers and keys, and the
    /// numbers of their repeats.
    pub(super) fn expire(&mut self, now: Instant, mut dropped: impl FnMut(u64, Option<&[u8]>, &[u64])) {
        let is_over = |kept: &&mut Kept| kept.is_waiting() && is_due(kept, now);
        for kept in self.queue.iter_mut().skip(self.given).filter(is_over) {
            kept.is_dropped = true;
            self.bytes -= std::mem::take(&mut kept.bytes);
            kept.payload = None;
            self.dropped += 1;
            match kept.keyed.take() {
                Some(keyed) => {
                    self.repeats -= keyed.repeats.len();
                    dropped(kept.seq, Some(&keyed.key), &keyed.repeats);
                }
                None => dropped(kept.seq, None, &[]),
            }
        }
        self.settle(0);
    }

    /// Returns when [`expire`](UnderWay::expire) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.queue.iter().skip(self.given);
        waiting.filter(|kept| kept.is_waiting()).filter_map(|kept| kept.expires_at).min()
    }

    /// Nothing waits any more; `unsent` gets the numbers of those that no connection was given, and those of their repeats.
    /// Returns how many of the rest some connection was given, but not the present one.
    pub(super) fn give_up(&mut self, mut unsent: impl FnMut(u64, &[u64])) -> u64 {
        let given = std::mem::replace(&mut self.given, self.queue.len());
        let mut maybe = 0;
        for kept in self.queue.iter_mut().skip(given).filter(|kept| !kept.is_dropped) {
            match kept.was_given {
                true => maybe += 1,
                false => {
                    let keyed = kept.keyed.take();
                    let repeats = keyed.as_ref().map_or(&[][..], |keyed| &keyed.repeats);
                    self.repeats -= repeats.len();
                    unsent(kept.seq, repeats);
                }
            }
        }
        maybe
    }

    /// Gives back memory that is held for nothing.
    pub(super) fn shrink(&mut self) {
        self.queue.shrink_to_fit();
    }
}

impl Kept {
    /// No connection of the app was given it so far.
    fn is_waiting(&self) -> bool {
        !self.was_given && !self.is_dropped
    }
}

fn is_due(kept: &Kept, now: Instant) -> bool {
    kept.expires_at.is_some_and(|at| now >= at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(payload: &str) -> ToApp<'_> {
        ToApp { text: true, payload: payload.as_bytes(), is_now: false }
    }

    #[allow(clippy::disallowed_methods, reason = "an origin for times that nothing waits for")]
    fn now() -> Instant {
        Instant::now()
    }

    fn give_all(under_way: &mut UnderWay) -> Vec<(String, bool)> {
        std::iter::from_fn(|| {
            let (message, again) = under_way.give()?;
            Some((String::from_utf8(message.payload.to_vec()).unwrap(), again))
        })
        .collect()
    }

    fn pairs(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        expected.iter().map(|(text, again)| ((*text).to_owned(), *again)).collect()
    }

    #[test]
    fn what_is_not_settled_comes_again_in_order_and_first() {
        let mut under_way = UnderWay::default();
        for (seq, payload) in [(1, "a"), (2, "b"), (3, "c")] {
            under_way.push_given(seq, text(payload), true, now());
        }
        under_way.settle(1);
        assert_eq!((under_way.restart(), under_way.repeats()), (2, 2));
        under_way.push_waiting(4, text("d"), None, None, now());
        assert_eq!((under_way.repeats(), under_way.unsent(), under_way.bytes()), (2, 1, 3));
        assert_eq!(give_all(&mut under_way), pairs(&[("b", true), ("c", true), ("d", false)]));
        assert!(under_way.is_all_given() && under_way.unsent() == 0);
        under_way.settle(3);
        assert!(under_way.is_empty() && under_way.bytes() == 0);
    }

    #[test]
    fn what_is_too_old_is_dropped_unless_some_connection_was_given_it() {
        let soon = now() + Duration::from_secs(1);
        let mut under_way = UnderWay::default();
        under_way.push_waiting(1, text("given in time"), Some(soon), None, now());
        assert_eq!(give_all(&mut under_way).len(), 1);
        under_way.restart();
        under_way.push_waiting(2, text("too old"), Some(soon), None, now());
        under_way.push_waiting(3, text("patient"), None, None, now());
        assert_eq!(under_way.poll_timeout(), Some(soon));
        let mut dropped = Vec::new();
        under_way.expire(soon, |seq, _, _| dropped.push(seq));
        under_way.expire(soon, |seq, _, _| dropped.push(seq));
        assert_eq!((dropped, under_way.poll_timeout(), under_way.unsent()), (vec![2], None, 2));
        assert_eq!(give_all(&mut under_way), pairs(&[("given in time", true), ("patient", false)]));
        // The dropped one is passed with the one before it.
        under_way.settle(1);
        assert_eq!((under_way.len(), under_way.bytes()), (1, "patient".len()));
    }

    #[test]
    fn repeats_of_what_waits_share_its_fate() {
        let start = now();
        let at = |s| start + Duration::from_secs(s);
        let mut under_way = UnderWay::default();
        under_way.push_waiting(1, text("a"), Some(at(1)), Some(b"k"[..].into()), now());
        under_way.repeat(b"other", 2, None);
        under_way.repeat(b"k", 3, Some(at(3)));
        under_way.repeat(b"k", 4, Some(at(2)));
        assert_eq!((under_way.with_repeats(), under_way.poll_timeout()), (3, Some(at(3))));
        let mut dropped = Vec::new();
        let mut expire = |under_way: &mut UnderWay, s| {
            under_way.expire(at(s), |seq, key, repeats| {
                dropped.push((seq, key.map(<[u8]>::to_vec), repeats.to_vec()));
            });
        };
        expire(&mut under_way, 2);
        assert_eq!(under_way.with_repeats(), 3);
        expire(&mut under_way, 3);
        assert_eq!(
            (under_way.with_repeats(), &dropped[..]),
            (0, &[(1, Some(b"k".to_vec()), vec![3, 4])][..])
        );
        under_way.push_waiting(5, text("b"), Some(at(4)), Some(b"k"[..].into()), now());
        under_way.repeat(b"k", 6, None);
        assert_eq!(under_way.poll_timeout(), None, "it waits for as long as the patient one");
        assert_eq!(give_all(&mut under_way), pairs(&[("b", false)]));
        under_way.settle(1);
        assert_eq!(under_way.with_repeats(), 0);
    }

    #[test]
    fn who_gives_up_tells_apart_what_may_have_come_and_what_never_did() {
        let mut under_way = UnderWay::default();
        under_way.push_given(1, text("a"), true, now());
        under_way.restart();
        under_way.push_waiting(2, text("b"), None, None, now());
        let mut unsent = Vec::new();
        under_way.push_waiting(3, text("c"), None, Some(b"k"[..].into()), now());
        under_way.repeat(b"k", 4, None);
        assert_eq!(under_way.give_up(|seq, repeats| unsent.push((seq, repeats.to_vec()))), 1);
        assert_eq!((unsent, under_way.with_repeats()), (vec![(2, vec![]), (3, vec![4])], 3));
        assert_eq!(under_way.give_up(|_, _| panic!("told twice")), 0);
    }
}
