//! What a client offers in `Sec-WebSocket-Protocol` (RFC 6455 section 1.9).

use super::{COUNT_MAX, Token};

/// The protocol's name; with the app's own behind a `+`.
pub const V1: &str = "pulsegate.v1";

/// What an entry with a token begins with: `pgr.<token>.<received, in base 36>`.
pub const RESUME_PREFIX: &str = "pgr.";

/// 2^53 has eleven digits in base 36.
const DIGITS_MAX: usize = 11;

/// An offer of `pulsegate.v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    /// Our own entries, in the client's order, with the app's subprotocol that each goes with.
    entries: Vec<(&'a str, Option<&'a str>)>,
    /// Set if the client wants to come back to a session.
    pub resume: Option<OfferedResume>,
}

/// The wish to come back to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferedResume {
    /// To this one.
    Well {
        /// Names the session and proves the right to it.
        token: Token,
        /// Messages that the client has received in it.
        received: u64,
    },
    /// The entry can't be read, or there are several.
    Ill,
}

impl<'a> Offer<'a> {
    /// Reads the entries of an offer; `None` if none of them is ours.
    pub fn parse(entries: impl Iterator<Item = &'a str>) -> Option<Offer<'a>> {
        let mut offer = Offer { entries: Vec::new(), resume: None };
        for entry in entries {
            if let Some(resume) = entry.strip_prefix(RESUME_PREFIX) {
                let again = offer.resume.is_some();
                let read = parse_resume(resume).filter(|_| !again);
                offer.resume = Some(read.unwrap_or(OfferedResume::Ill));
            } else if let Some(rest) = entry.strip_prefix(V1) {
                match rest.strip_prefix('+') {
                    Some(of_app) if !of_app.is_empty() => offer.entries.push((entry, Some(of_app))),
                    None if rest.is_empty() => offer.entries.push((entry, None)),
                    Some(_) | None => {}
                }
            }
        }
        (!offer.entries.is_empty()).then_some(offer)
    }

    /// Returns whether an entry is for the gateway and not for the app.
    pub fn is_ours(entry: &str) -> bool {
        entry.starts_with(RESUME_PREFIX)
            || entry == V1
            || entry.strip_prefix(V1).is_some_and(|rest| rest.starts_with('+'))
    }

    /// Returns the entry to answer with if the app chose `of_app`; `None` if the client did not offer the two together.
    pub fn answer(&self, of_app: Option<&str>) -> Option<&'a str> {
        self.entries.iter().find(|(_, with)| *with == of_app).map(|(entry, _)| *entry)
    }

    /// Returns the first entry, with the app's subprotocol in it.
    pub fn first(&self) -> (&'a str, Option<&'a str>) {
        self.entries[0]
    }
}

fn parse_resume(text: &str) -> Option<OfferedResume> {
    let (token, digits) = text.split_once('.')?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let is_shortest = digits == "0" || !digits.starts_with('0');
    if digits.is_empty() || digits.len() > DIGITS_MAX || !is_shortest || !digits.bytes().all(is_digit) {
        return None;
    }
    let received = u64::from_str_radix(digits, 36).ok().filter(|number| *number <= COUNT_MAX)?;
    Some(OfferedResume::Well { token: token.parse().ok()?, received })
}

impl OfferedResume {
    /// Writes the entry of a client that comes back.
    pub fn to_entry(token: &str, received: u64) -> String {
        let mut digits = Vec::new();
        let mut rest = received;
        loop {
            digits.push(char::from_digit((rest % 36) as u32, 36).expect("a digit below 36"));
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        let digits: String = digits.iter().rev().collect();
        format!("{RESUME_PREFIX}{token}.{digits}")
    }
}
