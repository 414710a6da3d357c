//! Labels: what makes a session findable, taken from its upgrade request as `registry.labels` says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::header::COOKIE;
use http::{HeaderName, request};

/// Labels as the registry keeps them: name and value.
pub(crate) type Labels = Box<[(Box<str>, Box<str>)]>;

/// Where the value of one label comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Header(HeaderName),
    Query(Box<str>),
    Cookie(Box<str>),
}

/// All labels with their sources, read from the configuration once.
#[derive(Clone, Debug)]
pub(crate) struct LabelSources {
    sources: Box<[(Box<str>, Source)]>,
    bytes_max: usize,
}

impl LabelSources {
    /// Reads `header:Name`, `query:name` and `cookie:name`; the configuration has refused anything else.
    pub(crate) fn new(labels: &BTreeMap<String, String>, bytes_max: usize) -> LabelSources {
        let sources = labels
            .iter()
            .filter_map(|(label, source)| Some((label.as_str().into(), Source::parse(source)?)))
            .collect();
        LabelSources { sources, bytes_max }
    }

    /// Takes the labels of one request; one whose source is missing is absent.
    pub(crate) fn read(&self, head: &request::Parts) -> Labels {
        self.sources
            .iter()
            .filter_map(|(label, source)| {
                let value = source.read(head)?;
                Some((label.clone(), clean(&value, self.bytes_max)))
            })
            .collect()
    }
}

impl Source {
    fn parse(text: &str) -> Option<Source> {
        let (kind, name) = text.split_once(':')?;
        match kind {
            "header" => name.parse().ok().map(Source::Header),
            "query" => Some(Source::Query(name.into())),
            "cookie" => Some(Source::Cookie(name.into())),
            _ => None,
        }
    }

    fn read<'a>(&self, head: &'a request::Parts) -> Option<Cow<'a, str>> {
        match self {
            Source::Header(name) => {
                head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()))
            }
            Source::Query(name) => query_value(head.uri.query()?, name),
            Source::Cookie(name) => head
                .headers
                .get_all(COOKIE)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .find_map(|cookies| cookie_value(cookies, name))
                .map(Cow::Borrowed),
        }
    }
}

fn query_value<'a>(query: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decoded(name) == wanted).then(|| form_decoded(value))
    })
}

/// Values may stand in quotes (RFC 6265 section 4.1.1).
fn cookie_value<'a>(cookies: &'a str, wanted: &str) -> Option<&'a str> {
    cookies.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (name.trim() == wanted).then(|| unquoted.unwrap_or(value))
    })
}

/// Undoes the form encoding that browsers use in queries: `+` is a space, `%41` an A. A `%` that begins no
/// code stays as it is.
fn form_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let code = if *first == b'%' { behind.split_at_checked(2) } else { None };
        let decoded = code.and_then(|(code, behind)| Some((hex_byte(code)?, behind)));
        let (byte, behind) = decoded.unwrap_or((if *first == b'+' { b' ' } else { *first }, behind));
        bytes.push(byte);
        rest = behind;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex_byte(code: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = digit(code[0])? * 16 + digit(code[1])?;
    u8::try_from(byte).ok()
}

/// Removes what could forge a log line and cuts at a character.
pub(super) fn clean(value: &str, bytes_max: usize) -> Box<str> {
    let mut kept = String::new();
    for character in value.chars().filter(|character| !character.is_control()) {
        if kept.len() + character.len_utf8() > bytes_max {
            break;
        }
        kept.push(character);
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str, uri: &str, headers: &[(&str, &[u8])]) -> Option<String> {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let labels = BTreeMap::from([("label".to_string(), source.to_string())]);
        let labels = LabelSources::new(&labels, 8).read(&head);
        assert!(labels.iter().all(|(name, _)| &**name == "label"));
        labels.first().map(|(_, value)| value.to_string())
    }

    #[test]
    fn each_source_yields_its_value() {
        type Lines<'a> = &'a [(&'a str, &'a [u8])];
        let cases: &[(&str, &str, Lines<'_>, Option<&str>)] = &[
            ("header:X-User", "/", &[("x-user", b"ann")], Some("ann")),
            ("header:X-User", "/", &[("x-users", b"ann")], None),
            ("header:X-User", "/", &[("x-user", "jürgen".as_bytes())], Some("jürgen")),
            ("query:room", "/?a=b&room=blue&room=red", &[], Some("blue")),
            ("query:room", "/?room=a%20b+c%C3%BC", &[], Some("a b cü")),
            ("query:room", "/?r%6fom=1%", &[], Some("1%")),
            ("query:room", "/?room=%zz%4", &[], Some("%zz%4")),
            ("query:room", "/?room", &[], Some("")),
            ("query:room", "/?rooms=1", &[], None),
            ("query:room", "/", &[], None),
            ("cookie:sid", "/", &[("cookie", b"a=b; sid=x=y")], Some("x=y")),
            ("cookie:sid", "/", &[("cookie", b"a=b"), ("cookie", b"sid=\"q\"")], Some("q")),
            ("cookie:sid", "/", &[("cookie", b"sidx=1; xsid=2")], None),
            ("unknown:x", "/?x=1", &[], None),
        ];
        for (source, uri, headers, expected) in cases {
            assert_eq!(read(source, uri, headers).as_deref(), *expected, "{source} {uri}");
        }
    }

    #[test]
    fn values_are_cut_between_characters_and_lose_control_characters() {
        assert_eq!(read("query:v", &format!("/?v={}", "x".repeat(60_000)), &[]).unwrap(), "xxxxxxxx");
        assert_eq!(read("query:v", "/?v=1234567%C3%BC", &[]).unwrap(), "1234567");
        assert_eq!(read("query:v", "/?v=a%0Ab%00c%1b%5B", &[]).unwrap(), "abc[");
        assert_eq!(read("header:v", "/", &[("v", b"a\tb\xff")]).unwrap(), "ab\u{fffd}");
    }
}
