//! The examples of PROTOCOL.md, executed: what it says to those who write a client is what this code does.

use std::collections::BTreeSet;

use crate::v1::*;

const DOCUMENT: &str = include_str!("../../../../../PROTOCOL.md");

/// Every kind of envelope, as the document names them.
const KINDS: [&str; 11] = [
    "ACK",
    "BINARY",
    "BYE",
    "IGNORABLE",
    "META",
    "NACK",
    "PROBE",
    "PROBE_ACK",
    "RESUME_FAIL",
    "SKIP",
    "WELCOME",
];

/// What has to stand in an example, besides.
const WORDS: [&str; 14] = [
    " window_messages=1024 window_kib=256",
    "META ttl_ms=5000 ack_now key=\"abc\"",
    "SKIP count=3 reason=expired",
    "reason=dropped",
    "code=expired",
    "code=app_gone",
    "WELCOME received=",
    "WELCOME resumed",
    "RESUME_FAIL code=unknown",
    "code=ended received=7 acked=11",
    "code=position",
    "code=origin",
    "PROBE_ACK handled=5",
    "payload=\"\"",
];

/// Returns the lines of all blocks with this tag, and where each stands.
fn block(tag: &str) -> Vec<(usize, &'static str)> {
    let fence = format!("```{tag}");
    let mut lines = Vec::new();
    let mut within = false;
    for (index, line) in DOCUMENT.lines().enumerate() {
        if within && line == "```" {
            within = false;
        } else if within {
            lines.push((index + 1, line));
        } else if line == fence {
            within = true;
        }
    }
    assert!(!within && !lines.is_empty(), "no block {tag}, or no end of it");
    lines
}

/// Returns the examples of a block: where each ends, its bytes, and what they say.
fn examples(tag: &str) -> Vec<(usize, Vec<u8>, String)> {
    let mut examples: Vec<(usize, Vec<u8>, String)> = Vec::new();
    let mut wire = Vec::new();
    for (line, text) in block(tag) {
        if let Some(more) = text.strip_prefix("  ") {
            let (_, _, said) = examples.last_mut().unwrap_or_else(|| panic!("line {line}: of what?"));
            said.push(' ');
            said.push_str(more.trim());
            continue;
        }
        let (bytes, said) = text.split_once("  ").unwrap_or((text, ""));
        read_bytes(bytes, &mut wire).unwrap_or_else(|| panic!("line {line}: bytes {bytes:?}"));
        if !said.is_empty() {
            examples.push((line, std::mem::take(&mut wire), said.trim().to_owned()));
        }
    }
    assert!(wire.is_empty(), "bytes of {tag} that say nothing");
    examples
}

/// Reads hex and text in quotes; `-` is nothing.
fn read_bytes(text: &str, wire: &mut Vec<u8>) -> Option<()> {
    let mut rest = text.trim();
    while !rest.is_empty() && rest != "-" {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (ascii, behind) = quoted.split_once('"')?;
            wire.extend_from_slice(ascii.as_bytes());
            rest = behind.trim_start();
        } else {
            let (byte, behind) = rest.split_at_checked(2)?;
            wire.push(u8::from_str_radix(byte, 16).ok()?);
            rest = behind.trim_start();
        }
    }
    Some(())
}

/// Says what an envelope says: its kind first.
fn say(envelope: &Envelope<'_>) -> String {
    match envelope {
        Envelope::Binary(payload) => format!("BINARY payload=\"{}\"", payload.escape_ascii()),
        Envelope::Ack(ack) => format!("ACK {}", say_ack(ack)),
        Envelope::Probe => "PROBE".to_owned(),
        Envelope::ProbeAck(ack) => format!("PROBE_ACK {}", say_ack(ack)),
        Envelope::Skip { count, reason } => {
            let reason = match reason {
                SkipReason::Expired => "expired".to_owned(),
                SkipReason::Dropped => "dropped".to_owned(),
                SkipReason::Other(byte) => byte.to_string(),
            };
            format!("SKIP count={count} reason={reason}")
        }
        Envelope::Meta(meta) => say_meta(meta),
        Envelope::Nack { seq, code, reason } => {
            let code = match code {
                NackCode::Expired => "expired".to_owned(),
                NackCode::AppGone => "app_gone".to_owned(),
                NackCode::Other(number) => number.to_string(),
            };
            format!("NACK seq={seq} code={code} reason={reason:?}")
        }
        Envelope::Welcome(welcome) => say_welcome(welcome),
        Envelope::ResumeFail(ResumeFail { code, counters }) => {
            let code = match code {
                ResumeFailCode::Unknown
                | ResumeFailCode::Ended
                | ResumeFailCode::Position
                | ResumeFailCode::Origin => code.as_str().to_owned(),
                ResumeFailCode::Other(number) => number.to_string(),
            };
            let counters = counters.map(|(received, acked)| format!(" received={received} acked={acked}"));
            format!("RESUME_FAIL code={code}{}", counters.unwrap_or_default())
        }
        Envelope::Bye { received, sent } => format!("BYE received={received} sent={sent}"),
        Envelope::Ignorable(tag) => format!("IGNORABLE tag={tag:02x}"),
    }
}

