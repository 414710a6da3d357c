//! Columns for people, and text from strangers made harmless for a terminal.

/// Aligns rows under their headings; the last column is left as wide as it is.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Replaces control characters: labels, paths and close reasons come from clients, and a terminal obeys them.
pub(super) fn clean(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(harmless).collect()
}

/// A time in two units at most: `3d 4h`, `5m 2s`, `1.5s`, `12ms`.
pub(super) fn short_time(seconds: f64) -> String {
    const DAY_S: u64 = 86_400;
    let whole = seconds as u64;
    let two = |big: u64, unit: &str, rest: u64, small: &str| match rest {
        0 => format!("{big}{unit}"),
        rest => format!("{big}{unit} {rest}{small}"),
    };
    if seconds < 1.0 {
        format!("{:.0}ms", seconds * 1e3)
    } else if whole < 60 {
        format!("{seconds:.1}s")
    } else if whole < 3600 {
        two(whole / 60, "m", whole % 60, "s")
    } else if whole < DAY_S {
        two(whole / 3600, "h", whole % 3600 / 60, "m")
    } else {
        two(whole / DAY_S, "d", whole % DAY_S / 3600, "h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["ü".to_owned(), "1".to_owned(), "x".to_owned()],
            vec!["long".to_owned(), String::new(), String::new()],
        ];
        assert_eq!(table(&["A", "NUMBER", "C"], &rows), "A     NUMBER  C\nü     1       x\nlong\n");
    }

    #[test]
    fn a_terminal_is_given_no_orders() {
        assert_eq!(clean("a\u{1b}[2Jb\n\u{9b}ü"), "a\\u{1b}[2Jb\\n\\u{9b}ü");
    }

    #[test]
    fn times_are_short() {
        for (seconds, expected) in [
            (0.0, "0ms"),
            (0.0124, "12ms"),
            (1.52, "1.5s"),
            (60.0, "1m"),
            (302.9, "5m 2s"),
            (3600.0, "1h"),
            (90_061.0, "1d 1h"),
        ] {
            assert_eq!(short_time(seconds), expected);
        }
    }
}
