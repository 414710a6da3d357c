//! Windows on both sides of a line that is cut at any time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::v1::*;
use crate::{Level, Sent};

const RULES: AckRules = AckRules { messages: 3, kib: 1, delay: Duration::from_millis(750) };

#[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
fn origin() -> Instant {
    Instant::now()
}

fn message(tag: u32, bytes: usize, expires_at: Option<Instant>) -> Outgoing<u32> {
    let mut payload = tag.to_be_bytes().to_vec();
    payload.resize(4 + bytes, 0);
    Outgoing { text: false, payload: payload.into(), expires_at, ack_now: false, key: None, tag: Some(tag) }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Submits a message of so many bytes, with a time limit.
    Submit(usize, Option<u64>),
    /// Writes so many frames.
    Transmit(usize),
    /// Lets so many frames of each direction arrive.
    Arrive(usize),
    /// The receiver handles so many of what it has.
    Handle(usize),
    /// The receiver refuses the oldest message that it has not handled.
    Refuse,
    /// Time passes, and what is due is done.
    Wait(u64),
    /// The line is cut: what is under way is lost, and the receiver comes back. It may have forgotten what was not
    /// acknowledged, as a page that was reloaded.
    Cut(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0usize..40, proptest::option::weighted(0.3, 0u64..2000)).prop_map(|(bytes, ttl)| Act::Submit(bytes, ttl)),
        4 => (1usize..4).prop_map(Act::Transmit),
        4 => (1usize..6).prop_map(Act::Arrive),
        3 => (1usize..4).prop_map(Act::Handle),
        1 => Just(Act::Refuse),
        2 => (0u64..1500).prop_map(Act::Wait),
        1 => any::<bool>().prop_map(Act::Cut),
    ];
    proptest::collection::vec(act, 1..120)
}

enum Frame {
    Message(u32),
    Skip(u64),
}

enum Back {
    Ack(u64),
    Nack(u64),
}

struct World {
    now: Instant,
    window: Window,
    send: SendWindow<u32>,
    receive: ReceiveWindow,
    there: VecDeque<Frame>,
    back: VecDeque<Back>,
    submitted: u32,
    /// Delivered to the receiver, in order, without what it forgot.
    delivered: Vec<u32>,
    /// Passed on and not handled.
    waiting: VecDeque<(u64, u32)>,
    /// What the receiver has said of how much it handled, and what of that the sender knows.
    handled: Vec<u32>,
    fates: Vec<(u32, Fate)>,
}

