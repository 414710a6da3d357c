//! One frame head.

use super::Violation;

/// Longest payload of a control frame (RFC 6455 section 5.5).
pub(super) const CONTROL_BYTES_MAX: u64 = 125;

/// What a frame is (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A further fragment of the message that has begun.
    Continuation,
    /// First frame of a text message.
    Text,
    /// First frame of a binary message.
    Binary,
    /// Begins or answers the closing handshake.
    Close,
    /// Asks for a Pong.
    Ping,
    /// Answers a Ping, or comes unasked.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        match bits {
            0x0 => Some(Opcode::Continuation),
            0x1 => Some(Opcode::Text),
            0x2 => Some(Opcode::Binary),
            0x8 => Some(Opcode::Close),
            0x9 => Some(Opcode::Ping),
            0xA => Some(Opcode::Pong),
            _ => None,
        }
    }

    /// Returns the four bits on the wire.
    pub fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Returns whether frames of this kind carry control, not data.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// A frame head as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Last fragment of its message.
    pub fin: bool,
    /// RSV1 to RSV3 as bits 4, 2, 1.
    pub reserved: u8,
    /// Kind of frame.
    pub opcode: Opcode,
    /// Masking key, if masked.
    pub mask: Option<[u8; 4]>,
    /// Payload bytes.
    pub payload_len: u64,
    /// Bytes of the head itself: 2 to 14.
    pub head_len: usize,
}

impl Head {
    /// Reads a head from the front of `input`; `None` when it is not all there yet.
    ///
    /// # Errors
    /// An unknown opcode, or a length that is not in its shortest form (RFC 6455 section 5.2).
    pub fn parse(input: &[u8]) -> Result<Option<Head>, Violation> {
        let [first, second, ..] = *input else { return Ok(None) };
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::ReservedOpcode)?;
        let (payload_len, mut head_len) = match second & 0x7f {
            126 => match input.get(2..4) {
                Some(bytes) => (u64::from(u16::from_be_bytes([bytes[0], bytes[1]])), 4),
                None => return Ok(None),
            },
            127 => match input.get(2..10).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
                Some(bytes) => (u64::from_be_bytes(bytes), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        let shortest = match head_len {
            4 => payload_len > 125,
            10 => payload_len > 0xffff && payload_len <= i64::MAX as u64,
            _ => true,
        };
        if !shortest {
            return Err(Violation::InvalidLength);
        }
        let mask = if second & 0x80 == 0 {
            None
        } else {
            let key = input.get(head_len..head_len + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            let Some(key) = key else { return Ok(None) };
            head_len += 4;
            Some(key)
        };
        Ok(Some(Head {
            fin: first & 0x80 != 0,
            reserved: (first >> 4) & 7,
            opcode,
            mask,
            payload_len,
            head_len,
        }))
    }

    /// Removes the mask from a whole payload; it must start where the payload starts.
    pub fn unmask(&self, payload: &mut [u8]) {
        if let Some(mask) = self.mask {
            apply_mask(payload, mask);
        }
    }
}

/// Appends a whole control frame to `out`; a payload over 125 bytes is cut.
pub fn write_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX as usize)];
    out.push(0x80 | opcode.bits());
    out.push(payload.len() as u8 | if mask.is_some() { 0x80 } else { 0 });
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// Appends a whole message in one frame, in parts that follow each other; a client's has a mask, a server's none
/// (RFC 6455 section 5.1).
pub fn write_message(out: &mut Vec<u8>, text: bool, parts: &[&[u8]], mask: Option<[u8; 4]>) {
    let opcode = if text { Opcode::Text } else { Opcode::Binary };
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode.bits());
    match parts.iter().map(|part| part.len()).sum::<usize>() {
        short @ 0..=125 => out.push(short as u8 | masked),
        middle @ 126..=0xffff => {
            out.push(126 | masked);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127 | masked);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(mask.as_ref().map_or(&[][..], |mask| mask));
    let start = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// RFC 6455 section 5.3.
pub(crate) fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let mut words = payload.chunks_exact_mut(8);
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    for word in &mut words {
        let masked = u64::from_ne_bytes(word.try_into().expect("eight bytes")) ^ wide;
        word.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;
    use tungstenite::protocol::frame::FrameHeader;

    proptest! {
        /// What a well-kept library formats, we read as the same head, and no shorter prefix is enough.
        #[test]
        fn heads_agree_with_tungstenite(fin: bool, rsv in 0u8..8, control in 0usize..6, mask: Option<[u8; 4]>,
                                        len in prop_oneof![0u64..300, 65_000u64..66_000, any::<u32>().prop_map(u64::from)]) {
            let opcode = [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong][control];
            let header = FrameHeader {
                is_final: fin, rsv1: rsv & 4 != 0, rsv2: rsv & 2 != 0, rsv3: rsv & 1 != 0,
                opcode: opcode.bits().into(), mask,
            };
            let mut wire = Vec::new();
            header.format(len, &mut wire).expect("writing to memory");
            let head_len = wire.len();
            for cut in 0..head_len {
                prop_assert_eq!(Head::parse(&wire[..cut]), Ok(None));
            }
            wire.extend_from_slice(&[0xaa; 20]);
            prop_assert_eq!(Head::parse(&wire), Ok(Some(Head { fin, reserved: rsv, opcode, mask, payload_len: len, head_len })));
        }

        /// Whatever the bytes, reading ends without a panic, and where both accept a head they agree.
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let (Ok(Some(ours)), Ok(Some((_, len)))) = (Head::parse(&bytes), FrameHeader::parse(&mut Cursor::new(&bytes))) {
                prop_assert_eq!(ours.payload_len, len);
            }
        }

        #[test]
        fn control_frames_read_back(payload in proptest::collection::vec(any::<u8>(), 0..126), mask: Option<[u8; 4]>) {
            let mut wire = Vec::new();
            write_control(&mut wire, Opcode::Ping, &payload, mask);
            let head = Head::parse(&wire).expect("valid").expect("whole");
            let body = &mut wire[head.head_len..];
            head.unmask(body);
            prop_assert_eq!(body, &payload[..]);
        }
    }

    #[test]
    fn lengths_must_be_in_their_shortest_form() {
        assert_eq!(Head::parse(&[0x82, 126, 0, 125]), Err(Violation::InvalidLength));
        assert_eq!(Head::parse(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Err(Violation::InvalidLength));
        assert_eq!(Head::parse(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(Violation::InvalidLength));
    }
}
