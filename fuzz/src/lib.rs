//! What the fuzz targets assert, one function each. The engine (`fuzz_targets/`) and the test that replays the
//! corpus (`tests/corpus.rs`) call the same ones.
//!
//! A target panics when a property does not hold. Each is stated in the docs of its module's function.

mod config;
mod envelope;
mod frames;
mod handshake;
mod offer;
mod wire;

pub use config::config;
pub use envelope::envelope;
pub use frames::frames;
pub use handshake::handshake;
pub use offer::offer;
