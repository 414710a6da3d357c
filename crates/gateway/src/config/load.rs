//! File, environment and flags become one [`Config`]; the later source wins, and all faults come at once.
//!
//! [`load`] is a pure function: reading the file and the environment is the caller's business
//! (see [`super::file`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Place};
use super::key::{ENVIRONMENT_PREFIX, KEYS, Key, SECTIONS, suggestion};
use super::kind::Kind;
use super::raw::{self, Located, Raw};
use super::{Config, rule, text};

/// Most faults that are told at once; the rest is counted.
pub const FAULTS_MAX: usize = 50;

/// What the configuration is made of, the weakest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// The file's name and text.
    pub file: Option<(&'a str, &'a str)>,
    /// Environment variables; those without the `PULSEGATE_` prefix are ignored.
    pub environment: &'a [(String, String)],
    /// Command-line flags.
    pub flags: &'a [Flag],
}

/// A command-line flag as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its name without dashes: `listen`, `set`.
    pub name: String,
    /// Its argument.
    pub argument: String,
}

/// A configuration, and where its values were written.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All settings.
    pub config: Config,
    places: Places,
}

/// Where values were written, by key; keys that are missing have their default.
pub(super) type Places = BTreeMap<&'static str, Place>;

impl Loaded {
    /// Where the key's value was written.
    pub fn place(&self, key: &Key) -> &Place {
        self.places.get(key.path).unwrap_or(&Place::Default)
    }
}

/// Makes the configuration: flag over environment over file over default.
///
/// # Errors
/// All that is wrong, in the order of sources and lines; at most 50 faults and a count of the rest.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Vec<Fault>> {
    let mut loader = Loader {
        config: Config::default(),
        places: Places::new(),
        broken: BTreeSet::new(),
        faults: Vec::new(),
        more: 0,
    };
    if let Some((path, text)) = sources.file {
        loader.read_file(&path.into(), text);
    }
    loader.read_environment(sources.environment);
    for flag in sources.flags {
        loader.read_flag(flag);
    }
    let Loader { config, places, broken, mut faults, more } = loader;
    faults.extend(rule::broken(&config, &places, &broken));
    if faults.is_empty() { Ok(Loaded { config, places }) } else { Err(in_order(faults, more)) }
}

struct Loader {
    config: Config,
    places: Places,
    /// Keys with a fault of their own: what they mean is unknown, so no rule looks at them.
    broken: BTreeSet<&'static str>,
    faults: Vec<Fault>,
    /// Faults of the file behind the first [`FAULTS_MAX`].
    more: usize,
}

impl Loader {
    /// Keeps a fault of the file, or only counts it: to find its line and a suggestion costs a walk over the
    /// text, and a file of garbage has as many faults as lines.
    fn tell(&mut self, fault: impl FnOnce() -> Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault());
        } else {
            self.more += 1;
        }
    }

    fn read_file(&mut self, path: &Arc<str>, text: &str) {
        // A byte order mark is no part of the text (Windows editors leave one).
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let place = |span| Place::in_file(path, text, span);
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What the rest of a broken file says is a guess: later lines may sit in the wrong section.
            for error in errors {
                let what = || format!("not TOML: {}", error.message().replace('\n', ", "));
                self.tell(|| Fault::new(place(error.span().unwrap_or(0..0)), what()));
            }
            self.broken.extend(KEYS.iter().map(|key| key.path));
            return;
        }
        for (section, value) in raw::table(table.get_ref()) {
            if !SECTIONS.iter().any(|(name, _)| *name == section.value) {
                self.tell(|| unknown_section(place(section.span), &section.value, &value.value));
                continue;
            }
            let Raw::Table(entries) = value.value else {
                let help = format!("write [{}] on a line of its own and its keys below", section.value);
                let message = format!("`{}` is a section", section.value);
                self.tell(|| Fault::new(place(section.span), message).help(help));
                continue;
            };
            for (name, value) in entries {
                let key_path = format!("{}.{}", section.value, name.value);
                match Key::find(&key_path) {
                    Some(key) => self.store(key, &value, &place),
                    None => self.tell(|| unknown_key(place(name.span), &key_path)),
                }
            }
        }
    }

    fn read_environment(&mut self, environment: &[(String, String)]) {
        let mut seen: BTreeMap<&'static str, (&str, &str)> = BTreeMap::new();
        for (name, value) in environment {
            if !name.starts_with(ENVIRONMENT_PREFIX) {
                continue;
            }
            let place = Place::Environment { name: name.clone(), value: text::brief(value) };
            let twin =
                |key: &&Key| key.environment() == *name || key.flag_environment().as_ref() == Some(name);
            let Some(key) = KEYS.iter().find(twin) else {
                if !is_service_link(name, value) {
                    self.faults.push(unknown_variable(place, name));
                }
                continue;
            };
            if let Some((other, other_value)) = seen.insert(key.path, (name, value))
                && other_value != value
            {
                let message = format!("{other} sets `{}` too, and to something else", key.path);
                self.faults.push(Fault::new(place.clone(), message).help("set only one of the two"));
            }
            self.store_text(key, value, &place);
        }
    }

    fn read_flag(&mut self, flag: &Flag) {
        let place = Place::Flag(format!("--{} {}", flag.name, text::brief(&flag.argument)));
        if flag.name != "set" {
            match KEYS.iter().find(|key| key.flag == Some(flag.name.as_str())) {
                Some(key) => self.store_text(key, &flag.argument, &place),
                None => self.faults.push(Fault::new(place, "no such flag")),
            }
            return;
        }
        let Some((path, value)) = flag.argument.split_once('=') else {
            let help = "write --set liveness.ping_interval=5s";
            self.faults.push(Fault::new(place, "expected key=value").help(help));
            return;
        };
        match Key::find(path.trim()) {
            Some(key) => self.store_text(key, value, &place),
            None => self.faults.push(unknown_key(place, path.trim())),
        }
    }

    fn store_text(&mut self, key: &'static Key, text: &str, place: &Place) {
        let text = text.trim();
        if text.is_empty() && !matches!(key.kind, Kind::List { .. } | Kind::Labels) {
            self.broken.insert(key.path);
            let help = "leave it out for the default";
            self.faults.push(Fault::new(place.clone(), "the value is empty").help(help));
            return;
        }
        let raw = match key.kind {
            Kind::List { .. } | Kind::Labels if text.starts_with(['[', '{']) => match DeValue::parse(text) {
                Ok(value) => raw::located(&value),
                Err(_) => untyped(text),
            },
            Kind::List { .. }
            | Kind::Labels
            | Kind::Duration { .. }
            | Kind::Size { .. }
            | Kind::Count { .. }
            | Kind::CloseCode
            | Kind::Choice(_)
            | Kind::Text(_) => untyped(text),
        };
        self.store(key, &raw, &|_| place.clone());
    }

    fn store(
        &mut self,
        key: &'static Key,
        raw: &Located<Raw>,
        place: &dyn Fn(std::ops::Range<usize>) -> Place,
    ) {
        match key.kind.read(raw) {
            Ok(value) => {
                if key.set(&mut self.config, value) {
                    self.places.insert(key.path, place(raw.span.clone()));
                } else {
                    let message = format!("`{}` can't hold this value", key.path);
                    self.faults.push(Fault::new(place(raw.span.clone()), message));
                }
            }
            Err(complaints) => {
                self.broken.insert(key.path);
                for (span, why) in complaints {
                    self.tell(|| Fault::new(place(span), format!("`{}`: {why}", key.path)));
                }
            }
        }
    }
}

