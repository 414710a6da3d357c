//! What ties a request's log lines together across programs: `X-Request-Id` and `traceparent`.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::handshake::only;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longer ids than anyone makes are not carried into every log line.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// `sampled`: an app's sampler that follows its parent, which is the usual one, records as it does without
/// a gateway in front; 00 would silently switch its traces off.
const TRACE_FLAGS: &str = "01";

/// Length of version 00 (W3C Trace Context section 3.2.2).
const TRACEPARENT_BYTES: usize = 55;

/// Passes a usable `X-Request-Id` or makes one, and returns it.
pub(crate) fn set_request_id(headers: &mut HeaderMap) -> Box<str> {
    let given = only(headers, &X_REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_request_id(id));
    if let Some(id) = given {
        return id.into();
    }
    let id = format!("{:032x}", fastrand::u128(..));
    headers.insert(X_REQUEST_ID, HeaderValue::from_str(&id).expect("hex is visible ASCII"));
    id.into()
}

/// Passes a valid `traceparent` or makes one; a `tracestate` without a valid parent is dropped (W3C Trace
/// Context section 3.3).
pub(crate) fn set_traceparent(headers: &mut HeaderMap) {
    if only(headers, &TRACEPARENT).is_some_and(|parent| is_traceparent(parent.as_bytes())) {
        return;
    }
    headers.remove(TRACESTATE);
    // Ids of zeros mean "none".
    let (trace, span) = (fastrand::u128(1..), fastrand::u64(1..));
    let parent = format!("00-{trace:032x}-{span:016x}-{TRACE_FLAGS}");
    headers.insert(TRACEPARENT, HeaderValue::from_str(&parent).expect("hex is visible ASCII"));
}

fn is_request_id(id: &str) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_traceparent(value: &[u8]) -> bool {
    let Some((parent, rest)) = value.split_at_checked(TRACEPARENT_BYTES) else { return false };
    let mut fields = parent.split(|&byte| byte == b'-');
    let mut field = |len: usize| fields.next().filter(|text| text.len() == len && is_lower_hex(text));
    let (version, trace, span, flags) = (field(2), field(32), field(16), field(2));
    let (Some(version), Some(trace), Some(span), Some(_)) = (version, trace, span, flags) else {
        return false;
    };
    let not_zero = |id: &[u8]| id.iter().any(|&byte| byte != b'0');
    // A later version may say more behind the four fields; ff is none.
    let rest_fits = rest.is_empty() || (version != b"00" && rest[0] == b'-');
    version != b"ff" && not_zero(trace) && not_zero(span) && rest_fits
}

fn is_lower_hex(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_usable_request_id_passes_and_any_other_is_replaced() {
        for (given, passes) in [("abc-1", true), ("", false), ("a b", false), (&"x".repeat(129), false)] {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(given).unwrap());
            let id = set_request_id(&mut headers);
            assert_eq!(&*id == given, passes, "{given}");
            assert_eq!(headers[X_REQUEST_ID], *id);
        }
        let mut headers = HeaderMap::new();
        assert_eq!(set_request_id(&mut headers).len(), 32);
    }

    #[test]
    fn a_valid_traceparent_passes_with_its_state() {
        let later = format!("01{}-more", &PARENT[2..]);
        for given in [PARENT, &later] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_str(given).unwrap());
            headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
            set_traceparent(&mut headers);
            assert_eq!((headers[TRACEPARENT].to_str().unwrap(), headers.len()), (given, 2));
        }
    }

    #[test]
    fn any_other_traceparent_is_replaced() {
        let bad = [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &PARENT.to_ascii_uppercase(),
            &format!("ff{}", &PARENT[2..]),
            &format!("01{}more", &PARENT[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ];
        for given in bad {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_str(given).unwrap());
            headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
            set_traceparent(&mut headers);
            assert!(
                headers[TRACEPARENT] != given && is_traceparent(headers[TRACEPARENT].as_bytes()),
                "{given}"
            );
            assert!(!headers.contains_key(TRACESTATE));
        }
    }
}
