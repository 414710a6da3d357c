//! Whole messages from frames.

use crate::frame::{FrameReader, Head, Opcode, Step, Violation};

/// What stands at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole message: `used` bytes of the input end it.
    Message {
        /// It is text; whether it is UTF-8 was checked.
        text: bool,
        /// Its payload, without mask.
        payload: &'a [u8],
        /// Bytes of the input.
        used: usize,
    },
    /// A part of a message.
    Part {
        /// Bytes of the input.
        used: usize,
    },
    /// A whole control frame, as [`Step::Control`].
    Control {
        /// Its head.
        head: Head,
        /// Bytes of the input.
        used: usize,
    },
    /// A head or a control frame is not all there: keep these bytes and come back with more.
    Wait,
}

/// Puts the messages of one direction together. A message that comes whole in the input is not copied; of one that does
/// not, what has come is kept.
#[derive(Debug, Default)]
pub struct Assembler {
    text: bool,
    /// The frame under way: its mask, and how much of its payload has passed.
    frame: Option<(Option<[u8; 4]>, usize)>,
    begun: bool,
    kept: Vec<u8>,
}

impl Assembler {
    /// Looks at the front of `input`, whose frames `reader` checks, and removes masks in place.
    ///
    /// # Errors
    /// The first violation of RFC 6455, or text that is not UTF-8 (section 8.1).
    pub fn next<'a>(
        &'a mut self,
        reader: &mut FrameReader,
        input: &'a mut [u8],
    ) -> Result<Piece<'a>, Violation> {
        let used = match reader.next(input, true)? {
            Step::Wait => return Ok(Piece::Wait),
            Step::Control { head, len } => return Ok(Piece::Control { head, used: len }),
            Step::Data { len, .. } => len,
        };
        let (head_len, (mask, passed)) = match self.frame.take() {
            Some(frame) => (0, frame),
            None => {
                let head = Head::parse(input)?.expect("the reader found a whole head");
                match head.opcode {
                    Opcode::Text | Opcode::Binary => {
                        self.text = head.opcode == Opcode::Text;
                        self.begun = false;
                        self.kept = Vec::new();
                    }
                    Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {}
                }
                (head.head_len, (head.mask, 0))
            }
        };
        let payload = &mut input[head_len..used];
        if let Some(mask) = mask {
            apply_mask_from(payload, mask, passed);
        }
        if !reader.is_between_frames() {
            self.frame = Some((mask, passed + payload.len()));
        }
        let whole = reader.is_between_messages();
        if whole && !self.begun {
            check_text(self.text, payload)?;
            return Ok(Piece::Message { text: self.text, payload, used });
        }
        self.begun = true;
        self.kept.extend_from_slice(payload);
        if !whole {
            return Ok(Piece::Part { used });
        }
        check_text(self.text, &self.kept)?;
        Ok(Piece::Message { text: self.text, payload: &self.kept, used })
    }

    /// Gives back the memory of a message that is over.
    pub fn shrink(&mut self, reader: &FrameReader) {
        if reader.is_between_messages() {
            self.kept = Vec::new();
        }
    }
}

fn check_text(text: bool, payload: &[u8]) -> Result<(), Violation> {
    if text && simdutf8::basic::from_utf8(payload).is_err() {
        return Err(Violation::InvalidUtf8);
    }
    Ok(())
}

/// RFC 6455 section 5.3, for a payload of which `passed` bytes came before.
fn apply_mask_from(payload: &mut [u8], mask: [u8; 4], passed: usize) {
    let mut mask = mask;
    mask.rotate_left(passed % 4);
    crate::frame::apply_mask(payload, mask);
}
