//! Any bytes, in both protocol versions: the decoder may refuse them, and may not panic; what it takes is encoded to
//! bytes that it takes again, as the same packet.
//!
//! `cargo +nightly fuzz run codec` in `broker/`; `README.md` there says more.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_broker::fuzz::codec(bytes));
