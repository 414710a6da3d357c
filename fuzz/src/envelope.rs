//! The words of `pulsegate.v1`, and the messages that carry them.

use pulsegate_core::v1::{Assembler, COUNT_MAX, Envelope, KEY_BYTES_MAX, Piece};
use pulsegate_core::{Direction, FrameLimits, FrameReader, Head, Opcode, ReservedBits, Violation};

/// Bytes of options before the rest.
const OPTION_BYTES: usize = 4;

/// Small, so that inputs reach them.
const LIMITS: FrameLimits = FrameLimits { frame_bytes_max: 4096, message_bytes_max: 6000, fragments_max: 6 };

/// Reads an envelope, or messages and the envelopes in them, and asserts:
/// - what is accepted is written, reads back as the same, and is written the same again; unless it has room for what is
///   newer than the reader, the first writing gives the very bytes that were read;
/// - no number is beyond `COUNT_MAX`, no key beyond its length;
/// - an assembler tells the same messages, byte for byte, however the reads split, and those are the messages that a plain
///   reading of all frames at once finds; it tells a violation where the frame reader alone does, or text that is no UTF-8.
///
/// The input is 4 bytes of options, then an envelope or frames of one direction: flags (1 frames, 2 from the app), and three
/// lengths of slices.
pub fn envelope(input: &[u8]) {
    let Some((&[flags, slices @ ..], rest)) = input.split_first_chunk::<OPTION_BYTES>() else { return };
    if flags & 1 == 0 {
        check_envelope(rest);
        return;
    }
    let direction = if flags & 2 == 0 { Direction::FromClient } else { Direction::FromApp };
    let expected = read_plainly(rest, direction);
    let slices = slices.map(|len| usize::from(len).max(1));
    for slices in [&[rest.len().max(1)], &[1][..], &slices] {
        assert_eq!(assemble(rest, direction, slices), expected, "in slices of {slices:?}");
    }
    for message in &expected.messages {
        if !message.text {
            check_envelope(&message.payload);
        }
    }
}

fn check_envelope(wire: &[u8]) {
    let envelope = match Envelope::parse(wire) {
        Ok(envelope) => envelope,
        Err(error) => {
            assert!(!error.as_str().is_empty());
            return;
        }
    };
    check_bounds(&envelope);
    let mut again = Vec::new();
    envelope.write(&mut again);
    assert_eq!(Envelope::parse(&again).as_ref(), Ok(&envelope), "{wire:02x?} written and read");
    assert!(again.len() <= wire.len(), "{wire:02x?} has grown: {again:02x?}");
    assert!(is_open(&envelope) || again == wire, "{wire:02x?} is written as {again:02x?}");
    let mut third = Vec::new();
    Envelope::parse(&again).expect("it was read before").write(&mut third);
    assert_eq!(third, again, "written again");
}

/// Whether it may have held what is newer than its reader: that is passed over, and not kept.
fn is_open(envelope: &Envelope<'_>) -> bool {
    match envelope {
        Envelope::Meta(_) | Envelope::Welcome(_) | Envelope::ResumeFail(_) | Envelope::Ignorable(_) => true,
        Envelope::Binary(_)
        | Envelope::Ack(_)
        | Envelope::Probe
        | Envelope::ProbeAck(_)
        | Envelope::Skip { .. }
        | Envelope::Nack { .. }
        | Envelope::Bye { .. } => false,
    }
}

