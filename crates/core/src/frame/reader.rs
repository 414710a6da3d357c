//! Walks the frames of one direction without touching their payload.

use std::sync::Arc;

use super::head::CONTROL_BYTES_MAX;
use super::{Head, Opcode, Violation};

/// RSV1, in the numbering of [`Head::reserved`].
const RSV1: u8 = 4;

/// Who sends to whom: clients mask, servers don't (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Frames that a client sent.
    FromClient,
    /// Frames that the app sent.
    FromApp,
}

/// Which reserved bits the extensions in use may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedBits {
    /// No extension was negotiated: none.
    None,
    /// permessage-deflate (RFC 7692 section 6): RSV1 on the first frame of a message.
    Deflate,
    /// An extension that we don't know: any.
    Any,
}

/// Bounds that are checked on the head, before a payload comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Payload bytes of one data frame.
    pub frame_bytes_max: u64,
    /// Payload bytes of one message over all its fragments.
    pub message_bytes_max: u64,
    /// Fragments of one message.
    pub fragments_max: u32,
}

/// What stands at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `len` bytes of data frames, heads included, to be forwarded as they are.
    Data {
        /// Bytes to forward.
        len: usize,
        /// Payload bytes among them.
        payload_bytes: u64,
        /// Messages that end within them.
        messages: u32,
    },
    /// A whole control frame: `len` bytes, of which the payload are the last `head.payload_len`.
    Control {
        /// Its head.
        head: Head,
        /// Bytes of head and payload.
        len: usize,
    },
    /// A head or a control frame is not all there: keep these bytes and come back with more. They are at
    /// most 139 (14 of head and 125 of payload).
    Wait,
}

/// Walks the frames of one direction and checks each head against RFC 6455 and the limits.
///
/// Data frames are told as runs of bytes that may begin and end anywhere; control frames are told whole.
/// After an error the reader must not be used again.
#[derive(Clone, Debug)]
pub struct FrameReader {
    /// Shared by all readers: there are two of them for each session.
    limits: Arc<FrameLimits>,
    direction: Direction,
    reserved: ReservedBits,
    /// Payload bytes of the data frame under way that have not passed yet.
    frame_left: u64,
    /// The frame under way is the last of its message.
    frame_fin: bool,
    message: Option<Message>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    bytes: u64,
    fragments: u32,
}

impl FrameReader {
    /// Starts at the first byte behind the handshake.
    pub fn new(
        direction: Direction,
        reserved: ReservedBits,
        limits: impl Into<Arc<FrameLimits>>,
    ) -> FrameReader {
        let limits = limits.into();
        FrameReader { limits, direction, reserved, frame_left: 0, frame_fin: false, message: None }
    }

    /// Returns whether all bytes told so far end with a frame: only here may a control frame of our own go
    /// in between.
    pub fn is_between_frames(&self) -> bool {
        self.frame_left == 0
    }

    /// Returns whether all bytes told so far end with a message: only here may another message go in between.
    pub fn is_between_messages(&self) -> bool {
        self.frame_left == 0 && self.message.is_none()
    }

    /// Returns how many payload bytes of the data frame under way are still to come.
    pub fn frame_left(&self) -> u64 {
        self.frame_left
    }

    /// Looks at the front of `input` and says what to do with it; call again with what follows it.
    ///
    /// With `stop_between_frames` a run of data ends with its first whole frame.
    ///
    /// # Errors
    /// The first violation. What stood before it was told by earlier calls.
    pub fn next(&mut self, input: &[u8], stop_between_frames: bool) -> Result<Step, Violation> {
        let (mut len, mut payload_bytes, mut messages) = (0usize, 0u64, 0u32);
        loop {
            if self.frame_left > 0 {
                let here = self.frame_left.min((input.len() - len) as u64);
                len += here as usize;
                payload_bytes += here;
                self.frame_left -= here;
                if self.frame_left > 0 {
                    break;
                }
                messages += self.end_frame();
                if stop_between_frames {
                    break;
                }
            }
            let head = match Head::parse(&input[len..])
                .and_then(|head| head.map_or(Ok(None), |head| self.check(head).map(Some)))
            {
                Ok(Some(head)) => head,
                Ok(None) => break,
                // What stands before the violation goes out first; the next call meets it again.
                Err(_) if len > 0 => break,
                Err(violation) => return Err(violation),
            };
            if head.opcode.is_control() {
                if len > 0 {
                    break;
                }
                let whole = head.head_len + head.payload_len as usize;
                return Ok(if input.len() < whole { Step::Wait } else { Step::Control { head, len: whole } });
            }
            len += head.head_len;
            self.begin_frame(head);
            if head.payload_len == 0 {
                messages += self.end_frame();
                if stop_between_frames {
                    break;
                }
            }
        }
        Ok(if len == 0 { Step::Wait } else { Step::Data { len, payload_bytes, messages } })
    }