fn say_ack(ack: &Ack) -> String {
    let Ack { handled, window } = ack;
    let window = window.map(|(messages, kib)| format!(" window_messages={messages} window_kib={kib}"));
    format!("handled={handled}{}", window.unwrap_or_default())
}

fn say_meta(meta: &Meta<'_>) -> String {
    let Meta { ttl_ms, ack_now, key } = meta;
    let mut words = vec!["META".to_owned()];
    words.extend(ttl_ms.map(|ms| format!("ttl_ms={ms}")));
    words.extend(ack_now.then(|| "ack_now".to_owned()));
    words.extend(key.map(|key| format!("key=\"{}\"", key.escape_ascii())));
    words.join(" ")
}

fn say_welcome(welcome: &Welcome<'_>) -> String {
    let Welcome {
        resumed,
        received,
        next,
        token,
        resume_window_s,
        window_messages,
        window_kib,
        ack: AckRules { messages, kib, delay },
        heartbeat_ms,
        features,
    } = welcome;
    let resumed = if *resumed { " resumed" } else { "" };
    let delay_ms = delay.as_millis();
    format!(
        "WELCOME{resumed} received={received} next={next} token={token:?} \
         resume_window_s={resume_window_s} window_messages={window_messages} window_kib={window_kib} \
         ack_messages={messages} ack_kib={kib} ack_delay_ms={delay_ms} \
         heartbeat_ms={heartbeat_ms} features={features}"
    )
}

fn written(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    envelope.write(&mut wire);
    wire
}

#[test]
fn envelopes_say_what_the_document_says() {
    let mut kinds = BTreeSet::new();
    let mut all = String::new();
    for (line, wire, said) in examples("v1") {
        let envelope = Envelope::parse(&wire).unwrap_or_else(|error| panic!("line {line}: {error:?}"));
        assert_eq!(say(&envelope), said, "line {line}");
        assert_eq!(written(&envelope), wire, "line {line}, written again");
        kinds.extend(said.split(' ').next().map(str::to_owned));
        all.push_str(&said);
        all.push('\n');
    }
    assert!(kinds.iter().eq(KINDS.iter()), "not all kinds have an example, or there is a new one: {kinds:?}");
    for word in WORDS {
        assert!(all.contains(word), "no example of {word}");
    }
}

#[test]
fn what_is_newer_is_read_as_the_document_says() {
    for (line, wire, said) in examples("v1-newer") {
        let envelope = Envelope::parse(&wire).unwrap_or_else(|error| panic!("line {line}: {error:?}"));
        assert_eq!(say(&envelope), said, "line {line}");
        let again = written(&envelope);
        assert_ne!(again, wire, "line {line} belongs to the other block");
        assert_eq!(Envelope::parse(&again), Ok(envelope), "line {line}, written again");
    }
}

#[test]
fn what_the_document_refuses_is_refused() {
    let mut errors = BTreeSet::new();
    for (line, wire, said) in examples("v1-invalid") {
        let error = Envelope::parse(&wire).err().unwrap_or_else(|| panic!("line {line} is valid"));
        assert_eq!(error.as_str(), said, "line {line}");
        errors.insert(error.as_str());
    }
    assert_eq!(errors.len(), 8, "not every error has an example: {errors:?}");
}

#[test]
fn numbers_are_what_the_document_says() {
    for (line, wire, said) in examples("v1-number") {
        let mut rest = &wire[..];
        match varint::read(&mut rest) {
            Ok(number) => {
                assert_eq!((number.to_string(), rest), (said, &[][..]), "line {line}");
                let mut again = Vec::new();
                varint::write(&mut again, number);
                assert_eq!(again, wire, "line {line}, written again");
            }
            Err(EnvelopeError::Truncated) => assert_eq!(said, "cut off", "line {line}"),
            Err(error) => {
                assert_eq!((error, &*said), (EnvelopeError::Number, "invalid"), "line {line}");
            }
        }
    }
}

