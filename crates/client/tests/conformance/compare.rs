//! Holds what the client did against what a script expects.

use std::fmt::{Debug, Formatter, Result as FmtResult};

use pulsegate_client::Event;

use crate::format::{self, Dial, Item, Outcome, Told, Written};

/// Bytes of a payload that a failure shows.
const SHOWN_MAX: usize = 40;

/// What the client did to its connection.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Frame { text: bool, payload: Vec<u8> },
    Close(u16),
    Drop,
}

impl Debug for Output {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Output::Frame { text, payload } => f.write_str(&show(*text, payload)),
            Output::Close(code) => write!(f, "close {code}"),
            Output::Drop => f.write_str("drop"),
        }
    }
}

#[derive(Debug)]
enum Pattern {
    One(Output),
    May(Output),
    AnyOrder(Vec<Output>),
}

/// The entries are of three kinds. Between kinds there is no order, except that this protocol's own come as they were
/// written.
pub(crate) fn compare_offer(dial: &Dial, offer: &[String]) -> Result<(), String> {
    let kind = |entry: &str| (entry.starts_with("pulsegate.v1"), entry.starts_with("pgr."));
    let sorted = |mut entries: Vec<String>| {
        entries.retain(|entry| !dial.may.contains(entry));
        entries.sort_by_key(|entry| kind(entry));
        entries
    };
    if sorted(dial.protocols.clone()) == sorted(offer.to_vec()) {
        return Ok(());
    }
    Err(format!("the client offers {offer:?}"))
}

pub(crate) fn compare_frames(expected: &[Written], frames: &[Output]) -> Result<(), String> {
    let patterns = expected.iter().map(pattern).collect::<Result<Vec<_>, _>>()?;
    if fits(&patterns, frames) {
        return Ok(());
    }
    Err(format!("frames\n  expected: {patterns:?}\n  written:  {frames:?}"))
}

fn fits(patterns: &[Pattern], frames: &[Output]) -> bool {
    let Some((first, rest)) = patterns.split_first() else { return frames.is_empty() };
    match first {
        Pattern::One(output) => frames.first() == Some(output) && fits(rest, &frames[1..]),
        Pattern::May(output) => {
            fits(rest, frames) || (frames.first() == Some(output) && fits(rest, &frames[1..]))
        }
        Pattern::AnyOrder(outputs) => {
            let Some((these, others)) = frames.split_at_checked(outputs.len()) else { return false };
            let mut left = outputs.clone();
            these.iter().all(|frame| {
                let place = left.iter().position(|output| output == frame);
                place.map(|place| left.remove(place)).is_some()
            }) && fits(rest, others)
        }
    }
}

fn pattern(written: &Written) -> Result<Pattern, String> {
    Ok(match written {
        Written::Item(one) => Pattern::One(output(one)?),
        Written::May(may) => Pattern::May(output(&may.may)?),
        Written::AnyOrder(all) => {
            Pattern::AnyOrder(all.any_order.iter().map(output).collect::<Result<_, _>>()?)
        }
    })
}

fn output(item: &Item) -> Result<Output, String> {
    Ok(match item {
        Item::Close(own) => Output::Close(own.close),
        Item::Drop(_) => Output::Drop,
        Item::Frame(frame) => {
            let (text, payload) = frame.bytes()?;
            Output::Frame { text, payload }
        }
    })
}

pub(crate) fn compare_events(expected: &[Told], events: &[Event]) -> Result<(), String> {
    let mut same = expected.len() == events.len();
    for (told, event) in expected.iter().zip(events) {
        same &= is_told(told, event)?;
    }
    if same {
        return Ok(());
    }
    let shown: Vec<String> = events.iter().map(show_event).collect();
    Err(format!("events\n  expected: {expected:?}\n  told:     {shown:?}"))
}

fn is_told(told: &Told, event: &Event) -> Result<bool, String> {
    Ok(match told {
        Told::Open {} => *event == Event::Live { resumed: false },
        Told::Resumed {} => *event == Event::Live { resumed: true },
        Told::Detached {} => *event == Event::Detached,
        Told::Reset {} => matches!(event, Event::Reset { .. }),
        Told::Unsupported {} => *event == Event::Unsupported,
        Told::Closed { code: expected, reason: wanted } => match event {
            Event::Closed { code, reason } => {
                code == expected && wanted.as_ref().is_none_or(|wanted| wanted == reason)
            }
            Event::Live { .. }
            | Event::Detached
            | Event::Reset { .. }
            | Event::Message { .. }
            | Event::Unsupported => false,
        },
        Told::Message { seq, text, binary, fill, times } => {
            let (text, payload) = format::bytes(text.as_deref(), binary.as_deref(), fill, *times)?;
            *event == Event::Message { seq: *seq, text, payload: payload.into() }
        }
    })
}

pub(crate) fn compare_outcomes(expected: &[Outcome], outcomes: &[Outcome]) -> Result<(), String> {
    if expected == outcomes {
        return Ok(());
    }
    Err(format!("outcomes\n  expected: {expected:?}\n  told:     {outcomes:?}"))
}

fn show_event(event: &Event) -> String {
    match event {
        Event::Message { seq, text, payload } => format!("message {seq} {}", show(*text, payload)),
        Event::Live { .. }
        | Event::Detached
        | Event::Reset { .. }
        | Event::Unsupported
        | Event::Closed { .. } => format!("{event:?}"),
    }
}

fn show(text: bool, payload: &[u8]) -> String {
    let head = &payload[..payload.len().min(SHOWN_MAX)];
    let shown = match text {
        true => format!("{:?}", String::from_utf8_lossy(head)),
        false => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let more = payload.len() - head.len();
    if more == 0 { shown } else { format!("{shown} and {more} bytes more") }
}
