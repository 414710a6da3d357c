//! Any faults, in any order.

use proptest::prelude::*;
use pulsegate_core::v1::Window;

use super::world::{Act, World};

fn acts(ends: bool) -> impl Strategy<Value = Vec<Act>> {
    let ttl = || proptest::option::weighted(0.3, 0u64..2000);
    let ending = move |act| Just(if ends { act } else { Act::Cut });
    let act = prop_oneof![
        6 => (ttl(), any::<bool>()).prop_map(|(ttl, ack_now)| Act::Submit(ttl, ack_now)),
        6 => ttl().prop_map(Act::Push),
        12 => (1usize..5).prop_map(Act::Transmit),
        12 => (1usize..8).prop_map(Act::Arrive),
        6 => (1usize..4).prop_map(Act::Handle),
        2 => Just(Act::Refuse),
        2 => Just(Act::Repeat),
        4 => (0u64..1500).prop_map(Act::Wait),
        2 => Just(Act::Cut),
        1 => Just(Act::Freeze),
        6 => proptest::bool::weighted(0.2).prop_map(Act::Dial),
        1 => prop_oneof![Just(4408), Just(4503), Just(1012), Just(4500)].prop_map(Act::Close),
        1 => prop_oneof![ending(Act::Close(4400)), ending(Act::Close(4429))],
        1 => ending(Act::Crash),
    ];
    proptest::collection::vec(act, 1..200)
}

fn window() -> impl Strategy<Value = Window> {
    (1usize..8, 1usize..100).prop_map(|(messages, bytes)| Window { messages, bytes })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    /// As long as the gateway keeps the session, it is always found again.
    #[test]
    fn a_session_outlives_all_faults(acts in acts(false), window in window(), manual: bool) {
        let mut world = World::new(window, manual);
        for act in acts {
            world.act(act);
            world.check_token();
        }
        world.heal();
    }

    /// A session that is gone takes with it what was not acknowledged, and says so.
    #[test]
    fn what_ends_with_its_session_is_told(acts in acts(true), window in window(), manual: bool) {
        let mut world = World::new(window, manual);
        for act in acts {
            world.act(act);
        }
        world.heal();
    }
}
