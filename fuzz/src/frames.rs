//! The frame reader against a second opinion.

use std::io::Cursor;

use pulsegate_core::{
    CloseFrame, Direction, FrameLimits, FrameReader, Head, Opcode, ReservedBits, Step, Violation,
    write_control,
};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::CloseCode;

/// What [`Step::Wait`] promises that a driver has to keep at most.
const KEPT_BYTES_MAX: usize = 139;

/// Bytes of options before the frames.
const OPTION_BYTES: usize = 8;

/// Reads frames in three ways (at once, byte by byte, in slices of the input's choice) and asserts:
/// - all three tell the same, so nothing depends on where the reads split;
/// - data frames come out byte for byte, in order, once; control frames whole, unmasked right;
/// - payload bytes and messages are counted right, and `is_between_frames` is true just there;
/// - a violation is reported if and only if the frame breaks that rule (heads are read by tungstenite).
///
/// The input is 8 bytes of options, then the bytes of one direction:
/// flags (1 from the app, 2 permessage-deflate, 4 any reserved bit, 8 stop between frames),
/// frame limit and message limit as powers of two, fragments limit, and four lengths of slices.
pub fn frames(input: &[u8]) {
    let Some((options, wire)) = input.split_at_checked(OPTION_BYTES) else { return };
    let rules = Rules::new(options);
    let expected = rules.expected(wire);
    let slices: Vec<usize> = options[4..].iter().map(|&len| usize::from(len).max(1)).collect();
    for slices in [&[wire.len().max(1)], &[1][..], &slices] {
        let told = rules.walk(wire, slices);
        assert_eq!(told.forwarded, expected.forwarded, "data in slices of {slices:?}");
        assert_eq!(told.control, expected.control, "control frames in slices of {slices:?}");
        assert_eq!(
            (told.payload_bytes, told.messages),
            (expected.payload_bytes, expected.messages),
            "counts in slices of {slices:?}"
        );
        match told.violation {
            Some(violation) => assert!(
                expected.broken.contains(&violation),
                "{violation:?} in slices of {slices:?}, but broken is {:?}",
                expected.broken
            ),
            None => assert_eq!(expected.broken, [], "nothing found in slices of {slices:?}"),
        }
    }
}

struct Rules {
    direction: Direction,
    reserved: ReservedBits,
    limits: FrameLimits,
    stop_between_frames: bool,
}

/// What a walk over the frames has told.
#[derive(Default)]
struct Told {
    forwarded: Vec<u8>,
    control: Vec<(Opcode, Vec<u8>)>,
    payload_bytes: u64,
    messages: u64,
    violation: Option<Violation>,
}

/// What a walk should tell.
#[derive(Default)]
struct Expected {
    forwarded: Vec<u8>,
    control: Vec<(Opcode, Vec<u8>)>,
    payload_bytes: u64,
    messages: u64,
    /// All rules that the first bad frame breaks.
    broken: Vec<Violation>,
}

impl Rules {
    fn new(options: &[u8]) -> Rules {
        let flags = options[0];
        Rules {
            direction: if flags & 1 == 0 { Direction::FromClient } else { Direction::FromApp },
            reserved: match flags & 6 {
                0 => ReservedBits::None,
                2 => ReservedBits::Deflate,
                _ => ReservedBits::Any,
            },
            limits: FrameLimits {
                frame_bytes_max: 1 << (options[1] % 64),
                message_bytes_max: 1 << (options[2] % 64),
                fragments_max: u32::from(options[3]).max(1),
            },
            stop_between_frames: flags & 8 != 0,
        }
    }

