//! The command line: one file per command. Results go to stdout, everything else to stderr.

mod api;
mod check;
mod client;
#[cfg(test)]
mod commands_tests;
mod completions;
mod config;
mod demo;
mod dial;
mod events;
mod exit;
mod files;
mod healthcheck;
mod log;
mod output;
mod ping;
mod run;
mod send;
mod sessions;
mod settings;
mod sse;
mod table;
mod version;

use std::future::Future;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::exit::Failure;

/// A sidecar gateway that wraps WebSocket connections with liveness, and says with proof when a peer is gone.
#[derive(Debug, Parser)]
#[command(name = "pulsegate", version, arg_required_else_help = true, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway in front of an app.
    Run(run::Arguments),
    /// Shows what pulsegate does: gateway, echo app, fault proxy and a page, all on loopback.
    Demo(demo::Arguments),
    /// Checks the configuration, the ports, the limit of open files and the app.
    Check(check::Arguments),
    /// Prints the documented default file, the values in force, or the schema.
    Config(config::Arguments),
    /// Pings any WebSocket server, like ping(8).
    Ping(ping::Arguments),
    /// Lists, shows or ends sessions of a running gateway.
    Sessions(sessions::Arguments),
    /// Follows the events of a running gateway.
    Events(events::Arguments),
    /// Asks a running gateway whether it is ready, for images without curl.
    Healthcheck(healthcheck::Arguments),
    /// Prints the version.
    Version(version::Arguments),
    /// Prints completions for a shell.
    Completions(completions::Arguments),
}

/// Runs the command that the arguments name, and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe behind `--help | head` is no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let result = match cli.command {
        Command::Run(arguments) => block_on(run::run(arguments)),
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Check(arguments) => block_on(check::run(arguments)),
        Command::Config(arguments) => config::run(&arguments),
        Command::Ping(arguments) => block_on(ping::run(arguments)),
        Command::Sessions(arguments) => block_on(sessions::run(arguments)),
        Command::Events(arguments) => block_on(events::run(arguments)),
        Command::Healthcheck(arguments) => block_on(healthcheck::run(arguments)),
        Command::Version(arguments) => version::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.message.is_empty() {
                output::say(&format!("{} {}", output::error_word(), failure.message));
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Variables that belong to flags of commands and not to keys of the configuration.
fn flag_variables() -> Vec<String> {
    fn collect(command: &clap::Command, names: &mut Vec<String>) {
        let variables = command.get_arguments().filter_map(|argument| argument.get_env());
        names.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        for inner in command.get_subcommands() {
            collect(inner, names);
        }
    }
    let mut names = Vec::new();
    collect(&Cli::command(), &mut names);
    names
}

fn block_on(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(exit::FAILURE, format!("the runtime can't be started: {error}")))?
        .block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_and_keys_do_not_share_variables() {
        let flags = flag_variables();
        assert!(flags.contains(&"PULSEGATE_CONFIG".to_string()));
        for key in KEYS {
            assert!(!flags.contains(&key.environment()), "{}", key.path);
            assert!(!key.flag_environment().is_some_and(|name| flags.contains(&name)), "{}", key.path);
        }
    }

    #[test]
    fn every_flag_has_a_variable() {
        fn walk(command: &clap::Command, path: &str) {
            for argument in command.get_arguments() {
                let Some(flag) = argument.get_long() else { continue };
                let of_a_key = KEYS.iter().any(|key| key.flag == Some(flag));
                let good =
                    argument.get_env().is_some() || of_a_key || ["set", "help", "version"].contains(&flag);
                assert!(good, "{path} --{flag} has no variable");
            }
            for inner in command.get_subcommands() {
                walk(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        walk(&Cli::command(), "pulsegate");
    }
}
