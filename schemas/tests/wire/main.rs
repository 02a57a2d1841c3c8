//! What stands on the wire, seen from outside the crate.
#![allow(clippy::unwrap_used, missing_docs)]

mod confidence;
mod encodings;
mod firmware;
mod frames;
mod golden;
mod ids;
mod json_schema;
mod mutations;
mod prompts;
mod samples;
mod secrets;
mod topics;