    /// Feeds the reader as the driver does.
    fn walk(&self, wire: &[u8], slices: &[usize]) -> Told {
        let mut reader = FrameReader::new(self.direction, self.reserved, self.limits);
        let mut told = Told::default();
        let mut kept = Vec::new();
        let mut rest = wire;
        for &slice in slices.iter().cycle() {
            let (read, behind) = rest.split_at(slice.min(rest.len()));
            kept.extend_from_slice(read);
            rest = behind;
            let mut used = 0;
            loop {
                match reader.next(&kept[used..], self.stop_between_frames) {
                    Ok(Step::Data { len, payload_bytes, messages }) => {
                        assert!(len > 0, "a step of nothing never ends");
                        assert!(!self.stop_between_frames || messages <= 1, "a run goes on behind a frame");
                        told.forwarded.extend_from_slice(&kept[used..used + len]);
                        told.payload_bytes += payload_bytes;
                        told.messages += u64::from(messages);
                        used += len;
                    }
                    Ok(Step::Control { head, len }) => {
                        assert!(reader.is_between_frames(), "a control frame within a frame");
                        told.control.push((head.opcode, control_payload(head, &kept[used..used + len])));
                        used += len;
                    }
                    Ok(Step::Wait) => break,
                    Err(violation) => {
                        told.violation = Some(violation);
                        return told;
                    }
                }
            }
            kept.drain(..used);
            assert!(kept.len() <= KEPT_BYTES_MAX, "{} bytes are kept", kept.len());
            if rest.is_empty() {
                break;
            }
        }
        let inside = self.ends_within_payload(wire);
        assert_eq!(reader.is_between_frames(), !inside, "between frames at the end");
        told
    }

    /// Walks with tungstenite's reader of heads and rules of our own, over the whole input at once.
    fn expected(&self, wire: &[u8]) -> Expected {
        let mut expected = Expected::default();
        let mut message: Option<(u64, u32)> = None;
        let mut at = 0;
        loop {
            let rest = &wire[at..];
            let (header, payload_len, head_len) = match parse(rest) {
                Parsed::Head(header, payload_len, head_len) => (header, payload_len, head_len),
                Parsed::Unfinished => return expected,
                Parsed::Invalid(violation) => {
                    expected.broken = vec![violation];
                    return expected;
                }
            };
            expected.broken = self.broken(&header, payload_len, message);
            if !expected.broken.is_empty() {
                return expected;
            }
            let here = usize::try_from(payload_len).unwrap_or(usize::MAX).min(rest.len() - head_len);
            let whole = here as u64 == payload_len;
            let end = at + head_len + here;
            match opcode(&header) {
                control @ (Opcode::Close | Opcode::Ping | Opcode::Pong) => {
                    if !whole {
                        return expected;
                    }
                    let key = header.mask.unwrap_or_default();
                    let payload = wire[at + head_len..end].iter().zip(key.iter().cycle());
                    expected.control.push((control, payload.map(|(byte, key)| byte ^ key).collect()));
                }
                Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                    let (bytes, fragments) = message.unwrap_or_default();
                    message = Some((bytes + payload_len, fragments + 1));
                    expected.forwarded.extend_from_slice(&wire[at..end]);
                    expected.payload_bytes += here as u64;
                    if whole && header.is_final {
                        message = None;
                        expected.messages += 1;
                    }
                }
            }
            at = end;
        }
    }

    /// Every rule that a frame breaks after `message` (bytes and fragments so far).
    fn broken(&self, header: &FrameHeader, len: u64, message: Option<(u64, u32)>) -> Vec<Violation> {
        let opcode = opcode(header);
        let starts = matches!(opcode, Opcode::Text | Opcode::Binary);
        let (bytes, fragments) = message.unwrap_or_default();
        let from_client = self.direction == Direction::FromClient;
        let rsv1_allowed = match self.reserved {
            ReservedBits::None => false,
            ReservedBits::Deflate => starts,
            ReservedBits::Any => true,
        };
        let others_allowed = self.reserved == ReservedBits::Any;
        let control = opcode.is_control();
        let rules = [
            (from_client && header.mask.is_none(), Violation::MaskMissing),
            (!from_client && header.mask.is_some(), Violation::MaskUnexpected),
            (header.rsv1 && !rsv1_allowed, Violation::ReservedBit),
            ((header.rsv2 || header.rsv3) && !others_allowed, Violation::ReservedBit),
            (control && !header.is_final, Violation::ControlFragmented),
            (control && len > 125, Violation::ControlTooLong),
            (!control && !starts && message.is_none(), Violation::StrayContinuation),
            (starts && message.is_some(), Violation::InterruptedMessage),
            (!control && len > self.limits.frame_bytes_max, Violation::FrameTooBig),
            (!control && bytes.saturating_add(len) > self.limits.message_bytes_max, Violation::MessageTooBig),
            (!control && fragments >= self.limits.fragments_max, Violation::TooManyFragments),
        ];
        rules.into_iter().filter_map(|(broken, violation)| broken.then_some(violation)).collect()
    }

    /// Tells whether the input, which broke no rule, ends before the payload of a data frame does.
    fn ends_within_payload(&self, wire: &[u8]) -> bool {
        let mut rest = wire;
        while let Parsed::Head(header, payload_len, head_len) = parse(rest) {
            let behind = &rest[head_len..];
            match usize::try_from(payload_len).ok().and_then(|len| behind.get(len..)) {
                Some(next) => rest = next,
                None => return !opcode(&header).is_control(),
            }
        }
        false
    }
}

