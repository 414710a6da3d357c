//! The checker is tested too: an honest run passes, and each planted bug is found for what it is.

use super::{History, Outcome, Totals, Way, Wrong};
use crate::clock;
use crate::message::Name;

const CLIENTS: usize = 3;
const MESSAGES: u64 = 3000;

/// The client with whom the bug is.
const VICTIM: usize = 1;

type Bug<'a> = &'a dyn Fn(&History);

/// What a receiver gets and a sender is told, in order.
#[derive(Clone, Debug)]
enum Step {
    Came(Name),
    Bytes(bool, Vec<u8>),
    Told(u64, Outcome),
}

fn name(client: usize, way: Way, number: u64) -> Name {
    Name { client, way, number }
}

/// All messages of one way, each acknowledged soon after it came, and some expired.
fn honest(client: usize, way: Way) -> Vec<Step> {
    let mut steps = Vec::new();
    for number in 1..=MESSAGES {
        let name = name(client, way, number);
        let outcome = match number % 160 {
            5 if way == Way::ToApp => Outcome::NotSent,
            21 if way == Way::ToApp => Outcome::Rejected,
            37 if way == Way::ToApp => Outcome::Unknown,
            _ => Outcome::Delivered,
        };
        if outcome == Outcome::Delivered {
            steps.push(Step::Came(name));
        }
        if way == Way::ToApp {
            steps.push(Step::Told(number, outcome));
        }
    }
    steps
}

fn place(steps: &[Step], wanted: u64) -> usize {
    let is_it = |step: &Step| matches!(step, Step::Came(name) if name.number == wanted);
    steps.iter().position(is_it).unwrap()
}

/// Runs everybody, the victim with a bug on one way, and returns what is found.
fn run(buggy: Way, bug: impl Fn(&mut Vec<Step>)) -> (History, Vec<Wrong>) {
    let now = clock();
    let history = History::new(CLIENTS, now);
    for client in 0..CLIENTS {
        history.live(client, false, now);
        history.app_opened(client, now);
        for way in Way::BOTH {
            for _ in 0..MESSAGES {
                history.send(client, way);
            }
            let mut steps = honest(client, way);
            if (client, way) == (VICTIM, buggy) {
                bug(&mut steps);
            }
            for step in steps {
                match step {
                    Step::Came(name) => {
                        history.arrive(client, way, 1, name.is_text(), &name.payload(), now);
                    }
                    Step::Bytes(text, bytes) => history.arrive(client, way, 1, text, &bytes, now),
                    Step::Told(number, outcome) => history.settle(client, number, outcome, now),
                }
            }
        }
    }
    history.finish(&[0, 1, 2], now);
    let complaints = history.complaints();
    assert!(complaints.iter().all(|complaint| complaint.client == VICTIM), "{complaints:?}");
    (history, complaints.into_iter().map(|complaint| complaint.wrong).collect())
}

fn first(buggy: Way, bug: impl Fn(&mut Vec<Step>)) -> Option<Wrong> {
    run(buggy, bug).1.first().copied()
}

#[test]
fn an_honest_run_is_found_honest() {
    let (history, found) = run(Way::ToApp, |_| {});
    assert_eq!(found, []);
    assert!(history.is_settled());
    let Totals { sent, arrived, outcomes, .. } = history.totals();
    assert_eq!(sent, [9000, 9000]);
    assert_eq!(outcomes, [9000 - 171, 114, 57], "one outcome each");
    assert_eq!(arrived, [9000 - 171, 9000]);
    assert!(
        history.totals().pieces < 1000,
        "{} ranges: it must not grow with what goes well",
        history.totals().pieces
    );
}

#[test]
fn each_thousandth_is_dropped() {
    for way in Way::BOTH {
        let drop = |steps: &mut Vec<Step>| {
            steps.retain(|step| !matches!(step, Step::Came(name) if name.number % 1000 == 0));
        };
        // Towards the app its sender was told that it came.
        let expected = if way == Way::ToApp { Wrong::FalseAck } else { Wrong::Lost };
        assert_eq!(first(way, drop), Some(expected));
    }
}

