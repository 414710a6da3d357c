//! Values as written, before any key has said what it wants: from TOML, or from plain text.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something written, with its bytes in the text it came from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// A TOML string.
    Text(String),
    /// A whole number from TOML; `None` when it does not fit.
    Whole(Option<i64>),
    /// Text from the environment or a flag, which has no types of its own.
    Untyped(String),
    /// A list.
    List(Vec<Located<Raw>>),
    /// A table, in the order of the text.
    Table(Vec<(Located<String>, Located<Raw>)>),
    /// Anything that no key takes, by the name of its type.
    Other(&'static str),
}

impl Raw {
    /// What to call it in a message.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Raw::Text(_) | Raw::Untyped(_) => "text",
            Raw::Whole(_) => "a number",
            Raw::List(_) => "a list",
            Raw::Table(_) => "a table",
            Raw::Other(name) => name,
        }
    }
}

/// Converts a TOML table; TOML's own nesting limit bounds the recursion.
pub(super) fn table(table: &DeTable<'_>) -> Vec<(Located<String>, Located<Raw>)> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| (Located { value: key.get_ref().to_string(), span: key.span() }, located(value)))
        .collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    entries
}

/// Converts a TOML value.
pub(super) fn located(value: &Spanned<DeValue<'_>>) -> Located<Raw> {
    let raw = match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => Raw::Whole(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Boolean(_) => Raw::Other("true or false"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(items) => Raw::List(items.iter().map(located).collect()),
        DeValue::Table(entries) => Raw::Table(table(entries)),
    };
    Located { value: raw, span: value.span() }
}