enum Parsed {
    Head(FrameHeader, u64, usize),
    Unfinished,
    Invalid(Violation),
}

/// Reads a head with tungstenite, which leaves two rules to others: a length in its shortest form, and at most
/// 2^63 - 1. Both, and the opcode, are told before the rest of the head has come.
fn parse(wire: &[u8]) -> Parsed {
    let mut cursor = Cursor::new(wire);
    let parsed = FrameHeader::parse(&mut cursor);
    let (len_bytes, least) = match wire {
        [first, ..] if wire.len() >= 2 && matches!(first & 0xf, 3..=7 | 0xb..=0xf) => {
            assert!(!matches!(parsed, Ok(Some(_))), "tungstenite takes a reserved opcode");
            return Parsed::Invalid(Violation::ReservedOpcode);
        }
        [_, second, ..] if second & 0x7f == 126 => (wire.get(2..4), 126),
        [_, second, ..] if second & 0x7f == 127 => (wire.get(2..10), 1 << 16),
        _ => (None, 0),
    };
    if let Some(bytes) = len_bytes {
        let len = bytes.iter().fold(0u64, |len, byte| len << 8 | u64::from(*byte));
        if len < least || len > i64::MAX as u64 {
            return Parsed::Invalid(Violation::InvalidLength);
        }
    }
    match parsed {
        Ok(Some((header, len))) => {
            let head_len = cursor.position() as usize;
            let ours = Head::parse(wire).expect("tungstenite takes it").expect("tungstenite finds it whole");
            assert_eq!((ours.head_len, ours.payload_len, ours.mask), (head_len, len, header.mask));
            Parsed::Head(header, len, head_len)
        }
        Ok(None) => Parsed::Unfinished,
        Err(error) => unreachable!("a head of known opcode: {error}"),
    }
}

fn opcode(header: &FrameHeader) -> Opcode {
    match u8::from(header.opcode) {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xA => Opcode::Pong,
        reserved => unreachable!("opcode {reserved}"),
    }
}

/// Unmasks a control frame; writing it again gives the same bytes, and a Close says what it says.
fn control_payload(head: Head, frame: &[u8]) -> Vec<u8> {
    let mut payload = frame[head.head_len..].to_vec();
    head.unmask(&mut payload);
    let mut again = Vec::new();
    write_control(&mut again, head.opcode, &payload, head.mask);
    // An extension's bits are not ours to write.
    again[0] |= head.reserved << 4;
    // RFC 6455 section 5.2 lets no control frame use a longer form of its length.
    assert_eq!(again, frame, "a control frame written again");
    if head.opcode == Opcode::Close {
        check_close(&payload);
    }
    payload
}

fn check_close(payload: &[u8]) {
    let parsed = CloseFrame::parse(payload);
    let sound = match payload {
        [] => true,
        [_] => false,
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // tungstenite does not know 1014, which is registered.
            let may_be_sent = code == 1014 || CloseCode::from(code).is_allowed();
            may_be_sent && std::str::from_utf8(reason).is_ok()
        }
    };
    assert_eq!(parsed.is_ok(), sound, "{parsed:?} of {payload:?}");
    if let Ok(Some(close)) = parsed {
        let mut again = Vec::new();
        close.write_payload(&mut again);
        assert_eq!(again, payload, "a Close written again");
        assert_eq!(CloseFrame::new(close.code, &close.reason), close, "no reason is cut that has come whole");
    }
}