#[test]
fn one_that_nobody_acknowledged_is_dropped() {
    let drop = |steps: &mut Vec<Step>| {
        steps.retain(|step| match step {
            Step::Came(name) => name.number != 1000,
            Step::Told(number, _) => *number != 1000,
            Step::Bytes(..) => true,
        });
    };
    let (history, found) = run(Way::ToApp, drop);
    assert_eq!(found, [Wrong::NoOutcome, Wrong::Lost]);
    assert!(history.complaints()[1].text.contains("1 of 3000 are lost, the first is 1000"));
}

#[test]
fn the_last_ones_are_dropped() {
    for way in Way::BOTH {
        let cut = |steps: &mut Vec<Step>| {
            steps.retain(|step| match step {
                Step::Came(name) => name.number <= MESSAGES - 2,
                Step::Told(number, _) => *number <= MESSAGES - 2,
                Step::Bytes(..) => true,
            });
        };
        assert_eq!(run(way, cut).1.last(), Some(&Wrong::Lost));
    }
}

#[test]
fn two_are_swapped() {
    for way in Way::BOTH {
        let swap = |steps: &mut Vec<Step>| {
            steps.retain(|step| !matches!(step, Step::Told(7..9, _)));
            let (seven, eight) = (place(steps, 7), place(steps, 8));
            steps.swap(seven, eight);
        };
        assert!(run(way, swap).1.contains(&Wrong::Order));
    }
}

#[test]
fn one_is_delivered_twice() {
    for way in Way::BOTH {
        for number in [8, 64, 2999, 3000] {
            let repeat = |steps: &mut Vec<Step>| {
                let at = place(steps, number);
                steps.insert(at + 1, steps[at].clone());
            };
            // All without bytes look alike: a second one passes for the next.
            let expected = match (number, way) {
                (64, Way::ToClient) => Wrong::Lost,
                (64, Way::ToApp) => Wrong::Order,
                _ => Wrong::Twice,
            };
            assert_eq!(first(way, repeat), Some(expected), "{number}");
        }
    }
}

#[test]
fn an_early_one_is_delivered_again_at_the_end() {
    let repeat = |steps: &mut Vec<Step>| steps.push(Step::Came(name(VICTIM, Way::ToApp, 17)));
    assert_eq!(first(Way::ToApp, repeat), Some(Wrong::Twice));
}

#[test]
fn an_ack_is_claimed_that_never_came() {
    let claim = |steps: &mut Vec<Step>| {
        let at = place(steps, 1000);
        steps.swap(at, at + 1);
    };
    assert_eq!(first(Way::ToApp, claim), Some(Wrong::FalseAck), "before the app has it");
    let claim = |steps: &mut Vec<Step>| {
        let at = steps.iter().position(|step| matches!(step, Step::Told(_, Outcome::Unknown))).unwrap();
        let Step::Told(number, _) = steps[at] else { panic!() };
        steps[at] = Step::Told(number, Outcome::Delivered);
    };
    assert_eq!(first(Way::ToApp, claim), Some(Wrong::FalseAck), "of one that was lost");
}

#[test]
fn one_is_delivered_to_another() {
    for way in Way::BOTH {
        let stray = |steps: &mut Vec<Step>| {
            let at = place(steps, 7);
            steps.insert(at, Step::Came(name(VICTIM + 1, way, 7)));
        };
        assert_eq!(first(way, stray), Some(Wrong::Another));
        let back = |steps: &mut Vec<Step>| {
            let other = Way::BOTH.into_iter().find(|one| *one != way).unwrap();
            let at = place(steps, 7);
            steps.insert(at, Step::Came(name(VICTIM, other, 7)));
        };
        assert_eq!(first(way, back), Some(Wrong::Another));
    }
}

#[test]
fn a_message_has_two_outcomes() {
    for second in [Outcome::Delivered, Outcome::NotSent, Outcome::Unknown, Outcome::Rejected] {
        let again = |steps: &mut Vec<Step>| steps.push(Step::Told(100, second));
        assert_eq!(run(Way::ToApp, again).1, [Wrong::SecondOutcome]);
    }
}

