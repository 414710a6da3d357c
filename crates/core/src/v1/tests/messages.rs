//! Messages put together from frames.

use proptest::prelude::*;

use crate::v1::{Assembler, Piece};
use crate::{
    Direction, FrameLimits, FrameReader, Opcode, ReservedBits, Violation, write_control, write_message,
};

const LIMITS: FrameLimits =
    FrameLimits { frame_bytes_max: 100_000, message_bytes_max: 200_000, fragments_max: 50 };

/// Text or not, and the payload.
type Message = (bool, Vec<u8>);

/// Feeds `wire` in the given slices as a driver does; returns the messages, and how many control frames came.
fn walk(wire: &[u8], slices: &[usize], from: Direction) -> Result<(Vec<Message>, usize), Violation> {
    let mut reader = FrameReader::new(from, ReservedBits::None, LIMITS);
    let (mut assembler, mut kept, mut at, mut turn) = (Assembler::default(), Vec::new(), 0, 0);
    let (mut messages, mut controls) = (Vec::new(), 0);
    while at < wire.len() {
        let take = slices[turn % slices.len()].min(wire.len() - at);
        turn += 1;
        kept.extend_from_slice(&wire[at..at + take]);
        at += take;
        let mut start = 0;
        loop {
            start += match assembler.next(&mut reader, &mut kept[start..])? {
                Piece::Message { text, payload, used } => {
                    messages.push((text, payload.to_vec()));
                    used
                }
                Piece::Part { used } => used,
                Piece::Control { used, .. } => {
                    controls += 1;
                    used
                }
                Piece::Wait => break,
            };
            assembler.shrink(&reader);
        }
        kept.drain(..start);
    }
    Ok((messages, controls))
}

/// One message in the given fragments, with a ping between them.
fn fragments(out: &mut Vec<u8>, text: bool, payload: &[u8], cuts: usize, mask: Option<[u8; 4]>) {
    let size = payload.len().div_ceil(cuts).max(1);
    let parts: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(size).collect() };
    for (place, part) in parts.iter().enumerate() {
        let start = out.len();
        write_message(out, text, &[part], mask);
        let opcode = if place == 0 { out[start] & 0x0f } else { 0 };
        out[start] = opcode | if place + 1 == parts.len() { 0x80 } else { 0 };
        write_control(out, Opcode::Ping, b"between", mask);
    }
}

proptest! {
    /// Invariant 8: opcode and bytes are the same, for all sizes at which heads change, in any fragments and reads.
    #[test]
    fn opcode_and_bytes_stay_the_same(
        sizes in proptest::collection::vec((prop_oneof![Just(0usize), Just(1), Just(125), Just(126), Just(65_535), Just(65_536), 0usize..400], 1usize..5, any::<bool>()), 1..5),
        slices in proptest::collection::vec(1usize..70_000, 1..20), mask: Option<[u8; 4]>) {
        let from = if mask.is_some() { Direction::FromClient } else { Direction::FromApp };
        let (mut wire, mut expected, mut pings) = (Vec::new(), Vec::new(), 0);
        for (n, (size, cuts, text)) in sizes.iter().enumerate() {
            let payload: Vec<u8> = (0..*size).map(|at| if *text { b'a' + (at % 26) as u8 } else { (at + n) as u8 }).collect();
            let before = wire.len();
            fragments(&mut wire, *text, &payload, *cuts, mask);
            prop_assert!(wire.len() > before);
            pings += if payload.is_empty() { 1 } else { payload.len().div_ceil(payload.len().div_ceil(*cuts).max(1)) };
            expected.push((*text, payload));
        }
        let (messages, controls) = walk(&wire, &slices, from).expect("all is valid");
        prop_assert!(messages == expected, "messages differ");
        prop_assert_eq!(controls, pings);
    }
}

#[test]
fn text_is_utf_8_as_a_whole() {
    let mut wire = Vec::new();
    fragments(&mut wire, true, "aü".as_bytes(), 3, None);
    assert!(walk(&wire, &[1], Direction::FromApp).is_ok(), "cut within a character");
    for bad in [&[0xc3][..], &[0xff], &[0xed, 0xa0, 0x80]] {
        for cuts in [1, 3] {
            let mut wire = Vec::new();
            fragments(&mut wire, true, bad, cuts, Some([1, 2, 3, 4]));
            assert_eq!(walk(&wire, &[100], Direction::FromClient), Err(Violation::InvalidUtf8));
        }
    }
}
