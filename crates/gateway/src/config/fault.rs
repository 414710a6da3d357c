//! What can be wrong with a configuration, and where it was written.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Longest part of a source line that a message shows, in characters.
const EXCERPT_CHARS_MAX: usize = 100;

/// Characters shown before the place when a line has to be cut.
const EXCERPT_LEAD_CHARS: usize = 30;

/// One thing wrong with the configuration, with its place and, where there is one, the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// Where it was written.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the default holds.
    Default,
    /// A file as a whole: missing, not a file, too large.
    Path(Arc<str>),
    /// A part of a line of a file.
    Line(Line),
    /// An environment variable.
    Environment {
        /// The variable's name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A command-line flag, as typed.
    Flag(String),
}

/// A part of a line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file as named by the user.
    pub path: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The source line, or the part of it around the place; control characters are replaced.
    pub excerpt: String,
    /// Characters of `excerpt` before the place.
    lead: usize,
    /// Characters that the caret underlines.
    width: usize,
}

impl Fault {
    /// A fault without advice.
    pub fn new(place: Place, message: impl Into<String>) -> Fault {
        Fault { place, message: message.into(), help: None }
    }

    /// Adds what to do about it.
    pub fn help(self, help: impl Into<String>) -> Fault {
        Fault { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Default => f.write_str(&self.message)?,
            Place::Path(_) | Place::Line(_) | Place::Environment { .. } | Place::Flag(_) => {
                write!(f, "{}: {}", self.place, self.message)?;
            }
        }
        if let Place::Line(line) = &self.place {
            line.write_caret(f)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl Place {
    /// The place of `span` in `text`; a span outside the text points at its end.
    pub fn in_file(path: &Arc<str>, text: &str, span: Range<usize>) -> Place {
        let start = floor_char(text, span.start);
        let end = floor_char(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let column = text[line_start..start].chars().count();
        let width = text[start..end.min(line_end)].chars().count().max(1);
        let skipped = if column > EXCERPT_CHARS_MAX / 2 { column - EXCERPT_LEAD_CHARS } else { 0 };
        let excerpt: String = text[line_start..line_end]
            .chars()
            .skip(skipped)
            .take(EXCERPT_CHARS_MAX)
            .map(|c| if c == '\t' { ' ' } else { c })
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        let lead = column - skipped;
        Place::Line(Line {
            path: Arc::clone(path),
            line: text[..start].matches('\n').count() + 1,
            column: column + 1,
            excerpt: excerpt.trim_end().into(),
            lead,
            width: width.min(EXCERPT_CHARS_MAX - lead),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::Path(path) => f.write_str(path),
            Place::Line(line) => write!(f, "{}:{}:{}", line.path, line.line, line.column),
            Place::Environment { name, value } => {
                write!(f, "environment {}={}", name.escape_debug(), value.escape_debug())
            }
            Place::Flag(text) => write!(f, "flag {}", text.escape_debug()),
        }
    }
}

impl Line {
    fn write_caret(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let (lead, carets) = (" ".repeat(self.lead), "^".repeat(self.width));
        write!(f, "\n{gutter} |\n{number} | {}\n{gutter} | {lead}{carets}", self.excerpt)
    }
}

/// The largest character boundary that is not behind `index`.
fn floor_char(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault_at(text: &str, span: Range<usize>) -> String {
        Fault::new(Place::in_file(&"f.toml".into(), text, span), "no").to_string()
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        let text = "[a]\nü = 5x\n";
        let start = text.find("5x").unwrap();
        assert_eq!(fault_at(text, start..start + 2), "f.toml:2:5: no\n  |\n2 | ü = 5x\n  |     ^^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}here{}", "x".repeat(5000), "y".repeat(5000));
        let shown = fault_at(&text, 5000..5004);
        assert!(shown.starts_with("f.toml:1:5001: no"));
        assert!(shown.contains("xhereyy") && shown.len() < 400, "{shown}");
        let carets = shown.lines().last().unwrap().find('^').unwrap();
        let source = shown.lines().nth(2).unwrap().find("here").unwrap();
        assert_eq!(carets, source);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert!(!fault_at("a = \u{1b}[31m", 4..5).contains('\u{1b}'));
        let place = Place::Environment { name: "PULSEGATE_\u{1b}[31m".into(), value: "\u{1b}".into() };
        assert!(!Fault::new(place, "no").to_string().contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn any_span_has_a_place(text in "(?s).{0,300}", start in 0usize..400, length in 0usize..400) {
            let _ = fault_at(&text, start..start + length);
        }
    }
}