#[test]
fn one_is_called_expired_that_was_delivered() {
    for outcome in [Outcome::NotSent, Outcome::Rejected] {
        for early in [false, true] {
            let lie = |steps: &mut Vec<Step>| {
                let at = place(steps, 101);
                steps[at + 1] = Step::Told(101, outcome);
                if early {
                    steps.swap(at, at + 1);
                }
            };
            assert_eq!(first(Way::ToApp, lie), Some(Wrong::FalseExpiry));
        }
    }
}

#[test]
fn what_was_never_sent_is_found() {
    let next = name(VICTIM, Way::ToClient, MESSAGES + 1);
    assert_eq!(first(Way::ToClient, |steps| steps.push(Step::Came(next))), Some(Wrong::NeverSent));
    for number in [0, MESSAGES + 1] {
        let told = |steps: &mut Vec<Step>| steps.push(Step::Told(number, Outcome::Delivered));
        assert_eq!(first(Way::ToApp, told), Some(Wrong::NeverSent));
    }
}

#[test]
fn a_byte_is_changed() {
    let message = name(VICTIM, Way::ToClient, 9);
    for at in [0, message.payload().len() - 1] {
        let change = |steps: &mut Vec<Step>| {
            let mut bytes = message.payload();
            bytes[at] ^= 0x40;
            let place = place(steps, 9);
            steps[place] = Step::Bytes(message.is_text(), bytes);
        };
        assert_eq!(first(Way::ToClient, change), Some(Wrong::Changed));
    }
    let kind = |steps: &mut Vec<Step>| {
        let place = place(steps, 9);
        steps[place] = Step::Bytes(!message.is_text(), message.payload());
    };
    assert_eq!(first(Way::ToClient, kind), Some(Wrong::Changed));
}

#[test]
fn what_happens_to_connections_is_judged() {
    let now = clock();
    let cases: [(Bug<'_>, Wrong); 6] = [
        (&|history| assert_eq!(history.app_opened(1, now), 2), Wrong::Owners),
        (&|history| history.app_closed(1, now), Wrong::Ended),
        (&|history| assert_eq!(history.live(1, false, now), 2), Wrong::Ended),
        (&|history| history.ended(1, "4410".to_owned(), now), Wrong::Ended),
        (&|history| history.arrive(1, Way::ToClient, 0, true, b"", now), Wrong::OldConnection),
        (&|history| history.arrive(1, Way::ToApp, 2, true, b"", now), Wrong::OldConnection),
    ];
    for (bug, expected) in cases {
        let history = History::new(2, now);
        for client in 0..2 {
            history.live(client, false, now);
            history.app_opened(client, now);
        }
        bug(&history);
        let complaints = history.complaints();
        assert_eq!((complaints.len(), complaints[0].wrong, complaints[0].client), (1, expected, 1));
    }
    let history = History::new(1, now);
    history.live(0, false, now);
    history.app_opened(0, now);
    history.live(0, true, now);
    history.over(0);
    history.app_closed(0, now);
    assert_eq!(history.complaint_count(), 0, "that is as it should be");
    assert_eq!(history.totals().resumes, 1);
}

#[test]
fn a_registry_that_is_not_the_reality_is_found() {
    let now = clock();
    for (listed, complaints) in [(&[0, 1][..], 0), (&[0], 1), (&[0, 1, 1], 1), (&[0, 1, 7], 1), (&[], 2)] {
        let history = History::new(2, now);
        history.finish(listed, now);
        let found = history.complaints();
        assert_eq!(found.len(), complaints, "{listed:?}");
        assert!(found.iter().all(|complaint| complaint.wrong == Wrong::Registry));
    }
}

#[test]
fn it_waits_until_everything_has_come_and_is_told() {
    let now = clock();
    let history = History::new(1, now);
    assert!(history.is_settled());
    let message = name(0, Way::ToApp, history.send(0, Way::ToApp));
    history.app_opened(0, now);
    assert!(!history.is_settled());
    history.arrive(0, Way::ToApp, 1, message.is_text(), &message.payload(), now);
    assert!(!history.is_settled(), "nobody was told");
    history.settle(0, 1, Outcome::Delivered, now);
    assert!(history.is_settled());
    history.send(0, Way::ToClient);
    assert!(!history.is_settled());
}
