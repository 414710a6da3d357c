//! What the messages say: of each, client, way and number give every byte, so that none has to be kept.

use std::io::Write as _;

use crate::history::Way;

/// The longest message, its head not counted.
const FILL_BYTES_MAX: u64 = 3000;

/// One in so many has no bytes at all: only its place says which one it is.
const EMPTY_EVERY: u64 = 64;

/// One in so many has a time limit, on the way to the app.
const LIMITED_EVERY: u64 = 16;

const HEAD_BYTES_MAX: usize = 48;

/// Every byte that a text may fill itself with, more than once.
static FILL: [u8; FILL_BYTES_MAX as usize + 26] = {
    let mut fill = [0; FILL_BYTES_MAX as usize + 26];
    let mut at = 0;
    while at < fill.len() {
        fill[at] = b'a' + (at % 26) as u8;
        at += 1;
    }
    fill
};

/// Names one message of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Whose session it belongs to.
    pub client: usize,
    /// Who says it.
    pub way: Way,
    /// Counts from 1.
    pub number: u64,
}

impl Name {
    /// Whether it goes as text.
    pub fn is_text(self) -> bool {
        !self.number.is_multiple_of(3)
    }

    /// Whether it is without bytes.
    pub fn is_empty(self) -> bool {
        self.number.is_multiple_of(EMPTY_EVERY)
    }

    /// Whether it may expire.
    pub fn is_limited(self) -> bool {
        self.way == Way::ToApp && self.number % LIMITED_EVERY == 5
    }

    /// Returns all its bytes; ASCII.
    pub fn payload(self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut head = [0; HEAD_BYTES_MAX];
        let (head, fill) = (self.head(&mut head), self.fill());
        [head, fill].concat()
    }

    /// Whether these are its bytes, every one.
    pub fn is(self, text: bool, payload: &[u8]) -> bool {
        if text != self.is_text() {
            return false;
        }
        if self.is_empty() {
            return payload.is_empty();
        }
        let mut head = [0; HEAD_BYTES_MAX];
        payload.strip_prefix(self.head(&mut head)) == Some(self.fill())
    }

    /// Reads whose message this claims to be; `None` if it says nothing that one of ours says.
    pub fn read(payload: &[u8]) -> Option<Name> {
        let end = payload.iter().position(|&byte| byte == b'|')?;
        let head = &payload[..end];
        let mut words = str::from_utf8(head).ok()?.split(' ');
        let client = words.next()?.parse().ok()?;
        let way = words.next()?;
        let way = Way::BOTH.into_iter().find(|one| one.as_str() == way)?;
        let number = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Name { client, way, number })
    }

    fn head(self, room: &mut [u8; HEAD_BYTES_MAX]) -> &[u8] {
        let mut rest = &mut room[..];
        write!(rest, "{} {} {}|", self.client, self.way.as_str(), self.number)
            .expect("two numbers of 64 bits and a word fit");
        let left = rest.len();
        &room[..HEAD_BYTES_MAX - left]
    }

    /// Mostly short ones, as apps send them, and up to the longest.
    fn fill(self) -> &'static [u8] {
        let drawn = mix(self.client as u64 ^ (self.number << 20) ^ ((self.way as u64) << 63));
        let longest = if drawn.is_multiple_of(8) { FILL_BYTES_MAX } else { 100 };
        let (len, from) = ((drawn >> 8) % (longest + 1), (drawn >> 32) % 26);
        &FILL[from as usize..(from + len) as usize]
    }
}

/// Spreads the bits of a number (the finalizer of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_known_again_and_nothing_else_is() {
        for number in 1..2000 {
            for way in Way::BOTH {
                let name = Name { client: 199, way, number };
                let payload = name.payload();
                assert!(name.is(name.is_text(), &payload) && !name.is(!name.is_text(), &payload));
                assert!(payload.len() <= HEAD_BYTES_MAX + FILL_BYTES_MAX as usize);
                if name.is_empty() {
                    assert!(payload.is_empty());
                    continue;
                }
                assert_eq!(Name::read(&payload), Some(name));
                let mut changed = payload.clone();
                changed[number as usize % payload.len()] ^= 1;
                assert!(!name.is(name.is_text(), &changed));
                assert!(!name.is(name.is_text(), &payload[..payload.len() - 1]));
            }
        }
        for nothing in [&b""[..], b"|", b"1 to_app", b"x to_app 1|", b"1 to_nobody 1|", b"1 to_app 1 1|"] {
            assert_eq!(Name::read(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn sizes_are_mixed() {
        let sizes: Vec<usize> =
            (1..2000).map(|number| Name { client: 7, way: Way::ToApp, number }.payload().len()).collect();
        assert!(
            sizes.iter().any(|&size| size > 2800) && sizes.iter().filter(|&&size| size < 126).count() > 1000
        );
    }
}
