//! What the fuzz targets assert, one function each. The engine (`fuzz_targets/`) and the test that replays the
//! corpus (`tests/corpus.rs`) call the same three.
//!
//! A target panics when a property does not hold. Each is stated in the docs of its module's function.

mod config;
mod frames;
mod handshake;
mod wire;

pub use config::config;
pub use frames::frames;
pub use handshake::handshake;
