//! Close frames: what their payload may say (RFC 6455 sections 5.5.1 and 7.4).

use std::fmt;

/// Longest reason in bytes: a control frame carries 125, two of them are the code (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// The payload of a Close frame that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// Status code (RFC 6455 section 7.4).
    pub code: u16,
    /// At most 123 bytes.
    pub reason: Box<str>,
}

/// What is wrong with the payload of a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseFrameError {
    /// One byte is no code.
    TruncatedCode,
    /// A code that must not be sent (RFC 6455 section 7.4).
    InvalidCode(u16),
    /// The reason is not UTF-8.
    InvalidUtf8,
}

impl CloseFrame {
    /// Builds a frame; a reason over 123 bytes is cut at a character.
    pub fn new(code: u16, reason: &str) -> CloseFrame {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        CloseFrame { code, reason: reason[..end].into() }
    }

    /// Reads an unmasked payload; an empty one is a Close without a code.
    ///
    /// # Errors
    /// One byte, a code that must not be sent, or a reason that is not UTF-8.
    pub fn parse(payload: &[u8]) -> Result<Option<CloseFrame>, CloseFrameError> {
        match payload {
            [] => Ok(None),
            [_] => Err(CloseFrameError::TruncatedCode),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !may_be_sent(code) {
                    return Err(CloseFrameError::InvalidCode(code));
                }
                let reason = std::str::from_utf8(reason).map_err(|_| CloseFrameError::InvalidUtf8)?;
                Ok(Some(CloseFrame { code, reason: reason.into() }))
            }
        }
    }

    /// Appends code and reason to `out`.
    pub fn write_payload(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(self.reason.as_bytes());
    }
}

impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() {
            write!(f, "{}", self.code)
        } else {
            write!(f, "{} {}", self.code, self.reason)
        }
    }
}

/// 1000–1003 and 1007–1014 are registered, 3000–4999 free; 1004, 1005, 1006 and 1015 never go over the wire.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_read_back() {
        for (code, reason) in [(1000, ""), (4408, "client unreachable"), (3000, "ünïcode")] {
            let frame = CloseFrame::new(code, reason);
            let mut payload = Vec::new();
            frame.write_payload(&mut payload);
            assert_eq!(CloseFrame::parse(&payload), Ok(Some(frame)));
        }
        assert_eq!(CloseFrame::parse(&[]), Ok(None));
    }

    #[test]
    fn bad_payloads_are_named() {
        assert_eq!(CloseFrame::parse(&[3]), Err(CloseFrameError::TruncatedCode));
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(CloseFrame::parse(&code.to_be_bytes()), Err(CloseFrameError::InvalidCode(code)));
        }
        assert_eq!(CloseFrame::parse(&[0x03, 0xe8, 0xff]), Err(CloseFrameError::InvalidUtf8));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = CloseFrame::new(1000, &"ü".repeat(100));
        assert_eq!(frame.reason.len(), 122);
    }
}
