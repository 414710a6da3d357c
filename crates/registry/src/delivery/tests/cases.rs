//! What is claimed is true, and everything has its end.

use super::*;

const NOT_CONFIRMED: Outcome = Outcome::Expired { sent: Sent::Maybe, reached: Some(Level::Kernel) };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_claimed_is_true_and_everything_has_its_end(
        moves in moves(),
        answers in answers(),
        confirm in prop_oneof![1 => Just(Confirm::Off), 1 => Just(Confirm::Kernel), 3 => Just(Confirm::Received)],
    ) {
        let mut world = World::new(answers, confirm);
        for step in moves {
            world.step(step);
        }
        world.drain();
        world.check_all_settled();
        prop_assert_eq!(world.lost, 0);
        prop_assert!(world.delivery.open.is_none(), "{:?}", world.delivery);
        prop_assert_eq!(world.delivery.poll_timeout(&world.rules, true), None);
        // Whatever went before: who answers is asked, and who does not is found out.
        let answered_before = world.answered;
        world.step(Move::Send { level: Level::Received, ttl_ms: 100 });
        world.drain();
        let last = world.outcomes.values().next_back().copied();
        let expected = match answers {
            Answers::Never => NOT_CONFIRMED,
            Answers::Once if answered_before > 0 => NOT_CONFIRMED,
            Answers::All | Answers::Latest | Answers::Oldest | Answers::Once => Outcome::Delivered(Level::Received),
        };
        prop_assert_eq!(last, Some(expected));
    }

    #[test]
    fn a_client_that_is_lost_settles_everything_at_once(moves in moves(), answers in answers()) {
        let mut world = World::new(answers, Confirm::Received);
        for step in moves {
            world.step(step);
        }
        world.tell(|delivery, rules, can_answer, _, notes| delivery.handle_end(rules, can_answer, notes));
        world.check_all_settled();
        prop_assert!(world.delivery.open.is_none());
    }
}

fn barriers(world: &World) -> Vec<ProbeId> {
    let line = world.line.iter();
    line.filter_map(|(frame, _)| if let Frame::Ping(id) = frame { Some(*id) } else { None }).collect()
}

/// RFC 6455 section 5.5.3: who has many pings to answer may answer the latest alone.
#[test]
fn the_answer_to_a_later_ping_is_one_to_the_barrier() {
    let mut world = World::new(Answers::Never, Confirm::Received);
    world.step(Move::Send { level: Level::Received, ttl_ms: 1000 });
    world.step(Move::Take);
    world.step(Move::Probe);
    world.step(Move::Send { level: Level::Received, ttl_ms: 1000 });
    let [_, probe] = barriers(&world)[..] else { panic!("one barrier and one probe") };
    world.step(Move::Arrive { but: 0 });
    (world.read, world.barrier) = (1, None);
    world.tell(|delivery, rules, _, _, notes| delivery.handle_pong(probe, rules, notes));
    world.step(Move::Wait { ms: 0 });
    assert_eq!(barriers(&world).len(), 3, "the second message has its own barrier at once");
}

#[test]
fn a_message_whose_time_is_over_gets_no_place() {
    let mut world = World::new(Answers::All, Confirm::Received);
    world.step(Move::Place(false));
    world.step(Move::Send { level: Level::Received, ttl_ms: 10 });
    assert_eq!(world.delivery.poll_message(world.now + SECOND), None);
}

#[test]
fn the_oldest_message_is_not_forgotten_among_many() {
    let mut world = World::new(Answers::Never, Confirm::Kernel);
    let start = world.now;
    for _ in 0..40 {
        world.step(Move::App(1));
        world.step(Move::Take);
        world.step(Move::Wait { ms: 300 });
    }
    let progress = world.delivery.progress();
    assert_eq!(progress.open, Unsettled { messages: 40, bytes: 400, since: Some(start) });
}

/// A line with so long a round trip that marks become one before the first is confirmed.
#[test]
fn a_steady_stream_is_confirmed_however_long_the_way_is() {
    let mut world = World::new(Answers::All, Confirm::Received);
    let mut open_max = Duration::ZERO;
    let mut arrivals = VecDeque::new();
    for _ in 0..1200 {
        world.step(Move::App(1));
        world.step(Move::Take);
        world.step(Move::Wait { ms: 50 });
        arrivals.push_back((world.now + 3 * SECOND, world.taken));
        while arrivals.front().is_some_and(|(at, _)| *at <= world.now) {
            world.arrived = arrivals.pop_front().map_or(0, |(_, place)| place);
        }
        world.step(Move::Look);
        world.step(Move::Read(100));
        let since = world.delivery.progress().open.since;
        open_max = open_max.max(since.map_or(Duration::ZERO, |since| world.now - since));
    }
    assert!(open_max < 10 * SECOND && world.confirmed > 900, "{open_max:?}, {} confirmed", world.confirmed);
}

/// The ping stands behind what a slow line takes its time for.
#[test]
fn a_barrier_has_its_time_from_when_it_has_left_and_arrived() {
    let mut world = World::new(Answers::All, Confirm::Received);
    world.step(Move::Send { level: Level::Received, ttl_ms: 1000 });
    for _ in 0..20 {
        world.step(Move::Wait { ms: 1000 });
    }
    world.step(Move::Take);
    world.arrived = 1;
    for _ in 0..20 {
        world.step(Move::Look);
        world.step(Move::Wait { ms: 1000 });
    }
    assert_eq!((world.pings, world.outcomes.len()), (1, 0));
    world.step(Move::Arrive { but: 0 });
    world.step(Move::Read(9));
    assert_eq!(world.outcomes.values().next(), Some(&Outcome::Delivered(Level::Received)));
}

#[test]
fn who_never_answers_is_asked_twice_and_no_more() {
    for (confirm, level) in [(Confirm::Received, Level::Received), (Confirm::Kernel, Level::Kernel)] {
        let mut world = World::new(Answers::Never, confirm);
        for _ in 0..50 {
            world.step(Move::Send { level, ttl_ms: 1000 });
            for step in [Move::Take, Move::Arrive { but: 0 }, Move::Look, Move::Wait { ms: 1000 }] {
                world.step(step);
            }
        }
        assert_eq!(world.pings, 2, "{confirm:?}");
    }
}
