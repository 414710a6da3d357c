//! Builds all parts, binds, runs, shuts down.
