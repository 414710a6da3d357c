//! Who the client is, said to the app: `X-Forwarded-*` and `Forwarded` (RFC 7239).

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::headers::{has_prefix, remove_where};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Returns the client's address: the TCP peer's, or, when the peer is a trusted proxy, the last address in
/// `X-Forwarded-For` that no trusted proxy has.
pub(crate) fn client_address(headers: &HeaderMap, peer: SocketAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.ip().to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let chain = joined(headers, &X_FORWARDED_FOR).unwrap_or_default();
    for entry in chain.rsplit(',') {
        // What stands before an entry that is no address was said by nobody we trust.
        let Some(address) = parse_address(entry.trim()) else { break };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// Sets the forwarded headers. What was there is kept and extended when the peer is trusted, and replaced
/// when it isn't, together with all other `X-Forwarded-*`.
pub(crate) fn set(headers: &mut HeaderMap, peer: SocketAddr, trusted: &[IpNet]) {
    let address = peer.ip().to_canonical();
    if !is_trusted(address, trusted) {
        remove_where(headers, |name| has_prefix(name, "x-forwarded-"));
        headers.remove(FORWARDED);
    }
    let host = headers.get(HOST).cloned();
    extend(headers, X_FORWARDED_FOR, &address.to_string());
    extend(headers, FORWARDED, &forwarded_element(address, host.as_ref()));
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = host
        && !headers.contains_key(X_FORWARDED_HOST)
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// Joins what may stand in several headers; what is not ASCII is left out.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn extend(headers: &mut HeaderMap, name: HeaderName, last: &str) {
    let value = joined(headers, &name).map_or_else(|| last.to_string(), |before| format!("{before}, {last}"));
    headers.insert(name, HeaderValue::from_str(&value).expect("all parts are visible ASCII"));
}

/// One hop as RFC 7239 section 4 writes it; IPv6 stands in brackets and quotes (section 6).
fn forwarded_element(address: IpAddr, host: Option<&HeaderValue>) -> String {
    let node = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    // A Host has passed the check for an authority, so it has no quote and no backslash.
    match host.and_then(|host| host.to_str().ok()) {
        Some(host) => format!("for={node};host=\"{host}\";proto=http"),
        None => format!("for={node};proto=http"),
    }
}

/// Reads `1.2.3.4`, `1.2.3.4:5`, `::1` and `[::1]:5`, as proxies write them.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::tests::header_map as map;

    fn trusted() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let mut headers = map(&[
            ("host", "shop.example:80"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "443"),
            ("x_forwarded_for", "2.2.2.2"),
            ("forwarded", "for=1.1.1.1"),
        ]);
        let peer = "192.0.2.7:999".parse().unwrap();
        assert_eq!(client_address(&headers, peer, &trusted()), peer.ip());
        set(&mut headers, peer, &trusted());
        let expected = map(&[
            ("host", "shop.example:80"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop.example:80"),
            ("forwarded", "for=192.0.2.7;host=\"shop.example:80\";proto=http"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_extended() {
        let mut headers = map(&[
            ("host", "inner"),
            ("x-forwarded-for", "203.0.113.9, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("forwarded", "for=203.0.113.9;proto=https"),
        ]);
        set(&mut headers, "[fd00::1]:999".parse().unwrap(), &trusted());
        let expected = map(&[
            ("host", "inner"),
            ("x-forwarded-for", "203.0.113.9, 10.0.0.1, fd00::1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("forwarded", "for=203.0.113.9;proto=https, for=\"[fd00::1]\";host=\"inner\";proto=http"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn the_client_is_the_last_one_that_no_trusted_proxy_is() {
        let cases = [
            ("203.0.113.9", "203.0.113.9"),
            ("6.6.6.6, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
            ("203.0.113.9:4711, 10.1.1.1:80", "203.0.113.9"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("6.6.6.6, unknown, 10.1.1.1", "10.1.1.1"),
            ("10.1.1.1", "10.1.1.1"),
            ("", "10.0.0.1"),
        ];
        for (chain, client) in cases {
            let headers = map(&[("x-forwarded-for", chain)]);
            let peer = "[::ffff:10.0.0.1]:80".parse().unwrap();
            assert_eq!(client_address(&headers, peer, &trusted()).to_string(), client, "{chain}");
        }
        let two = map(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")]);
        assert_eq!(
            client_address(&two, "10.0.0.1:1".parse().unwrap(), &trusted()).to_string(),
            "203.0.113.9"
        );
    }
}
