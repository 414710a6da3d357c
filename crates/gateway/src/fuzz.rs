//! The private parts that the fuzz targets (`fuzz/` at the top of the repo) drive. Nothing else uses it, and it
//! may change at any time.

pub use crate::front::fuzz::*;
