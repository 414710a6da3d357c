#![no_main]
//! The engine's way into [`pulsegate_fuzz::config`].

libfuzzer_sys::fuzz_target!(|input: &[u8]| pulsegate_fuzz::config(input));
