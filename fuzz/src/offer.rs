//! What a client offers in `Sec-WebSocket-Protocol`.

use pulsegate_core::v1::{COUNT_MAX, Offer, OfferedResume, RESUME_PREFIX, Token, V1};

/// Reads an offer and asserts:
/// - it is one of `pulsegate.v1` just if an entry says so, and no entry of another is taken for ours;
/// - what is answered was offered, with the app's subprotocol or without as asked;
/// - a wish to come back is read if it is the only one and has its form, and written it is the same: there is one text for
///   each token;
/// - a secret is in no debug output.
///
/// The input is the header's value: entries with a comma between them. Bytes that are no UTF-8 are replaced, as they don't
/// get here.
pub fn offer(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let entries: Vec<&str> = text
        .split(',')
        .map(|entry| entry.trim_matches([' ', '\t']))
        .filter(|entry| !entry.is_empty())
        .collect();
    let wishes = entries.iter().filter(|entry| entry.starts_with(RESUME_PREFIX)).count();
    let ours: Vec<(&str, Option<&str>)> =
        entries.iter().filter_map(|entry| Some((*entry, of_app(entry)?))).collect();
    for entry in &entries {
        let is_ours = entry.starts_with(RESUME_PREFIX) || *entry == V1 || entry.starts_with("pulsegate.v1+");
        assert_eq!(Offer::is_ours(entry), is_ours, "{entry:?}");
    }
    let offer = Offer::parse(entries.iter().copied());
    assert_eq!(offer.is_some(), !ours.is_empty(), "{entries:?}");
    let Some(offer) = offer else { return };
    assert_eq!(offer.first(), ours[0]);
    for with in ours.iter().map(|(_, with)| *with).chain([None, Some("chat.v2"), Some("")]) {
        let expected = ours.iter().find(|(_, known)| *known == with).map(|(entry, _)| *entry);
        assert_eq!(offer.answer(with), expected, "{with:?} of {entries:?}");
    }
    assert_eq!(offer.resume.is_some(), wishes > 0, "{entries:?}");
    match offer.resume {
        None => {}
        Some(OfferedResume::Well { token, received }) => {
            assert_eq!(wishes, 1, "{entries:?}");
            check_resume(&entries, token, received);
        }
        Some(OfferedResume::Ill) => assert!(wishes > 1 || !entries.iter().any(|entry| is_well(entry))),
    }
}

/// Which of the app's subprotocols an entry of ours goes with; `None`: it is no such entry.
fn of_app(entry: &str) -> Option<Option<&str>> {
    match entry.split_once('+') {
        None => (entry == V1).then_some(None),
        Some((name, of_app)) => (name == V1 && !of_app.is_empty()).then_some(Some(of_app)),
    }
}

fn check_resume(entries: &[&str], token: Token, received: u64) {
    assert!(received <= COUNT_MAX);
    let text = token.to_string();
    assert_eq!(text.parse(), Ok(token));
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
    let written = OfferedResume::to_entry(&text, received);
    let read = entries.iter().find(|entry| entry.starts_with(RESUME_PREFIX)).expect("there is one");
    assert_eq!(**read, written, "a second text for one offer");
    let again = Offer::parse([V1, &written].into_iter()).expect("it is an offer");
    assert_eq!(again.resume, Some(OfferedResume::Well { token, received }), "{written}");
    // All but the public part: the id stands in logs.
    let shown = format!("{again:?}").replace(&token.session.to_string(), "the id");
    assert!(!shown.contains(&text[text.len() - 22..]), "a secret is shown: {shown}");
}

/// Whether an entry has the form of PROTOCOL.md section 9; whether its token can be read is another matter.
fn is_well(entry: &str) -> bool {
    let mut parts = entry.split('.');
    let (prefix, token, count) = (parts.next(), parts.next(), parts.next());
    let is_count = |text: &str| u64::from_str_radix(text, 36).is_ok_and(|count| count <= COUNT_MAX);
    let is_shortest = |text: &str| text == "0" || !text.starts_with('0');
    let is_digits =
        |text: &str| is_shortest(text) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'));
    prefix == Some("pgr")
        && token.is_some_and(|token| token.parse::<Token>().is_ok())
        && count.is_some_and(|count| (1..=11).contains(&count.len()) && is_digits(count) && is_count(count))
        && parts.next().is_none()
}
