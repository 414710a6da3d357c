//! Flags that set keys of the configuration, shared by the commands that load it.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;

use super::exit::{self, Failure};
use super::output;
use crate::config::{FAULTS_MAX, Fault, Flag, Loaded, Sources, file, load};

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Settings {
    /// The configuration file; `pulsegate config default` prints one.
    // An empty variable means no file, which clap's own parser for paths refuses.
    #[arg(long, value_name = "FILE", env = "PULSEGATE_CONFIG", value_hint = clap::ValueHint::FilePath)]
    pub(super) config: Option<OsString>,
    /// The app: http://host:port [env: PULSEGATE_UPSTREAM]
    #[arg(long, value_name = "URL")]
    pub(super) upstream: Option<String>,
    /// WebSocket and plain HTTP for clients, 0.0.0.0:7080 by default [env: PULSEGATE_LISTEN]
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<String>,
    /// Metrics and health, 0.0.0.0:7081 by default [env: PULSEGATE_OPS]
    #[arg(long, value_name = "ADDR")]
    pub(super) ops: Option<String>,
    /// Control API, 127.0.0.1:7082 by default; also unix:/path or off [env: PULSEGATE_CONTROL]
    #[arg(long, value_name = "ADDR")]
    pub(super) control: Option<String>,
    /// Liveness bounds: fast, balanced or battery [env: PULSEGATE_PROFILE]
    #[arg(long)]
    pub(super) profile: Option<String>,
    /// Sets any key, and wins over the flags above [env: the key's own, such as PULSEGATE_LIVENESS_PING_INTERVAL]
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

impl Settings {
    /// Loads the configuration from file, environment and these flags.
    ///
    /// # Errors
    /// All that is wrong.
    pub(super) fn load(&self) -> Result<Loaded, Vec<Fault>> {
        let mut faults = Vec::new();
        let path = self.config.as_deref().filter(|path| !path.is_empty()).map(Path::new);
        let text = path.and_then(|path| file::read(path).map_err(|fault| faults.push(fault)).ok());
        let environment = file::environment(&super::flag_variables()).unwrap_or_else(|unreadable| {
            faults.extend(unreadable);
            Vec::new()
        });
        let name = path.map(|path| path.display().to_string()).unwrap_or_default();
        let file = text.as_deref().map(|text| (name.as_str(), text));
        let loaded = load(&Sources { file, environment: &environment, flags: &self.flags() });
        match loaded {
            Ok(loaded) if faults.is_empty() => Ok(loaded),
            Ok(_) => Err(faults),
            Err(more) => {
                faults.extend(more);
                Err(faults)
            }
        }
    }

    /// The same, with the faults told on stderr.
    ///
    /// # Errors
    /// Exit code 3.
    pub(super) fn load_or_tell(&self) -> Result<Loaded, Failure> {
        self.load().map_err(|faults| {
            for fault in &faults {
                output::say(&format!("{} {fault}", output::error_word()));
            }
            let count = match faults.len() {
                1 => "1 fault".into(),
                count if count <= FAULTS_MAX => format!("{count} faults"),
                _ => format!("more than {FAULTS_MAX} faults"),
            };
            output::say(&format!("{count} in the configuration"));
            Failure::silent(exit::CONFIG_INVALID)
        })
    }

    fn flags(&self) -> Vec<Flag> {
        let named = [
            ("upstream", &self.upstream),
            ("listen", &self.listen),
            ("ops", &self.ops),
            ("control", &self.control),
            ("profile", &self.profile),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let set = self.set.iter().map(|argument| ("set", argument));
        named
            .chain(set)
            .map(|(name, argument)| Flag { name: name.into(), argument: argument.clone() })
            .collect()
    }
}
