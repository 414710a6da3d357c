//! What an app's 101 must look like before a byte passes (RFC 6455 section 4.1, client requirements).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use http::{HeaderMap, HeaderName};
use pulsegate_core::ReservedBits;
use sha1::{Digest, Sha1};

use super::handshake::{has_token, only, tokens};

/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// By which an app asks for receipts.
const RECEIPTS: HeaderName = HeaderName::from_static("pulsegate-receipts");

/// What is wrong with an app's 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The 101 does not switch to WebSocket.
    #[error("its Upgrade or Connection header does not say WebSocket")]
    Upgrade,
    /// The proof that the app has seen the key is missing or wrong.
    #[error("its Sec-WebSocket-Accept is not the one that belongs to the key")]
    Accept,
    /// The app chose a subprotocol that the client did not offer.
    #[error("it chose a subprotocol that was not offered")]
    Subprotocol,
    /// The app chose an extension that the client did not offer.
    #[error("it chose an extension that was not offered")]
    Extension,
}

/// What client and app agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// The subprotocol, if any.
    pub(crate) subprotocol: Option<Box<str>>,
    /// The reserved bits that the extensions may use.
    pub(crate) reserved_bits: ReservedBits,
    /// The app wants to be told which of its messages arrive.
    pub(crate) receipts: bool,
}

/// Checks an app's 101 against the request that it answers.
///
/// # Errors
/// The first rule that the answer breaks.
pub(crate) fn check(request: &HeaderMap, answer: &HeaderMap) -> Result<Agreement, AnswerError> {
    if !has_token(answer, &UPGRADE, "websocket") || !has_token(answer, &CONNECTION, "upgrade") {
        return Err(AnswerError::Upgrade);
    }
    let key = only(request, &SEC_WEBSOCKET_KEY).ok_or(AnswerError::Accept)?;
    if only(answer, &SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept != accept_for(key.as_bytes()).as_str())
    {
        return Err(AnswerError::Accept);
    }
    let subprotocol = check_subprotocol(request, answer)?;
    let reserved_bits = check_extensions(request, answer)?;
    // A boolean of RFC 9651.
    let receipts = only(answer, &RECEIPTS).is_some_and(|value| value == "?1");
    Ok(Agreement { subprotocol, reserved_bits, receipts })
}

/// Computes the `Sec-WebSocket-Accept` for a key.
pub(crate) fn accept_for(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize())
}

fn check_subprotocol(request: &HeaderMap, answer: &HeaderMap) -> Result<Option<Box<str>>, AnswerError> {
    if !answer.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Ok(None);
    }
    let chosen = only(answer, &SEC_WEBSOCKET_PROTOCOL).and_then(|chosen| chosen.to_str().ok());
    let chosen = chosen.ok_or(AnswerError::Subprotocol)?.trim();
    if tokens(request, &SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == chosen) {
        return Ok(Some(chosen.into()));
    }
    Err(AnswerError::Subprotocol)
}

fn check_extensions(request: &HeaderMap, answer: &HeaderMap) -> Result<ReservedBits, AnswerError> {
    // A value that can't be read would hide an extension from the relay.
    if answer.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().any(|value| value.to_str().is_err()) {
        return Err(AnswerError::Extension);
    }
    let offered = extension_names(request);
    let chosen = extension_names(answer);
    if !chosen.iter().all(|name| offered.iter().any(|offer| offer.eq_ignore_ascii_case(name))) {
        return Err(AnswerError::Extension);
    }
    Ok(match chosen.as_slice() {
        [] => ReservedBits::None,
        [name] if name.eq_ignore_ascii_case("permessage-deflate") => ReservedBits::Deflate,
        _ => ReservedBits::Any,
    })
}

/// The names in `a; x=1, b; y="1, 2"` are a and b (RFC 6455 section 9.1).
fn extension_names(headers: &HeaderMap) -> Vec<&str> {
    let name: HeaderName = SEC_WEBSOCKET_EXTENSIONS;
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| {
            let mut quoted = false;
            value.split(move |character| {
                quoted ^= character == '"';
                character == ',' && !quoted
            })
        })
        .map(|extension| extension.split(';').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::tests::header_map as map;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn agree(offer: &[(&str, &str)], answer: &[(&str, &str)]) -> Result<Agreement, AnswerError> {
        let offer = [&[("sec-websocket-key", KEY)], offer].concat();
        let good = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", ACCEPT)];
        let named = |name: &str| answer.iter().any(|(other, _)| *other == name);
        let answer: Vec<_> =
            good.into_iter().filter(|(name, _)| !named(name)).chain(answer.iter().copied()).collect();
        check(&map(&offer), &map(&answer))
    }

    #[test]
    fn the_accept_is_the_one_of_the_rfc() {
        assert_eq!(accept_for(KEY.as_bytes()), ACCEPT);
    }

    #[test]
    fn answers_that_switch_to_something_else_are_refused() {
        let protocol = "sec-websocket-protocol";
        let extensions = "sec-websocket-extensions";
        let cases: &[(&str, &str, &str, AnswerError)] = &[
            ("", "upgrade", "h2c", AnswerError::Upgrade),
            ("", "connection", "keep-alive", AnswerError::Upgrade),
            ("", "sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo", AnswerError::Accept),
            ("", "sec-websocket-accept", "", AnswerError::Accept),
            ("", protocol, "chat", AnswerError::Subprotocol),
            ("a, b", protocol, "chat", AnswerError::Subprotocol),
            ("a, b", protocol, "a, b", AnswerError::Subprotocol),
            ("chat", protocol, "Chat", AnswerError::Subprotocol),
            ("chat", protocol, "", AnswerError::Subprotocol),
            ("", extensions, "permessage-deflate", AnswerError::Extension),
            ("permessage-deflate", extensions, "x-other", AnswerError::Extension),
            ("x; a=\"permessage-deflate, y\"", extensions, "y", AnswerError::Extension),
        ];
        for (offer, name, value, error) in cases {
            let offer = [(*name, *offer)];
            assert_eq!(
                agree(if offer[0].1.is_empty() { &[] } else { &offer }, &[(name, value)]),
                Err(*error),
                "{name}: {value}"
            );
        }
        let twice = [("sec-websocket-accept", ACCEPT), ("sec-websocket-accept", ACCEPT)];
        assert_eq!(agree(&[], &twice), Err(AnswerError::Accept));
    }

    #[test]
    fn what_was_offered_may_be_chosen() {
        let protocol = "sec-websocket-protocol";
        let chosen = agree(&[(protocol, "a"), (protocol, "b, chat")], &[(protocol, "chat")]).unwrap();
        assert_eq!(chosen.subprotocol.as_deref(), Some("chat"));
        assert_eq!(agree(&[(protocol, "a")], &[]).unwrap().subprotocol, None);
    }

    #[test]
    fn extensions_decide_about_reserved_bits() {
        let offer = "permessage-deflate; client_max_window_bits, x-other; a=\"b,c\"";
        for (chosen, bits) in [
            ("", ReservedBits::None),
            ("permessage-deflate; server_no_context_takeover", ReservedBits::Deflate),
            ("x-other", ReservedBits::Any),
            ("permessage-deflate, x-other", ReservedBits::Any),
        ] {
            let name = "sec-websocket-extensions";
            assert_eq!(agree(&[(name, offer)], &[(name, chosen)]).unwrap().reserved_bits, bits, "{chosen}");
        }
    }
}