    fn begin_frame(&mut self, head: Head) {
        let message = self.message.get_or_insert(Message { bytes: 0, fragments: 0 });
        message.bytes += head.payload_len;
        message.fragments += 1;
        self.frame_left = head.payload_len;
        self.frame_fin = head.fin;
    }

    /// Returns how many messages ended with the frame: one or none.
    fn end_frame(&mut self) -> u32 {
        if self.frame_fin {
            self.message = None;
        }
        u32::from(self.frame_fin)
    }

    fn check(&self, head: Head) -> Result<Head, Violation> {
        match (self.direction, head.mask) {
            (Direction::FromClient, None) => return Err(Violation::MaskMissing),
            (Direction::FromApp, Some(_)) => return Err(Violation::MaskUnexpected),
            (Direction::FromClient, Some(_)) | (Direction::FromApp, None) => {}
        }
        let first_of_message = matches!(head.opcode, Opcode::Text | Opcode::Binary);
        let allowed = match self.reserved {
            ReservedBits::None => 0,
            ReservedBits::Deflate if first_of_message => RSV1,
            ReservedBits::Deflate => 0,
            ReservedBits::Any => 7,
        };
        if head.reserved & !allowed != 0 {
            return Err(Violation::ReservedBit);
        }
        if head.opcode.is_control() {
            return match head {
                Head { fin: false, .. } => Err(Violation::ControlFragmented),
                Head { payload_len, .. } if payload_len > CONTROL_BYTES_MAX => Err(Violation::ControlTooLong),
                head => Ok(head),
            };
        }
        match (&self.message, first_of_message) {
            (None, false) => return Err(Violation::StrayContinuation),
            (Some(_), true) => return Err(Violation::InterruptedMessage),
            (None, true) | (Some(_), false) => {}
        }
        let so_far = self.message.unwrap_or(Message { bytes: 0, fragments: 0 });
        if head.payload_len > self.limits.frame_bytes_max {
            return Err(Violation::FrameTooBig);
        }
        if so_far.bytes.saturating_add(head.payload_len) > self.limits.message_bytes_max {
            return Err(Violation::MessageTooBig);
        }
        if so_far.fragments >= self.limits.fragments_max {
            return Err(Violation::TooManyFragments);
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::write_control;
    use proptest::prelude::*;
    use tungstenite::protocol::frame::FrameHeader;

    const LIMITS: FrameLimits =
        FrameLimits { frame_bytes_max: 70_000, message_bytes_max: 200_000, fragments_max: 50 };

    /// A frame of zeros as a client sends it.
    fn frame(opcode: u8, fin: bool, rsv1: bool, len: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        let header = FrameHeader {
            is_final: fin,
            rsv1,
            opcode: opcode.into(),
            mask: Some([1, 2, 3, 4]),
            ..Default::default()
        };
        header.format(len as u64, &mut wire).expect("writing to memory");
        wire.resize(wire.len() + len, 0);
        wire
    }

    fn reader(reserved: ReservedBits) -> FrameReader {
        FrameReader::new(Direction::FromClient, reserved, LIMITS)
    }

    /// Feeds `wire` in the given slices as a driver does; returns forwarded bytes, control opcodes, messages.
    fn walk(wire: &[u8], slices: &[usize], stop: bool) -> Result<(Vec<u8>, Vec<Opcode>, u32), Violation> {
        let mut reader = reader(ReservedBits::None);
        let (mut kept, mut out, mut control, mut messages) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let (mut at, mut turn) = (0, 0);
        while at < wire.len() {
            let take = slices[turn % slices.len()].min(wire.len() - at);
            turn += 1;
            kept.extend_from_slice(&wire[at..at + take]);
            at += take;
            let mut used = 0;
            loop {
                match reader.next(&kept[used..], stop)? {
                    Step::Data { len, messages: ended, .. } => {
                        out.extend_from_slice(&kept[used..used + len]);
                        used += len;
                        messages += ended;
                    }
                    Step::Control { head, len } => {
                        assert!(reader.is_between_frames());
                        control.push(head.opcode);
                        used += len;
                    }
                    Step::Wait => break,
                }
            }
            kept.drain(..used);
            assert!(kept.len() <= 139, "{} bytes are kept", kept.len());
        }
        Ok((out, control, messages))
    }

    proptest! {
        /// Data bytes pass untouched and control frames are found, wherever the reads split (C6).
        #[test]
        fn any_split_gives_the_same(lens in proptest::collection::vec((0usize..400, 1usize..4, any::<bool>()), 1..12),
                                    slices in proptest::collection::vec(1usize..300, 1..20), stop: bool) {
            let (mut wire, mut data, mut pings) = (Vec::new(), Vec::new(), 0);
            for (len, fragments, ping) in &lens {
                for n in 0..*fragments {
                    let bytes = frame(if n == 0 { 2 } else { 0 }, n + 1 == *fragments, false, *len);
                    wire.extend_from_slice(&bytes);
                    data.extend_from_slice(&bytes);
                    if *ping {
                        write_control(&mut wire, Opcode::Ping, b"between", Some([9, 9, 9, 9]));
                        pings += 1;
                    }
                }
            }
            let (out, control, messages) = walk(&wire, &slices, stop).expect("all is valid");
            prop_assert_eq!(out, data);
            prop_assert_eq!(control.len(), pings);
            prop_assert_eq!(messages as usize, lens.len());
        }

        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200), slices in proptest::collection::vec(1usize..50, 1..5)) {
            let _ = walk(&bytes, &slices, false);
        }
    }

