//! One prompt to a Tidegate gateway and its outcome, over MQTT 5 and CBOR, for devices without an allocator.
//!
//! [`Ask::run`] is the whole of it: it connects, subscribes, publishes, takes frames until the outcome is there, and
//! connects again when the connection breaks. What differs between boards, a connection and a clock, comes in through
//! [`Dial`] and [`Clock`].
//!
//! Invariants: the outcome is decided once, within `deadline_ms` and a grace of the prompt's first publish, to which it
//! comes within as much or never; every wait has an end; the prompt is the same bytes with the same id on every attempt; a
//! PUBACK leaves only after the frame was given to the caller.
#![no_std]
#![forbid(clippy::unwrap_used)]

mod ask;
mod board;
mod bounded;
mod cbor;
mod frame;
mod json;
mod prompt;
mod settings;
mod show;
mod step;
mod stream;

pub use ask::Ask;
pub use board::{Clock, Dial, End, Outcome};
pub use cbor::{DEPTH_MAX, Text, item_len};
pub use frame::{Body, Frame, Line, decode};
pub use json::{cbor_to_json, json_to_cbor};
pub use prompt::{Control, Prompt};
pub use settings::{Settings, SettingsError};
pub use show::{Said, Shown};
pub use stream::Stream;