#[test]
fn offers_are_read_as_the_document_says() {
    let lines: Vec<(usize, &str)> =
        block("v1-offer").into_iter().filter(|(_, line)| !line.is_empty()).collect();
    let mut resumes = BTreeSet::new();
    for example in lines.chunks(5) {
        let [(line, header), (_, offered), (_, chosen), (_, answered), (_, resume)] = *example else {
            panic!("five lines to an example: {example:?}");
        };
        let value = |text: &'static str, name: &str| {
            text.strip_prefix(name).unwrap_or_else(|| panic!("line {line}: {name:?} is missing in {text:?}"))
        };
        let entries: Vec<&str> = value(header, "Sec-WebSocket-Protocol: ").split(", ").collect();
        let of_app: Vec<&str> = entries.iter().copied().filter(|entry| !Offer::is_ours(entry)).collect();
        let or_nothing = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        assert_eq!(or_nothing(of_app.join(", ")), value(offered, "app is offered: "), "line {line}");
        let chosen = Some(value(chosen, "app chooses: ")).filter(|chosen| *chosen != "-");
        assert!(chosen.is_none_or(|chosen| of_app.contains(&chosen)), "line {line}: that was not offered");
        let offer = Offer::parse(entries.iter().copied());
        let answer = offer.as_ref().and_then(|offer| offer.answer(chosen)).or(chosen);
        assert_eq!(answer.unwrap_or("-"), value(answered, "client is answered: "), "line {line}");
        let read = match offer.and_then(|offer| offer.resume) {
            None => "none".to_owned(),
            Some(OfferedResume::Ill) => "invalid".to_owned(),
            Some(OfferedResume::Well { token, received }) => {
                let entry = OfferedResume::to_entry(&token.to_string(), received);
                assert!(entries.contains(&&*entry), "line {line}: {entry} is what a client writes");
                format!("session={} received={received}", token.session)
            }
        };
        assert_eq!(read, value(resume, "resume: "), "line {line}");
        resumes.insert(read);
    }
    assert!(resumes.contains("none") && resumes.contains("invalid") && resumes.len() == 4, "{resumes:?}");
}

/// Returns the rows of the table with this head: the code (`None`: cut) and the last cell.
fn codes(head: &str) -> Vec<(Option<u16>, &'static str)> {
    let mut rows = DOCUMENT.lines().skip_while(|line| *line != head).skip(2);
    let mut codes = Vec::new();
    while let Some(row) = rows.next().and_then(|row| row.strip_prefix("| ")?.strip_suffix(" |")) {
        let (code, rest) = row.split_once(" | ").expect("more than one cell");
        let (_, last) = rest.rsplit_once(" | ").expect("three cells");
        assert!(code == "cut" || code.parse::<u16>().is_ok(), "{row}");
        codes.push((code.parse().ok(), last));
    }
    assert!(!codes.is_empty(), "no table {head:?}");
    codes
}

#[test]
fn close_codes_mean_what_the_document_says() {
    let of_gateway = codes("| code | meaning | client |");
    for (code, rule) in &of_gateway {
        let expected = match After::close(*code) {
            After::Resume => "resume",
            After::Restart => "restart",
            After::Done => "done",
        };
        assert_eq!(*rule, expected, "{code:?}");
    }
    for code in Code::ALL {
        assert!(of_gateway.iter().any(|(known, _)| *known == Some(code.number())), "{code:?} is missing");
    }
    for code in (1000..5000).filter(|code| of_gateway.iter().all(|(known, _)| *known != Some(*code))) {
        let others = if (4400..4500).contains(&code) { After::Restart } else { After::Done };
        // 1006 never goes over the wire: it is an API's word for a cut.
        let expected = if code == 1006 { After::Resume } else { others };
        assert_eq!(After::close(Some(code)), expected, "{code}");
    }
}

#[test]
fn the_gateway_takes_a_client_s_close_as_the_document_says() {
    let of_client = codes("| code | who says so | gateway |");
    for (code, rule) in &of_client {
        // A connection without a Close is lost, and no matter of codes.
        let detaches = code.is_none() || After::detaches(*code);
        assert_eq!(*rule, if detaches { "detach" } else { "end" }, "{code:?}");
    }
    let known = |code: u16| code == 1006 || of_client.iter().any(|(known, _)| *known == Some(code));
    for code in (1000..5000).filter(|code| !known(*code)) {
        assert!(!After::detaches(Some(code)), "{code}");
    }
    assert!(!After::detaches(None), "a Close without a code");
}
