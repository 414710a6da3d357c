//! Kinds of values: how each is read from what was written, bounded, and written again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::quantity::{parse_duration, parse_size, show_duration, show_size};
use super::raw::{Located, Raw};
use super::text;

/// What a key takes, with its bounds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `"250ms"`, `"1m30s"`.
    Duration {
        /// Smallest.
        min: Duration,
        /// Largest.
        max: Duration,
    },
    /// A number of bytes, or `"64KiB"`.
    Size {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A whole number.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A code that may go over the wire (RFC 6455 section 7.4).
    CloseCode,
    /// One word of a few.
    Choice(&'static [&'static str]),
    /// Text that obeys a rule.
    Text(Form),
    /// A list of texts that each obey a rule.
    List {
        /// The rule.
        form: Form,
        /// Most items.
        items_max: usize,
    },
    /// Label names and their sources.
    Labels,
}

/// A form that text must have.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Its name in the schema and in messages, with an article.
    pub name: &'static str,
    /// A value that has it.
    pub example: &'static str,
    /// Says what is wrong, or nothing.
    pub check: fn(&str) -> Result<(), String>,
}

/// A value of some kind, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A time span.
    Duration(Duration),
    /// Bytes, a count or a code.
    Whole(u64),
    /// A text, or a word of a choice.
    Text(String),
    /// Texts.
    List(Vec<String>),
    /// Names and texts.
    Table(BTreeMap<String, String>),
}

/// Something wrong with a value, or with a part of it.
pub(super) type Complaint = (Range<usize>, String);

impl Kind {
    /// Reads a value; every complaint says where.
    pub(super) fn read(&self, raw: &Located<Raw>) -> Result<Value, Vec<Complaint>> {
        let single = |result: Result<Value, String>| result.map_err(|why| vec![(raw.span.clone(), why)]);
        match self {
            Kind::Duration { min, max } => single(self.read_duration(&raw.value, *min, *max)),
            Kind::Size { min, max } => single(self.read_whole(&raw.value, *min, *max, show_size)),
            Kind::Count { min, max } => single(self.read_whole(&raw.value, *min, *max, |n| n.to_string())),
            Kind::CloseCode => single(self.read_code(&raw.value)),
            Kind::Choice(words) => single(self.read_choice(&raw.value, words)),
            Kind::Text(form) => single(self.read_text(&raw.value, form)),
            Kind::List { form, items_max } => self.read_list(raw, form, *items_max),
            Kind::Labels => self.read_labels(raw),
        }
    }