impl World {
    fn new(window: Window) -> World {
        World {
            now: origin(),
            window,
            send: SendWindow::new(window),
            receive: ReceiveWindow::new(RULES),
            there: VecDeque::new(),
            back: VecDeque::new(),
            submitted: 0,
            delivered: Vec::new(),
            waiting: VecDeque::new(),
            handled: Vec::new(),
            fates: Vec::new(),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Submit(bytes, ttl) => {
                if self.send.has_room(bytes + 4) {
                    self.submitted += 1;
                    let expires_at = ttl.map(|ttl| self.now + Duration::from_millis(ttl));
                    self.send.push(message(self.submitted, bytes, expires_at), self.now);
                }
            }
            Act::Transmit(frames) => self.transmit(frames),
            Act::Arrive(frames) => {
                for _ in 0..frames {
                    self.arrive();
                }
            }
            Act::Handle(messages) => {
                for (_, tag) in self.waiting.drain(..messages.min(self.waiting.len())) {
                    self.handled.push(tag);
                }
                self.receive.handle_handled(self.handled.len() as u64, self.now);
                self.acknowledge();
            }
            Act::Refuse => {
                if let Some((seq, _)) = self.waiting.front() {
                    self.back.push_back(Back::Nack(*seq));
                }
            }
            Act::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                let fates = &mut self.fates;
                self.send.handle_timeout(self.now, &mut |tag, fate| fates.push((tag, fate)));
                assert!(self.send.poll_timeout().is_none_or(|at| at > self.now), "nothing is due twice");
                self.acknowledge();
            }
            Act::Cut(forgets) => self.cut(forgets),
        }
        self.check();
    }

    fn transmit(&mut self, frames: usize) {
        for _ in 0..frames {
            let fates = &mut self.fates;
            match self.send.poll_transmit(self.now, &mut |tag, fate| fates.push((tag, fate))) {
                None => assert!(!self.send.has_unsent()),
                Some(Transmit::Message { message, .. }) => {
                    assert!(message.expires_at.is_none_or(|at| at > self.now), "it was too late to leave");
                    self.there.push_back(Frame::Message(message.tag.unwrap()));
                }
                Some(Transmit::Skip { count, .. }) => self.there.push_back(Frame::Skip(count)),
            }
        }
    }

    fn arrive(&mut self) {
        match self.there.pop_front() {
            None => {}
            Some(Frame::Message(tag)) => {
                let seq = self.receive.handle_message(4, false);
                self.delivered.push(tag);
                self.waiting.push_back((seq, tag));
            }
            Some(Frame::Skip(count)) => {
                self.receive.handle_gap(count, self.now);
            }
        }
        let fates = &mut self.fates;
        let mut note = |tag, fate| fates.push((tag, fate));
        match self.back.pop_front() {
            None => {}
            Some(Back::Ack(handled)) => self.send.handle_ack(handled, &mut note).expect("it was sent"),
            Some(Back::Nack(seq)) => {
                self.send.handle_nack(seq, NackCode::AppGone, &mut note).expect("it was sent")
            }
        }
    }

    fn acknowledge(&mut self) {
        if let Some((ack, _)) = self.receive.poll_ack(self.now) {
            self.back.push_back(Back::Ack(ack.handled));
        }
        assert!(self.receive.poll_timeout().is_none_or(|at| at > self.now), "no ACK is due twice");
    }

    fn cut(&mut self, forgets: bool) {
        self.there.clear();
        self.back.clear();
        let received = self.receive.received();
        if forgets {
            // Only what it has not handled may it ask for again, and handled means acknowledged at the latest now.
            let acked = self.send.acked();
            assert!(self.send.resume(acked, self.now).is_ok());
            self.send.resume(received, self.now).unwrap();
        }
        assert_eq!(self.send.resume(self.send.reached() + 1, self.now), Err(PositionError));
        if let Some(too_old) = self.send.acked().checked_sub(1) {
            assert_eq!(self.send.resume(too_old, self.now), Err(PositionError));
        }
        self.send
            .resume(received, self.now)
            .expect("it has what was written and lacks nothing that was acknowledged");
        self.receive.resume(self.now);
    }

    fn check(&self) {
        // 1: in order, none twice.
        assert!(self.delivered.is_sorted_by(|one, next| one < next), "{:?}", self.delivered);
        // 2.
        assert!(self.send.acked() <= self.receive.handled());
        assert!(self.receive.handled() <= self.receive.received());
        assert!(self.receive.received() <= self.send.reached());
        // 3.
        assert!(self.send.len() <= self.window.messages);
        assert!(self.send.bytes() <= self.window.bytes || self.send.len() == 1, "{}", self.send.bytes());
        // 4, as far as it has come.
        for (tag, fate) in &self.fates {
            let arrived = self.delivered.contains(tag);
            match fate {
                Fate::Handled => assert!(self.handled.contains(tag), "{tag} was not handled"),
                Fate::Expired(Sent::No) => assert!(!arrived, "{tag} arrived"),
                Fate::Refused(_) => assert!(arrived),
                Fate::Expired(Sent::Maybe) => {}
            }
        }
    }

    /// The line works again, and everybody does what is due.
    fn heal(&mut self) {
        for _ in 0..300 {
            for act in [Act::Transmit(9), Act::Arrive(9), Act::Handle(9), Act::Arrive(9), Act::Wait(750)] {
                self.act(act);
            }
        }
        // 12.
        assert!(self.send.is_empty() && !self.send.has_unsent(), "{} are left", self.send.len());
        assert_eq!((self.send.bytes(), self.receive.unhandled()), (0, 0));
        let mut settled: Vec<u32> = self.fates.iter().map(|(tag, _)| *tag).collect();
        settled.sort_unstable();
        assert!(settled.iter().copied().eq(1..=self.submitted), "each has one end: {settled:?}");
        for tag in 1..=self.submitted {
            let expired = self.fates.contains(&(tag, Fate::Expired(Sent::No)));
            let maybe = self.fates.contains(&(tag, Fate::Expired(Sent::Maybe)));
            assert!(maybe || expired != self.delivered.contains(&tag), "{tag}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(acts in acts(), messages in 1usize..8, bytes in 1usize..120) {
        let mut world = World::new(Window { messages, bytes });
        for act in acts {
            world.act(act);
        }
        world.act(Act::Cut(false));
        world.heal();
    }

    /// What is left at the end has its end, too: what never left certainly did not arrive.
    #[test]
    fn an_end_settles_everything(acts in acts()) {
        let mut world = World::new(Window { messages: 6, bytes: 100 });
        for act in acts {
            world.act(act);
        }
        let fates = &mut world.fates;
        world.send.handle_end(&mut |tag, fate| fates.push((tag, fate)));
        world.check();
        prop_assert_eq!(world.fates.len(), world.submitted as usize);
    }
}

#[test]
fn acks_that_repeat_are_harmless_and_those_for_nothing_are_not() {
    let now = origin();
    let mut send = SendWindow::new(Window { messages: 8, bytes: 100 });
    let mut fates = Vec::new();
    for tag in 1..=4 {
        send.push(message(tag, 1, None), now);
    }
    for _ in 0..3 {
        send.poll_transmit(now, &mut |_, _| {});
    }
    let mut note = |tag, fate| fates.push((tag, fate));
    assert_eq!(send.handle_ack(4, &mut note), Err(AckError));
    assert_eq!(send.handle_nack(4, NackCode::Expired, &mut note), Err(AckError));
    assert_eq!(send.handle_nack(0, NackCode::Expired, &mut note), Err(AckError));
    for handled in [2, 1, 0, 2] {
        assert_eq!(send.handle_ack(handled, &mut note), Ok(()));
    }
    assert_eq!(send.handle_nack(1, NackCode::Expired, &mut note), Ok(()), "late, and harmless");
    assert_eq!(fates, [(1, Fate::Handled), (2, Fate::Handled)]);
    assert_eq!((send.acked(), send.len()), (2, 2));
}

#[test]
fn a_message_larger_than_the_window_goes_alone() {
    let now = origin();
    let mut send = SendWindow::new(Window { messages: 8, bytes: 10 });
    assert!(send.has_room(1000));
    send.push(message(1, 1000, None), now);
    assert!(!send.has_room(0));
    send.poll_transmit(now, &mut |_, _| {});
    send.handle_ack(1, &mut |_, _| {}).unwrap();
    assert!(send.has_room(10) && send.has_room(11));
    send.set_peer_window(Window { messages: 0, bytes: 0 });
    assert!(send.has_room(5), "one is always possible, or nothing would move again");
    send.push(message(2, 1, None), now);
    assert!(!send.has_room(1));
}

#[test]
fn what_was_pushed_before_the_window_was_told_waits_for_it() {
    let now = origin();
    let mut send = SendWindow::new(Window { messages: 8, bytes: 100 });
    for tag in 1..=4 {
        send.push(message(tag, 1, None), now);
    }
    let write = |send: &mut SendWindow<u32>| {
        std::iter::from_fn(|| send.poll_transmit(now, &mut |_, _| {}).map(drop)).count()
    };
    send.set_peer_window(Window { messages: 2, bytes: 100 });
    assert_eq!(write(&mut send), 2);
    send.handle_ack(1, &mut |_, _| {}).unwrap();
    assert_eq!(write(&mut send), 1);
    send.set_peer_window(Window { messages: 8, bytes: 12 });
    assert_eq!((write(&mut send), send.has_unsent()), (0, true), "ten bytes are under way, and it has five");
    send.resume(1, now).unwrap();
    send.set_peer_window(Window { messages: 2, bytes: 100 });
    assert_eq!(write(&mut send), 2);
    send.handle_ack(3, &mut |_, _| {}).unwrap();
    send.set_peer_window(Window { messages: 1, bytes: 0 });
    assert_eq!(write(&mut send), 1, "one is always possible");
}

#[test]
fn after_a_resume_the_ack_of_what_had_come_is_awaited() {
    let now = origin();
    let mut send = SendWindow::new(Window { messages: 8, bytes: 100 });
    send.push(message(1, 1, None), now);
    send.push(message(2, 1, None), now);
    while send.poll_transmit(now, &mut |_, _| {}).is_some() {}
    let later = now + Duration::from_secs(9);
    send.resume(1, later).unwrap();
    assert_eq!(send.oldest_sent_at(), Some(later));
    send.resume(0, later).unwrap();
    assert_eq!(send.oldest_sent_at(), None);
}

#[test]
fn after_the_end_there_is_nothing_to_write() {
    let now = origin();
    let mut send = SendWindow::new(Window { messages: 8, bytes: 100 });
    send.push(message(1, 1, None), now);
    assert!(send.poll_transmit(now, &mut |_, _| {}).is_some());
    send.handle_end(&mut |_, _| {});
    assert!(!send.has_unsent());
    assert_eq!(send.poll_transmit(now, &mut |_, _| {}), None);
    assert_eq!((send.handle_ack(1, &mut |_, _| {}), send.poll_timeout()), (Ok(()), None));
}

#[test]
fn an_ack_comes_for_many_for_much_in_time_and_when_asked() {
    let now = origin();
    let mut receive = ReceiveWindow::new(RULES);
    assert_eq!((receive.poll_timeout(), receive.poll_ack(now)), (None, None));
    receive.handle_message(10, false);
    assert_eq!(receive.poll_timeout(), None, "it is not handled");
    receive.handle_handled(1, now);
    assert_eq!(receive.poll_timeout(), Some(now + RULES.delay));
    assert_eq!(receive.poll_ack(now), None);
    receive.handle_probe();
    let ack = |handled| Ack { handled, window: None };
    assert_eq!(receive.poll_ack(now), Some((ack(1), true)));
    assert_eq!(receive.poll_ack(now), None);
    for _ in 0..3 {
        receive.handle_message(10, false);
    }
    receive.handle_handled(4, now);
    assert_eq!(receive.poll_ack(now), Some((ack(4), false)), "many");
    receive.handle_message(1024, false);
    receive.handle_handled(5, now);
    assert_eq!(receive.poll_ack(now), Some((ack(5), false)), "much");
    receive.handle_message(1, true);
    receive.handle_message(1, true);
    receive.handle_handled(6, now);
    assert_eq!(receive.poll_ack(now), Some((ack(6), false)), "at once");
    receive.handle_handled(7, now);
    assert_eq!(receive.poll_ack(now), Some((ack(7), false)), "each");
    receive.handle_message(1, false);
    receive.handle_handled(8, now);
    assert_eq!(receive.last_ack(), Some(ack(8)));
    assert_eq!(receive.last_ack(), None);
}

#[test]
fn a_skip_counts_as_handled_when_all_before_it_is() {
    let now = origin();
    let mut receive = ReceiveWindow::new(RULES);
    receive.handle_message(1, false);
    assert_eq!(receive.handle_gap(4, now), 5);
    assert_eq!(receive.handle_gap(1, now), 6);
    assert_eq!(receive.handled(), 0);
    receive.handle_message(1, false);
    receive.handle_gap(2, now);
    receive.handle_handled(1, now);
    assert_eq!((receive.handled(), receive.unhandled()), (6, 3));
    receive.handle_handled(2, now);
    assert_eq!((receive.handled(), receive.received()), (9, 9));
}

#[test]
fn levels_rise() {
    assert!(Level::Kernel < Level::Received && Level::Received < Level::Handled);
}
