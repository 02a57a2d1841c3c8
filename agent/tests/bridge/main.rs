//! The bridge and the intake on real processes: `tidegate up` and Debian's mosquitto, with links and brokers between
//! them that fail in every way that was seen in the field. Each test has its own of everything, on free ports.
#![allow(missing_docs, clippy::unwrap_used)]

mod brokers;
mod certificates;
mod crossing;
mod intake;
mod link;
mod mute;
mod tools;

#[allow(dead_code, unused_imports, reason = "shared with the tests of the whole way")]
#[path = "../whole_way/support/mod.rs"]
mod support;