fn untyped(text: &str) -> Located<Raw> {
    Located { value: Raw::Untyped(text.into()), span: 0..text.len() }
}

fn unknown_section(place: Place, name: &str, value: &Raw) -> Fault {
    let is_table = matches!(value, Raw::Table(_));
    let what = if is_table { "section" } else { "key" };
    let sections = SECTIONS.iter().map(|(name, _)| *name);
    let near = if is_table { text::closest(name, sections) } else { suggestion(name) };
    let fault = Fault::new(place, format!("unknown {what} `{}`", text::brief(name)));
    match near {
        Some(near) => fault.help(format!("did you mean `{near}`?")),
        None => fault.help("`pulsegate config default` shows all sections and keys"),
    }
}

fn unknown_key(place: Place, path: &str) -> Fault {
    let fault = Fault::new(place, format!("unknown key `{}`", text::brief(path)));
    match suggestion(path) {
        Some(near) => fault.help(format!("did you mean `{near}`?")),
        None => fault.help("`pulsegate config default` shows all keys"),
    }
}

fn unknown_variable(place: Place, name: &str) -> Fault {
    // Without the prefix, which would make every name look alike.
    let bare = |name: &str| name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(name).to_owned();
    let twins = |key: &Key| [Some(key.environment()), key.flag_environment()];
    let names: Vec<String> = KEYS.iter().flat_map(twins).flatten().map(|name| bare(&name)).collect();
    let fault = Fault::new(place, format!("unknown variable {}", text::brief(name)));
    match text::closest(&bare(name), names.iter().map(String::as_str)) {
        Some(near) => fault.help(format!("did you mean {ENVIRONMENT_PREFIX}{near}?")),
        None => {
            fault.help("each key has a variable: PULSEGATE_LIVENESS_PING_INTERVAL for liveness.ping_interval")
        }
    }
}

/// Kubernetes gives every container variables for each Service in its namespace, `PULSEGATE_SERVICE_HOST`
/// and the like for one called `pulsegate`: they are nobody's mistake.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    let addressed =
        PROTOCOLS.iter().any(|protocol| value.starts_with(&format!("{}://", protocol.to_lowercase())));
    if name.ends_with("_PORT") && addressed {
        return true;
    }
    let Some((_, tail)) = name.split_once("_PORT_") else { return false };
    let mut parts = tail.split('_');
    let port = parts.next().is_some_and(|port| port.parse::<u16>().is_ok());
    let protocol = parts.next().is_some_and(|protocol| PROTOCOLS.contains(&protocol));
    let detail = parts.next().is_none_or(|detail| ["PROTO", "PORT", "ADDR"].contains(&detail));
    port && protocol && detail && parts.next().is_none()
}

fn in_order(mut faults: Vec<Fault>, counted: usize) -> Vec<Fault> {
    faults.sort_by_key(|fault| match &fault.place {
        Place::Path(_) => (0, 0, 0),
        Place::Line(line) => (1, line.line, line.column),
        Place::Environment { .. } => (2, 0, 0),
        Place::Flag(_) => (3, 0, 0),
        Place::Default => (4, 0, 0),
    });
    let more = counted + faults.split_off(FAULTS_MAX.min(faults.len())).len();
    if more > 0 {
        faults.push(Fault::new(Place::Default, format!("and {more} more")));
    }
    faults
}