fn check_bounds(envelope: &Envelope<'_>) {
    let numbers = match envelope {
        Envelope::Binary(_) | Envelope::Probe => vec![],
        Envelope::Ack(ack) | Envelope::ProbeAck(ack) => {
            let (messages, kib) = ack.window.unwrap_or_default();
            vec![ack.handled, messages, kib]
        }
        Envelope::Skip { count, .. } => {
            assert!(*count > 0, "a SKIP over nothing");
            vec![*count]
        }
        Envelope::Meta(meta) => {
            assert!(meta.key.is_none_or(|key| (1..=KEY_BYTES_MAX).contains(&key.len())), "{meta:?}");
            vec![meta.ttl_ms.unwrap_or_default()]
        }
        Envelope::Nack { seq, .. } => vec![*seq],
        Envelope::Welcome(welcome) => vec![
            welcome.received,
            welcome.next,
            welcome.resume_window_s,
            welcome.window_messages,
            welcome.window_kib,
            welcome.ack.messages,
            welcome.ack.kib,
            welcome.heartbeat_ms,
            welcome.features,
        ],
        Envelope::ResumeFail(fail) => {
            let (received, acked) = fail.counters.unwrap_or_default();
            vec![received, acked]
        }
        Envelope::Bye { received, sent } => vec![*received, *sent],
        Envelope::Ignorable(tag) => {
            assert!((0x40..0x80).contains(tag), "{tag:02x} is ignored");
            vec![]
        }
    };
    assert!(numbers.iter().all(|number| *number <= COUNT_MAX), "{numbers:?}");
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    messages: Vec<Message>,
    controls: usize,
    violation: Option<Violation>,
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    text: bool,
    payload: Vec<u8>,
}

fn reader(direction: Direction) -> FrameReader {
    FrameReader::new(direction, ReservedBits::None, LIMITS)
}

/// Feeds the assembler as a driver does.
fn assemble(wire: &[u8], direction: Direction, slices: &[usize]) -> Told {
    let (mut reader, mut assembler) = (reader(direction), Assembler::default());
    let (mut told, mut kept, mut rest) = (Told::default(), Vec::new(), wire);
    for &slice in slices.iter().cycle() {
        let (read, behind) = rest.split_at(slice.min(rest.len()));
        kept.extend_from_slice(read);
        rest = behind;
        let mut at = 0;
        loop {
            let used = match assembler.next(&mut reader, &mut kept[at..]) {
                Ok(Piece::Message { text, payload, used }) => {
                    told.messages.push(Message { text, payload: payload.to_vec() });
                    used
                }
                Ok(Piece::Part { used }) => used,
                Ok(Piece::Control { used, .. }) => {
                    told.controls += 1;
                    used
                }
                Ok(Piece::Wait) => break,
                Err(violation) => {
                    told.violation = Some(violation);
                    return told;
                }
            };
            assert!(used > 0, "a step of nothing never ends");
            at += used;
            assembler.shrink(&reader);
        }
        kept.drain(..at);
        if rest.is_empty() {
            break;
        }
    }
    told
}

/// Reads frame by frame over the whole input; heads are checked by a frame reader that gets one frame at a time.
fn read_plainly(wire: &[u8], direction: Direction) -> Told {
    let mut reader = reader(direction);
    let (mut told, mut rest) = (Told::default(), wire);
    let mut message: Option<Message> = None;
    loop {
        if let Err(violation) = reader.next(rest, true) {
            told.violation = Some(violation);
            return told;
        }
        let Ok(Some(head)) = Head::parse(rest) else { return told };
        let whole =
            usize::try_from(head.payload_len).ok().and_then(|len| rest.get(head.head_len..)?.get(..len));
        let Some(payload) = whole else { return told };
        let key = head.mask.unwrap_or_default();
        let plain = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        rest = &rest[head.head_len + payload.len()..];
        match head.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                told.controls += 1;
                continue;
            }
            Opcode::Text | Opcode::Binary => {
                message = Some(Message { text: head.opcode == Opcode::Text, payload: plain.collect() });
            }
            Opcode::Continuation => message.as_mut().expect("the reader checks that").payload.extend(plain),
        }
        if let Some(whole) = message.take_if(|_| head.fin) {
            if whole.text && str::from_utf8(&whole.payload).is_err() {
                told.violation = Some(Violation::InvalidUtf8);
                return told;
            }
            told.messages.push(whole);
        }
    }
}
