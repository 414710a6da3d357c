//! Confirmation against clients of all kinds, in virtual time: the clients and the line; [`cases`] has the tests.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use pulsegate_core::IdSource;

use super::*;

mod cases;

const SECOND: Duration = Duration::from_secs(1);

const RULES: DeliveryRules =
    DeliveryRules { confirm: Confirm::Received, interval: SECOND, answer_within: Duration::from_secs(5) };

/// Which of the pings that it reads together a client answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    All,
    Latest,
    Oldest,
    /// Only the first of all.
    Once,
    Never,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    /// The app sends messages of ten bytes.
    App(u64),
    /// Somebody sends one and waits for this level.
    Send {
        level: Level,
        ttl_ms: u64,
    },
    /// There is a place between two messages, or none for a while.
    Place(bool),
    /// The socket takes everything.
    Take,
    /// The kernel is asked.
    Look,
    /// The client's kernel gets all that the socket took, but so many bytes.
    Arrive {
        but: u64,
    },
    /// The client reads so many frames.
    Read(usize),
    /// A liveness probe goes out.
    Probe,
    Wait {
        ms: u64,
    },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let level = prop_oneof![1 => Just(Level::Kernel), 3 => Just(Level::Received)];
    let one = prop_oneof![
        4 => (1u64..4).prop_map(Move::App),
        3 => (level, 0u64..3_000).prop_map(|(level, ttl_ms)| Move::Send { level, ttl_ms }),
        1 => any::<bool>().prop_map(Move::Place),
        4 => Just(Move::Take),
        3 => Just(Move::Look),
        3 => (0u64..25).prop_map(|but| Move::Arrive { but }),
        4 => (0usize..6).prop_map(Move::Read),
        1 => Just(Move::Probe),
        3 => (0u64..900).prop_map(|ms| Move::Wait { ms }),
    ];
    prop::collection::vec(one, 0..150)
}

fn answers() -> impl Strategy<Value = Answers> {
    use Answers::{All, Latest, Never, Oldest, Once};
    prop_oneof![2 => Just(All), 1 => Just(Latest), 1 => Just(Oldest), 1 => Just(Once), 1 => Just(Never)]
}

enum Frame {
    Message(u64),
    Ping(ProbeId),
}

struct World {
    now: Instant,
    delivery: Delivery,
    rules: DeliveryRules,
    answers: Answers,
    /// Known to the detector; here from the start, or never.
    can_answer: bool,
    ids: IdSource,
    place: bool,
    /// Written by us: frames with the place at which each ends.
    line: VecDeque<(Frame, u64)>,
    written: u64,
    taken: u64,
    arrived: u64,
    /// Messages passed on, in the client's kernel, and read by its stack.
    passed: u64,
    read: u64,
    answered: u64,
    pings: u64,
    barrier: Option<(ProbeId, Instant)>,
    /// Where each message of ours came in the stream.
    numbers: BTreeMap<MessageId, Option<u64>>,
    ends: BTreeMap<u64, u64>,
    outcomes: BTreeMap<MessageId, Outcome>,
    app: u64,
    confirmed: u64,
    lost: u64,
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
    fn new(answers: Answers, confirm: Confirm) -> World {
        World {
            now: Instant::now(),
            delivery: Delivery::default(),
            rules: DeliveryRules { confirm, ..RULES },
            answers,
            can_answer: true,
            ids: IdSource::new(1, 1),
            place: true,
            line: VecDeque::new(),
            written: 0,
            taken: 0,
            arrived: 0,
            passed: 0,
            read: 0,
            answered: 0,
            pings: 0,
            barrier: None,
            numbers: BTreeMap::new(),
            ends: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            app: 0,
            confirmed: 0,
            lost: 0,
        }
    }

