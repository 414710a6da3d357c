//! Durations and sizes as people write them: `1m30s`, `64KiB`.

use std::time::Duration;

use super::text::brief;

/// Unit names, longest first: a duration names each at most once, in this order.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Unit names, largest first; all binary, since buffers are.
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads `250ms`, `5s`, `1m30s` or `0`.
///
/// # Errors
/// A sentence about the first thing that is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut next_unit = 0;
    let mut total_ms = 0u64;
    while !rest.is_empty() {
        let (number, after_number) = split_number(rest)?;
        let unit_end = after_number.find(|c: char| c.is_ascii_digit()).unwrap_or(after_number.len());
        let (unit, after_unit) = after_number.split_at(unit_end);
        if unit.is_empty() {
            return Err(format!("`{number}` has no unit: write for example \"{number}s\" or \"{number}ms\""));
        }
        let index = DURATION_UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(|| format!("unknown unit `{}`: durations use ms, s, m, h and d", brief(unit)))?;
        if index < next_unit {
            return Err("units go from long to short, each at most once: \"1m30s\"".into());
        }
        next_unit = index + 1;
        total_ms = number
            .checked_mul(DURATION_UNITS[index].1)
            .and_then(|part| total_ms.checked_add(part))
            .ok_or("that is longer than any clock runs")?;
        rest = after_unit;
    }
    if text.is_empty() {
        return Err("empty: write a duration such as \"5s\"".into());
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes the canonical form that [`parse_duration`] reads; anything below a millisecond is cut.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0".into();
    }
    let mut text = String::new();
    for (unit, unit_ms) in DURATION_UNITS {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    text
}

/// Reads `1500` or `64KiB` as bytes.
///
/// # Errors
/// A sentence about the first thing that is wrong.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text)?;
    let factor = match unit {
        "" | "B" => 1,
        other => SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == other)
            .map(|(_, factor)| *factor)
            .ok_or_else(|| format!("unknown unit `{}`: sizes use B, KiB, MiB and GiB", brief(other)))?,
    };
    number.checked_mul(factor).ok_or_else(|| "that is more bytes than 64 bits can count".into())
}

/// Writes the canonical form that [`parse_size`] reads: the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    for (unit, factor) in SIZE_UNITS {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Splits off a leading whole number.
fn split_number(text: &str) -> Result<(u64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Err(match text.chars().next() {
            None => "empty: a number is missing".into(),
            Some('-') => "it can't be negative".into(),
            Some(other) => format!("a number must come before `{}`", other.escape_default()),
        });
    }
    if rest.starts_with('.') {
        return Err("only whole numbers: write \"1s500ms\" for one and a half seconds".into());
    }
    let number = digits.parse().map_err(|_| format!("`{}` is too large", brief(digits)))?;
    Ok((number, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_written() {
        let cases = [
            ("0", 0),
            ("250ms", 250),
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90s", 90_000),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn bad_durations_say_what_is_wrong() {
        let cases = [
            ("", "empty"),
            ("5", "no unit"),
            ("5 s", "unknown unit"),
            ("5sec", "unknown unit"),
            ("1.5s", "whole numbers"),
            ("-5s", "negative"),
            ("30s1m", "long to short"),
            ("1s1s", "long to short"),
            ("s", "a number must come"),
            ("99999999999999999999s", "too large"),
            ("18446744073709551615d", "longer than any clock"),
        ];
        for (text, expected) in cases {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn sizes_read_as_written() {
        let cases =
            [("0", 0), ("1500", 1500), ("7B", 7), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "KiB", "1KB", "1 MiB", "-1", "1.5MiB", "99999999999999999999", "18446744073709551615GiB"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in any::<u64>(), bytes in any::<u64>()) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_answered_in_words(text in "[0-9]*(?s).*") {
            let answers = [parse_duration(&text).err(), parse_size(&text).err()];
            prop_assert!(!answers.iter().flatten().any(|error| error.contains(char::is_control)), "{answers:?}");
        }
    }
}
