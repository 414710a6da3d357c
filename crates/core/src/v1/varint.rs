//! Unsigned LEB128, as counters are written.

use super::EnvelopeError;

/// Counters stay below 2^53, so that JavaScript's numbers hold them.
pub const COUNT_MAX: u64 = (1 << 53) - 1;

/// 53 bits in groups of seven.
const BYTES_MAX: usize = 8;

pub(super) fn write(out: &mut Vec<u8>, mut number: u64) {
    debug_assert!(number <= COUNT_MAX, "{number} is beyond what may be written");
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front of `input`.
///
/// # Errors
/// It is cut off, beyond [`COUNT_MAX`], or not in its shortest form.
pub(super) fn read(input: &mut &[u8]) -> Result<u64, EnvelopeError> {
    let mut number = 0;
    for place in 0..BYTES_MAX {
        let &byte = input.get(place).ok_or(EnvelopeError::Truncated)?;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if number > COUNT_MAX || (byte == 0 && place > 0) {
                return Err(EnvelopeError::Number);
            }
            *input = &input[place + 1..];
            return Ok(number);
        }
    }
    Err(EnvelopeError::Number)
}
