//! Envelopes: what is written reads back, and what breaks the rules is named.

use std::time::Duration;

use proptest::prelude::*;

use crate::v1::*;

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..300, 0..=COUNT_MAX, Just(COUNT_MAX)]
}

fn ack() -> impl Strategy<Value = Ack> {
    (count(), proptest::option::of((count(), count()))).prop_map(|(handled, window)| Ack { handled, window })
}

/// Writes the envelope and reads it back.
fn round_trip(envelope: &Envelope<'_>) {
    let mut wire = Vec::new();
    envelope.write(&mut wire);
    assert_eq!(Envelope::parse(&wire).as_ref(), Ok(envelope));
}

proptest! {
    #[test]
    fn what_is_written_reads_back(ack in ack(), a in count(), b in 1..=COUNT_MAX, small: u8, payload: Vec<u8>, text in ".{0,40}",
                                  ttl_ms in proptest::option::of(count()), ack_now: bool,
                                  key in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=KEY_BYTES_MAX))) {
        round_trip(&Envelope::Binary(&payload));
        round_trip(&Envelope::Ack(ack));
        round_trip(&Envelope::Probe);
        round_trip(&Envelope::ProbeAck(ack));
        for reason in [SkipReason::Expired, SkipReason::Dropped, SkipReason::Other(small.max(2))] {
            round_trip(&Envelope::Skip { count: b, reason });
        }
        round_trip(&Envelope::Meta(Meta { ttl_ms, ack_now, key: key.as_deref() }));
        for code in [NackCode::Expired, NackCode::AppGone, NackCode::Other(a.max(3))] {
            round_trip(&Envelope::Nack { seq: b, code, reason: &text });
        }
        round_trip(&Envelope::Welcome(Welcome {
            resumed: ack_now, received: a, next: b, token: &text, resume_window_s: a, window_messages: b, window_kib: a,
            ack: AckRules { messages: a, kib: b, delay: Duration::from_millis(a) }, heartbeat_ms: b, features: a,
        }));
        for counters in [None, Some((a, b))] {
            for code in [ResumeFailCode::Unknown, ResumeFailCode::Ended, ResumeFailCode::Position, ResumeFailCode::Origin] {
                round_trip(&Envelope::ResumeFail(ResumeFail { code, counters }));
            }
        }
        round_trip(&Envelope::Bye { received: a, sent: b });
    }

    /// Whatever the bytes, reading ends without a panic; and what is accepted is written as it was read, unless it has
    /// parts that are newer than this reader.
    #[test]
    fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(envelope) = Envelope::parse(&bytes) {
            let is_open = matches!(envelope, Envelope::Welcome(_) | Envelope::Meta(_) | Envelope::Ignorable(_) | Envelope::ResumeFail(_));
            let mut wire = Vec::new();
            envelope.write(&mut wire);
            prop_assert!(is_open || wire == bytes, "{envelope:?}");
        }
    }
}

#[test]
fn what_breaks_the_rules_is_named() {
    use EnvelopeError::*;
    let long_key = [&[0x05, 3, 65][..], &[7; 65]].concat();
    let cases: &[(&[u8], EnvelopeError)] = &[
        (&[], Empty),
        (&[0x01], Truncated),
        (&[0x01, 0x80], Truncated),
        (&[0x01, 5, 6], Truncated),
        (&[0x01, 5, 6, 7, 8], Trailing),
        (&[0x02, 0], Trailing),
        (&[0x01, 0x80, 0x00], Number),
        (&[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x10], Number),
        (&[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Number),
        (&[0x04, 0, 0], Value),
        (&[0x04, 1], Truncated),
        (&[0x05, 1, 2, 5, 5], Trailing),
        (&[0x05, 3, 0], Value),
        (&long_key, Value),
        (&[0x05, 9, 4, 1], Truncated),
        (&[0x06, 1, 1, 0xff], Text),
        (&[0x07], UnknownTag(0x07)),
        (&[0x0b], UnknownTag(0x0b)),
        (&[0x3f], UnknownTag(0x3f)),
        (&[0x80], ReservedTag(0x80)),
        (&[0xff], ReservedTag(0xff)),
    ];
    for (wire, error) in cases {
        assert_eq!(Envelope::parse(wire), Err(*error), "{wire:02x?}");
    }
    let most = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(Envelope::parse(&most), Ok(Envelope::Ack(Ack { handled: COUNT_MAX, window: None })));
}

#[test]
fn what_is_newer_and_optional_is_passed_over() {
    assert_eq!(Envelope::parse(&[0x40, 1, 2, 3]), Ok(Envelope::Ignorable(0x40)));
    assert_eq!(Envelope::parse(&[0x7f]), Ok(Envelope::Ignorable(0x7f)));
    let meta = [0x05, 9, 2, 1, 1, 2, 0];
    assert_eq!(Envelope::parse(&meta), Ok(Envelope::Meta(Meta { ack_now: true, ..Meta::default() })));
    let mut welcome = Vec::new();
    let rules = AckRules { messages: 16, kib: 16, delay: Duration::from_millis(750) };
    let told = Welcome {
        resumed: true,
        received: 1,
        next: 2,
        token: "t",
        resume_window_s: 120,
        window_messages: 1024,
        window_kib: 256,
        ack: rules,
        heartbeat_ms: 4000,
        features: 0,
    };
    Envelope::Welcome(told.clone()).write(&mut welcome);
    welcome.extend_from_slice(&[1, 2, 3]);
    assert_eq!(Envelope::parse(&welcome), Ok(Envelope::Welcome(told)));
}

#[test]
fn each_code_tells_the_client_what_to_do() {
    for code in Code::ALL {
        let expected = match code {
            Code::LivenessTimeout | Code::Internal | Code::Draining => After::Resume,
            Code::Replaced | Code::AppClosed => After::Done,
            Code::ProtocolError
            | Code::TokenUnknown
            | Code::OriginMismatch
            | Code::SessionExpired
            | Code::TooBig
            | Code::Limit => After::Restart,
        };
        assert_eq!(After::close(Some(code.number())), expected, "{code:?}");
    }
    assert_eq!(After::close(None), After::Resume);
    assert_eq!(After::app_close("1000 bye now"), (After::Done, Some(1000), "bye now"));
    assert_eq!(After::app_close("1005"), (After::Done, Some(1005), ""));
    assert_eq!(
        After::app_close("1006 app connection lost"),
        (After::Restart, Some(1006), "app connection lost")
    );
    assert_eq!(After::app_close("1012"), (After::Restart, Some(1012), ""));
    assert_eq!(After::app_close("what?"), (After::Done, Some(4411), "what?"));
    assert_eq!(After::close(Some(1000)), After::Done);
    assert!(After::detaches(Some(1001)) && !After::detaches(Some(1000)) && !After::detaches(None));
}
