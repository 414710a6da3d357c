#![no_main]
//! The engine's way into [`pulsegate_fuzz::offer`].

libfuzzer_sys::fuzz_target!(|input: &[u8]| pulsegate_fuzz::offer(input));