    #[test]
    fn violations_are_named() {
        let mut long_control = Vec::new();
        long_control.extend_from_slice(&[0x89, 0x80 | 126, 0, 126, 1, 2, 3, 4]);
        let cases: Vec<(Vec<u8>, Violation)> = vec![
            (vec![0x82, 0x01, 0], Violation::MaskMissing),
            (frame(2, true, true, 1), Violation::ReservedBit),
            (vec![0x83, 0x80, 0, 0, 0, 0], Violation::ReservedOpcode),
            (frame(9, false, false, 1), Violation::ControlFragmented),
            (long_control, Violation::ControlTooLong),
            (frame(0, true, false, 1), Violation::StrayContinuation),
            ([frame(1, false, false, 1), frame(1, true, false, 1)].concat(), Violation::InterruptedMessage),
            (frame(2, true, false, 70_001), Violation::FrameTooBig),
            (
                [
                    frame(2, false, false, 70_000),
                    frame(0, false, false, 70_000),
                    frame(0, true, false, 60_001),
                ]
                .concat(),
                Violation::MessageTooBig,
            ),
            (
                std::iter::once(frame(2, false, false, 0))
                    .chain((0..50).map(|_| frame(0, false, false, 0)))
                    .collect::<Vec<_>>()
                    .concat(),
                Violation::TooManyFragments,
            ),
        ];
        for (wire, expected) in cases {
            assert_eq!(walk(&wire, &[wire.len()], false), Err(expected));
        }
        let mut from_app = FrameReader::new(Direction::FromApp, ReservedBits::None, LIMITS);
        assert_eq!(from_app.next(&frame(2, true, false, 1), false), Err(Violation::MaskUnexpected));
    }

    #[test]
    fn what_just_fits_a_limit_passes() {
        let message =
            [frame(2, false, false, 70_000), frame(0, false, false, 70_000), frame(0, true, false, 60_000)];
        let fragments = std::iter::once(frame(2, false, false, 0))
            .chain((0..48).map(|_| frame(0, false, false, 0)))
            .chain([frame(0, true, false, 0)]);
        for wire in [message.concat(), fragments.collect::<Vec<_>>().concat()] {
            let (_, _, messages) = walk(&wire, &[wire.len()], false).expect("all is valid");
            assert_eq!(messages, 1);
        }
        let (_, control, _) = walk(&frame(9, true, false, 125), &[7], false).expect("all is valid");
        assert_eq!(control, [Opcode::Ping]);
    }

    #[test]
    fn deflate_may_set_rsv1_on_the_first_frame_only() {
        let mut deflate = reader(ReservedBits::Deflate);
        assert!(matches!(deflate.next(&frame(1, false, true, 3), false), Ok(Step::Data { .. })));
        assert_eq!(deflate.next(&frame(0, true, true, 3), false), Err(Violation::ReservedBit));
        assert_eq!(
            reader(ReservedBits::Deflate).next(&frame(9, true, true, 0), false),
            Err(Violation::ReservedBit)
        );
        assert!(matches!(
            reader(ReservedBits::Any).next(&frame(9, true, true, 0), false),
            Ok(Step::Control { .. })
        ));
    }

    #[test]
    fn what_stands_before_a_violation_is_told_first() {
        let mut wire = frame(1, true, false, 5);
        let good = wire.len();
        wire.extend_from_slice(&[0x83, 0x80]);
        let mut reader = reader(ReservedBits::None);
        assert_eq!(reader.next(&wire, false), Ok(Step::Data { len: good, payload_bytes: 5, messages: 1 }));
        assert_eq!(reader.next(&wire[good..], false), Err(Violation::ReservedOpcode));
    }
}
