//! Close codes of `pulsegate.v1`, and what a client does after each.

/// Why the gateway closes a connection, beside the codes of RFC 6455 section 7.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The peer broke the protocol.
    ProtocolError,
    /// The token is unknown, used up or not the client's.
    TokenUnknown,
    /// The page is of another origin than the one that began the session.
    OriginMismatch,
    /// The client did not answer in time.
    LivenessTimeout,
    /// A newer connection has taken the session over.
    Replaced,
    /// The session is over.
    SessionExpired,
    /// The app has closed; its code is in the reason.
    AppClosed,
    /// A message is over a limit.
    TooBig,
    /// Another limit was hit.
    Limit,
    /// The fault is the gateway's.
    Internal,
    /// The gateway is leaving: resume elsewhere.
    Draining,
}

/// What a client does after its connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Comes back and resumes, with jitter.
    Resume,
    /// Begins a new session.
    Restart,
    /// Is done.
    Done,
}

impl Code {
    /// All codes.
    pub const ALL: [Code; 11] = [
        Code::ProtocolError,
        Code::TokenUnknown,
        Code::OriginMismatch,
        Code::LivenessTimeout,
        Code::Replaced,
        Code::SessionExpired,
        Code::AppClosed,
        Code::TooBig,
        Code::Limit,
        Code::Internal,
        Code::Draining,
    ];

    /// Returns the code on the wire.
    pub fn number(self) -> u16 {
        match self {
            Code::ProtocolError => 4400,
            Code::TokenUnknown => 4401,
            Code::OriginMismatch => 4403,
            Code::LivenessTimeout => 4408,
            Code::Replaced => 4409,
            Code::SessionExpired => 4410,
            Code::AppClosed => 4411,
            Code::TooBig => 4413,
            Code::Limit => 4429,
            Code::Internal => 4500,
            Code::Draining => 4503,
        }
    }
}

impl After {
    /// Returns what follows a Close frame with `code`; `None`: the connection was cut without one.
    pub fn close(code: Option<u16>) -> After {
        match code {
            None | Some(1001 | 1006 | 1012 | 1013 | 4408 | 4500 | 4503) => After::Resume,
            Some(4409 | 4411) => After::Done,
            Some(4400..=4499) => After::Restart,
            Some(_) => After::Done,
        }
    }

    /// Returns what follows a Close with [`Code::AppClosed`], and the app's own code and reason, which stand in its reason.
    /// A code that would mean to resume means a new session; all others are the app's last word, those from 4400 on too.
    pub fn app_close(reason: &str) -> (After, Option<u16>, &str) {
        let (code, rest) = reason.split_once(' ').unwrap_or((reason, ""));
        let Ok(code) = code.parse() else { return (After::Done, Some(Code::AppClosed.number()), reason) };
        match After::close(Some(code)) {
            After::Resume => (After::Restart, Some(code), rest),
            After::Restart | After::Done => (After::Done, Some(code), rest),
        }
    }

    /// Returns whether a client that closes with `code` means to come back: a browser says 1001 when a page goes into its
    /// back-forward cache, and a client that gives a line up says 4408.
    pub fn detaches(code: Option<u16>) -> bool {
        code.is_some_and(|_| After::close(code) == After::Resume)
    }
}
