//! Offers and tokens.

use proptest::prelude::*;

use crate::IdSource;
use crate::v1::*;

const TOKEN: &str = "01j0000000000000000000000aAAECAwQFBgcICQoLDA0ODw";

fn offer<'a>(entries: &[&'a str]) -> Option<Offer<'a>> {
    Offer::parse(entries.iter().copied())
}

fn resume(entry: &str) -> Option<OfferedResume> {
    offer(&["pulsegate.v1", entry]).and_then(|offer| offer.resume)
}

proptest! {
    #[test]
    fn tokens_and_positions_read_back(secret: [u8; 16], time in 0u64..1 << 48, received in prop_oneof![0u64..100, 0..=COUNT_MAX]) {
        let token = Token { session: IdSource::new(time, 7).next(), secret: Secret(secret) };
        let text = token.to_string();
        prop_assert_eq!(text.len(), 48);
        prop_assert_eq!(text.parse(), Ok(token));
        let entry = OfferedResume::to_entry(&text, received);
        prop_assert_eq!(resume(&entry), Some(OfferedResume::Well { token, received }));
    }

    #[test]
    fn any_entry_is_safe(entry in "[!-~]{0,80}") {
        let _ = resume(&entry);
        let _ = resume(&format!("pgr.{entry}"));
    }
}

#[test]
fn an_offer_keeps_its_entries_from_the_app() {
    let offer = offer(&["pulsegate.v1+chat.v2", "pulsegate.v1", "chat.v2"]).unwrap();
    assert_eq!(offer.answer(Some("chat.v2")), Some("pulsegate.v1+chat.v2"));
    assert_eq!(offer.answer(None), Some("pulsegate.v1"));
    assert_eq!(offer.answer(Some("other")), None);
    assert_eq!(offer.first(), ("pulsegate.v1+chat.v2", Some("chat.v2")));
    assert_eq!(offer.resume, None);
    for ours in ["pulsegate.v1", "pulsegate.v1+x", "pgr.", "pgr.x.y"] {
        assert!(Offer::is_ours(ours), "{ours}");
    }
    for of_app in ["chat.v2", "pulsegate.v10", "pulsegate.v2", "pgr", "xpgr.a"] {
        assert!(!Offer::is_ours(of_app), "{of_app}");
    }
}

#[test]
fn without_an_entry_of_ours_there_is_no_offer() {
    for entries in [&[][..], &["chat.v2"], &["pulsegate.v10"], &["pulsegate.v1+"], &["pgr.x.0"]] {
        assert_eq!(offer(entries), None, "{entries:?}");
    }
}

#[test]
fn a_wish_that_can_t_be_read_is_told_from_none() {
    let good = format!("pgr.{TOKEN}.z");
    assert!(matches!(resume(&good), Some(OfferedResume::Well { received: 35, .. })));
    let bad = [
        "pgr.".to_owned(),
        format!("pgr.{TOKEN}"),
        format!("pgr.{TOKEN}."),
        format!("pgr.{TOKEN}.-1"),
        format!("pgr.{TOKEN}.+1"),
        format!("pgr.{TOKEN}.Z"),
        format!("pgr.{TOKEN}.zzzzzzzzzzz"),
        format!("pgr.{TOKEN}.zzzzzzzzzzzz"),
        format!("pgr.{}.0", &TOKEN[1..]),
        format!("pgr.{TOKEN}A.0"),
        format!("pgr.{}=.0", &TOKEN[..47]),
        "pgr.ü.0".to_owned(),
    ];
    for entry in bad {
        assert_eq!(resume(&entry), Some(OfferedResume::Ill), "{entry}");
    }
    let twice = offer(&["pulsegate.v1", &good, &good]).unwrap();
    assert_eq!(twice.resume, Some(OfferedResume::Ill));
}

#[test]
fn a_secret_is_not_shown() {
    let token: Token = TOKEN.parse().unwrap();
    assert!(format!("{token:?}").ends_with("secret: Secret(..) }"));
}
