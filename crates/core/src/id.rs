//! Session ids: unique, rising within a process whatever the wall clock does, short enough to type.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of the text form.
pub(crate) const ID_TEXT_LEN: usize = 26;
const COUNTER_BITS: u32 = 40;

/// Names one session for its whole life, and its tombstone after it.
///
/// 128 bits: 48 of the process' start in Unix milliseconds, 40 random ones, a counter of 40. Ids of one
/// process rise in the order of admission, also when the wall clock jumps, since it is read once.
/// The text form is 26 characters of Crockford base 32 and sorts like the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; ID_TEXT_LEN];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Names one message that somebody sent through the gateway; made and written as a [`SessionId`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(SessionId);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

impl FromStr for MessageId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<MessageId, InvalidId> {
        text.parse().map(MessageId)
    }
}

impl serde::Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id: 26 characters of lower-case Crockford base 32 are expected")
    }
}

impl std::error::Error for InvalidId {}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<SessionId, InvalidId> {
        if text.len() != ID_TEXT_LEN {
            return Err(InvalidId);
        }
        let mut number: u128 = 0;
        for (place, byte) in text.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|&known| known == byte).ok_or(InvalidId)? as u128;
            // 26 digits hold 130 bits: the first may only use three of its five.
            if place == 0 && digit > 7 {
                return Err(InvalidId);
            }
            number = (number << 5) | digit;
        }
        Ok(SessionId(number))
    }
}

impl serde::Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Hands out the ids of one process.
#[derive(Debug)]
pub struct IdSource {
    prefix: u128,
    next: AtomicU64,
}

impl IdSource {
    /// Starts a source from the process' start (Unix milliseconds) and randomness, of which 40 bits are used.
    pub fn new(started_unix_ms: u64, random: u64) -> IdSource {
        let time = u128::from(started_unix_ms & ((1 << 48) - 1)) << 80;
        let random = u128::from(random & ((1 << 40) - 1)) << COUNTER_BITS;
        IdSource { prefix: time | random, next: AtomicU64::new(1) }
    }

    /// Returns an id greater than all that this source gave before.
    pub fn next(&self) -> SessionId {
        let count = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << COUNTER_BITS) - 1);
        SessionId(self.prefix | u128::from(count))
    }

    /// Returns the name of a message; no session of this source has it.
    pub fn next_message(&self) -> MessageId {
        MessageId(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_as_numbers_and_as_text_and_read_back() {
        let source = IdSource::new(1_800_000_000_000, u64::MAX);
        let mut last = source.next();
        for _ in 0..1000 {
            let id = source.next();
            assert!(id > last && id.to_string() > last.to_string());
            assert_eq!(id.to_string().parse(), Ok(id));
            last = id;
        }
    }

    #[test]
    fn foreign_text_is_refused() {
        for text in [
            "",
            "x",
            "zzzzzzzzzzzzzzzzzzzzzzzzzz",
            "0123456789ABCDEFGHJKMNPQRS",
            "ü0123456789abcdefghjkmnpqr",
        ] {
            assert_eq!(text.parse::<SessionId>(), Err(InvalidId), "{text}");
        }
    }
}
