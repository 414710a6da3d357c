//! What a client shows to come back to its session.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::id::{ID_TEXT_LEN, SessionId};

const SECRET_BYTES: usize = 16;

/// 128 random bits. It is shown to nobody but its owner: `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Names a session and proves that it is one's own: 48 characters, the session's id and the secret in base64url without
/// padding (RFC 4648 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The session.
    pub session: SessionId,
    /// The proof.
    pub secret: Secret,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.session, URL_SAFE_NO_PAD.encode(self.secret.0))
    }
}

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Token, InvalidToken> {
        let (session, secret) = text.split_at_checked(ID_TEXT_LEN).ok_or(InvalidToken)?;
        let session = session.parse().map_err(|_| InvalidToken)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|bytes| bytes.try_into().ok());
        Ok(Token { session, secret: Secret(secret.ok_or(InvalidToken)?) })
    }
}