    /// Writes a value as TOML.
    pub fn show(&self, value: &Value) -> String {
        match value {
            Value::Duration(duration) => quote(&show_duration(*duration)),
            Value::Whole(bytes) if matches!(self, Kind::Size { .. }) => match show_size(*bytes) {
                plain if plain.bytes().all(|b| b.is_ascii_digit()) => plain,
                with_unit => quote(&with_unit),
            },
            Value::Whole(number) => number.to_string(),
            Value::Text(text) => quote(text),
            Value::List(items) => {
                format!("[{}]", items.iter().map(|item| quote(item)).collect::<Vec<_>>().join(", "))
            }
            Value::Table(entries) if entries.is_empty() => "{}".into(),
            Value::Table(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(name, text)| format!("{name} = {}", quote(text))).collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }

    /// What it takes, in a few words.
    pub(super) fn expected(&self) -> String {
        match self {
            Kind::Duration { .. } => "a duration such as \"5s\"".into(),
            Kind::Size { .. } => "a size such as \"64KiB\" or a number of bytes".into(),
            Kind::Count { .. } => "a whole number".into(),
            Kind::CloseCode => "a close code such as 4408".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Text(form) => format!("{} such as \"{}\"", form.name, form.example),
            Kind::List { form, .. } => format!("a list such as [\"{}\"]", form.example),
            Kind::Labels => "a table such as { user = \"header:X-User\" }".into(),
        }
    }

    fn read_duration(&self, raw: &Raw, min: Duration, max: Duration) -> Result<Value, String> {
        let text = match raw {
            Raw::Text(text) | Raw::Untyped(text) => text,
            Raw::Whole(Some(number)) => {
                return Err(format!(
                    "a duration needs quotes and a unit: write \"{number}s\" or \"{number}ms\""
                ));
            }
            Raw::Whole(None) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => return Err(self.mismatch(raw)),
        };
        let duration = parse_duration(text)?;
        if duration < min {
            return Err(format!("{} is too short: at least {}", show_duration(duration), show_duration(min)));
        }
        if duration > max {
            return Err(format!("{} is too long: at most {}", show_duration(duration), show_duration(max)));
        }
        Ok(Value::Duration(duration))
    }

    fn read_whole(&self, raw: &Raw, min: u64, max: u64, show: fn(u64) -> String) -> Result<Value, String> {
        let sized = matches!(self, Kind::Size { .. });
        let number = match raw {
            Raw::Whole(Some(number)) => u64::try_from(*number)
                .map_err(|_| format!("{number} is too small: at least {}", show(min)))?,
            Raw::Whole(None) => return Err(format!("the number is out of range: at most {}", show(max))),
            Raw::Text(text) | Raw::Untyped(text) if sized => parse_size(text)?,
            Raw::Untyped(text) => text.parse().map_err(|_| self.mismatch(raw))?,
            Raw::Text(text) if text.parse::<u64>().is_ok() => {
                return Err(format!("a whole number has no quotes: write {text}"));
            }
            Raw::Text(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => return Err(self.mismatch(raw)),
        };
        if number < min {
            return Err(format!("{} is too small: at least {}", show(number), show(min)));
        }
        if number > max {
            return Err(format!("{} is too large: at most {}", show(number), show(max)));
        }
        Ok(Value::Whole(number))
    }

    fn read_code(&self, raw: &Raw) -> Result<Value, String> {
        let value = self.read_whole(raw, 0, u64::MAX, |n| n.to_string())?;
        match value {
            Value::Whole(1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(value),
            Value::Whole(_) | Value::Duration(_) | Value::Text(_) | Value::List(_) | Value::Table(_) => Err(
                "no such close code may be sent: use 3000 to 4999, or a registered one of 1000 to 1003 and 1007 to 1014"
                    .into(),
            ),
        }
    }

    fn read_choice(&self, raw: &Raw, words: &[&str]) -> Result<Value, String> {
        let (Raw::Text(text) | Raw::Untyped(text)) = raw else { return Err(self.mismatch(raw)) };
        if words.contains(&text.as_str()) {
            return Ok(Value::Text(text.clone()));
        }
        let hint = text::closest(text, words.iter().copied())
            .map_or(String::new(), |word| format!("; did you mean `{word}`?"));
        Err(format!("`{}` is not {}{hint}", text::brief(text), self.expected()))
    }

    fn read_text(&self, raw: &Raw, form: &Form) -> Result<Value, String> {
        let (Raw::Text(text) | Raw::Untyped(text)) = raw else { return Err(self.mismatch(raw)) };
        check(form, text)?;
        Ok(Value::Text(text.clone()))
    }

    fn read_list(&self, raw: &Located<Raw>, form: &Form, items_max: usize) -> Result<Value, Vec<Complaint>> {
        let items = match &raw.value {
            Raw::List(items) => items.clone(),
            Raw::Untyped(text) => parts(text).map(|part| untyped(part, &raw.span)).collect(),
            Raw::Text(_) | Raw::Whole(_) | Raw::Table(_) | Raw::Other(_) => {
                return Err(vec![(raw.span.clone(), self.mismatch(&raw.value))]);
            }
        };
        if items.len() > items_max {
            return Err(vec![(raw.span.clone(), format!("{} items: at most {items_max}", items.len()))]);
        }
        let mut complaints = Vec::new();
        let mut texts = Vec::new();
        for item in items {
            match &item.value {
                Raw::Text(text) | Raw::Untyped(text) => match check(form, text) {
                    Ok(()) => texts.push(text.clone()),
                    Err(why) => complaints.push((item.span, why)),
                },
                Raw::Whole(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => {
                    complaints.push((item.span, self.mismatch(&item.value)));
                }
            }
        }
        if complaints.is_empty() { Ok(Value::List(texts)) } else { Err(complaints) }
    }

    fn read_labels(&self, raw: &Located<Raw>) -> Result<Value, Vec<Complaint>> {
        let entries: Vec<(Located<String>, Located<Raw>)> = match &raw.value {
            Raw::Table(entries) => entries.clone(),
            Raw::Untyped(text) => parts(text)
                .map(|part| {
                    let (name, source) = part.split_once('=').unwrap_or((part, ""));
                    (
                        Located { value: name.trim().into(), span: raw.span.clone() },
                        untyped(source, &raw.span),
                    )
                })
                .collect(),
            Raw::Text(_) | Raw::Whole(_) | Raw::List(_) | Raw::Other(_) => {
                return Err(vec![(raw.span.clone(), self.mismatch(&raw.value))]);
            }
        };
        if entries.len() > text::LABELS_MAX {
            let why = format!("{} labels: at most {}", entries.len(), text::LABELS_MAX);
            return Err(vec![(raw.span.clone(), why)]);
        }
        let mut complaints = Vec::new();
        let mut labels = BTreeMap::new();
        for (name, source) in entries {
            if let Err(why) = text::check_label_name(&name.value) {
                complaints.push((name.span, why));
            }
            match &source.value {
                Raw::Text(text) | Raw::Untyped(text) => match text::check_label_source(text) {
                    Ok(()) => drop(labels.insert(name.value, text.clone())),
                    Err(why) => complaints.push((source.span, why)),
                },
                Raw::Whole(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => {
                    complaints
                        .push((source.span, "a label's source is text such as \"header:X-User\"".into()));
                }
            }
        }
        if complaints.is_empty() { Ok(Value::Table(labels)) } else { Err(complaints) }
    }

    fn mismatch(&self, raw: &Raw) -> String {
        match raw {
            Raw::Text(text) | Raw::Untyped(text) => {
                format!("expected {}, found \"{}\"", self.expected(), text::brief(text))
            }
            Raw::Whole(_) | Raw::List(_) | Raw::Table(_) | Raw::Other(_) => {
                format!("expected {}, found {}", self.expected(), raw.name())
            }
        }
    }
}

fn check(form: &Form, text: &str) -> Result<(), String> {
    if text.len() > text::TEXT_BYTES_MAX {
        return Err(format!("longer than {} bytes", text::TEXT_BYTES_MAX));
    }
    if text.chars().any(char::is_control) {
        return Err("it contains a control character".into());
    }
    (form.check)(text)
}

/// The parts of a list in an environment variable or a flag: between commas, without blanks around them.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn untyped(text: &str, span: &Range<usize>) -> Located<Raw> {
    Located { value: Raw::Untyped(text.trim().into()), span: span.clone() }
}

/// Writes a TOML string.
fn quote(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}
