//! How commands reach the control API of a running gateway.

use std::path::PathBuf;

/// Flags of all commands over the control API.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Api {
    /// The control API: http://host:port or unix:/path
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7082", env = "PULSEGATE_API")]
    pub(super) api: String,
    /// File whose first line is the bearer token
    #[arg(long, value_name = "FILE", env = "PULSEGATE_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,
}