    /// Lets the machine do something, and holds what it tells against the truth.
    fn tell(&mut self, work: impl FnOnce(&mut Delivery, &DeliveryRules, bool, Instant, Notes<'_>)) {
        let mut notes = Vec::new();
        work(&mut self.delivery, &self.rules, self.can_answer, self.now, &mut |note| notes.push(note));
        for note in notes {
            match note {
                DeliveryNote::Sent(id) => {
                    let number = self.numbers[&id].expect("it has a place");
                    assert!(self.ends[&number] <= self.taken && !self.outcomes.contains_key(&id));
                }
                DeliveryNote::Settled(id, outcome) => {
                    let number = self.numbers[&id];
                    match outcome {
                        Outcome::Expired { sent: Sent::No, reached } => {
                            assert_eq!((number, reached), (None, None))
                        }
                        Outcome::Expired { sent: Sent::Maybe, reached } => self.check(number, reached),
                        Outcome::Delivered(level) => self.check(number, Some(level)),
                        Outcome::Rejected => panic!("nobody refuses"),
                    }
                    assert_eq!(self.outcomes.insert(id, outcome), None, "{id} has two ends");
                }
                DeliveryNote::Confirmed(level, messages) => {
                    self.confirmed += messages;
                    assert!(messages > 0 && level <= Level::Received);
                }
                DeliveryNote::Lost(messages) => self.lost += messages,
                note @ (DeliveryNote::Unsent(_) | DeliveryNote::Rejected(_)) => {
                    panic!("{note:?}: only of v1")
                }
            }
        }
        let progress = self.delivery.progress();
        assert!(progress.received <= self.read, "{progress:?} is not read");
        assert!(progress.sent == self.passed && progress.received <= progress.kernel);
        let there = self.ends.range(..=progress.kernel).next_back().map_or(0, |(_, end)| *end);
        assert!(there <= self.arrived, "{progress:?} is not there");
    }

    fn check(&self, number: Option<u64>, reached: Option<Level>) {
        let number = number.expect("only what left can have come anywhere");
        match reached {
            Some(Level::Received) => assert!(number <= self.read, "message {number} is not read"),
            Some(Level::Kernel) => {
                assert!(self.ends[&number] <= self.arrived, "message {number} is not there")
            }
            Some(Level::Handled) => panic!("nobody can know that"),
            None => {}
        }
    }

    fn write(&mut self, frame: Frame, bytes: u64) {
        self.written += bytes;
        if let Frame::Message(number) = frame {
            self.ends.insert(number, self.written);
        }
        self.line.push_back((frame, self.written));
    }

    fn step(&mut self, step: Move) {
        match step {
            Move::App(messages) => {
                self.app += messages;
                for _ in 0..messages {
                    self.passed += 1;
                    self.write(Frame::Message(self.passed), 12);
                }
                self.tell(|delivery, rules, _, now, _| {
                    delivery.handle_passed(messages, messages * 10, rules, now)
                });
            }
            Move::Send { level, ttl_ms } => {
                let id = self.ids.next_message();
                self.numbers.insert(id, None);
                let expires_at = self.now + Duration::from_millis(ttl_ms);
                let payload = Bytes::from_static(b"ten bytes.");
                self.delivery.send(Message { id, text: true, payload, level, expires_at });
            }
            Move::Place(place) => self.place = place,
            Move::Take => {
                self.taken = self.written;
                let position = self.taken;
                self.tell(|delivery, _, _, now, notes| delivery.handle_taken(position, now, notes));
            }
            Move::Look => {
                let arrived = self.arrived;
                self.tell(|delivery, rules, can_answer, _, notes| {
                    delivery.handle_acked(arrived, rules, can_answer, notes);
                });
            }
            Move::Arrive { but } => self.arrived = self.arrived.max(self.taken.saturating_sub(but)),
            Move::Read(frames) => self.read(frames),
            Move::Probe => {
                let id = self.overtaking_ping();
                self.delivery.handle_probe(id);
            }
            Move::Wait { ms } => self.now += Duration::from_millis(ms),
        }
        self.serve();
    }

    fn ping(&mut self) -> ProbeId {
        self.pings += 1;
        let id = ProbeId::from_payload(self.pings.to_be_bytes());
        self.write(Frame::Ping(id), 10);
        id
    }

    /// A ping that goes ahead of what the socket has not taken.
    fn overtaking_ping(&mut self) -> ProbeId {
        self.pings += 1;
        let id = ProbeId::from_payload(self.pings.to_be_bytes());
        let place = self.line.iter().position(|(_, end)| *end > self.taken).unwrap_or(self.line.len());
        for (_, end) in self.line.iter_mut().skip(place) {
            *end += 10;
        }
        for end in self.ends.values_mut().filter(|end| **end > self.taken) {
            *end += 10;
        }
        self.line.insert(place, (Frame::Ping(id), self.taken + 10));
        self.written += 10;
        id
    }

    /// What a driver does on each turn.
    fn serve(&mut self) {
        self.tell(|delivery, rules, can_answer, now, notes| {
            delivery.handle_timeout(rules, can_answer, true, now, notes);
        });
        let due = self.delivery.poll_timeout(&self.rules, self.can_answer);
        assert!(due.is_none_or(|at| at > self.now), "what is due has been done");
        if !self.place {
            return;
        }
        while let Some(message) = self.delivery.poll_message(self.now) {
            assert!(message.expires_at > self.now, "it should have expired");
            self.passed += 1;
            self.numbers.insert(message.id, Some(self.passed));
            self.write(Frame::Message(self.passed), 12);
        }
        if self.delivery.wants_barrier(self.can_answer) {
            let over = self.barrier.is_none_or(|(_, at)| self.now >= at + self.rules.answer_within);
            assert!(over, "two barriers are out");
            let id = self.ping();
            self.barrier = Some((id, self.now));
            self.delivery.handle_barrier(id);
            assert!(!self.delivery.wants_barrier(self.can_answer));
        }
    }

    fn read(&mut self, frames: usize) {
        let mut pings = Vec::new();
        for _ in 0..frames {
            match self.line.front() {
                Some((_, end)) if *end <= self.arrived => {}
                Some(_) | None => break,
            }
            match self.line.pop_front() {
                Some((Frame::Message(number), _)) => self.read = number,
                Some((Frame::Ping(id), _)) => pings.push(id),
                None => {}
            }
        }
        let answered = match self.answers {
            Answers::All => pings,
            Answers::Latest => pings.last().copied().into_iter().collect(),
            Answers::Oldest => pings.first().copied().into_iter().collect(),
            Answers::Once if self.answered == 0 => pings.first().copied().into_iter().collect(),
            Answers::Once | Answers::Never => Vec::new(),
        };
        for id in answered {
            self.answered += 1;
            if self.barrier.is_some_and(|(barrier, _)| id.to_payload() >= barrier.to_payload()) {
                self.barrier = None;
            }
            self.tell(|delivery, rules, _, _, notes| delivery.handle_pong(id, rules, notes));
            // A pong that is told twice says nothing new.
            self.tell(|delivery, rules, _, _, notes| delivery.handle_pong(id, rules, notes));
        }
    }

    /// The line is good from now on.
    fn drain(&mut self) {
        self.place = true;
        for _ in 0..80 {
            for step in
                [Move::Take, Move::Arrive { but: 0 }, Move::Look, Move::Read(1000), Move::Wait { ms: 500 }]
            {
                self.step(step);
            }
        }
    }

    fn check_all_settled(&self) {
        let settled: Vec<_> = self.outcomes.keys().collect();
        assert_eq!(settled, self.numbers.keys().collect::<Vec<_>>(), "each message ends once");
        let followed = if self.rules.confirm == Confirm::Off { 0 } else { self.app };
        assert_eq!(self.confirmed + self.lost, followed);
    }
}
