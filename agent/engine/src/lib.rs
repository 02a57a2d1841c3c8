//! llama.cpp in a child process: batches, prefixes, schemas, signals.
//!
//! Invariants: the parent shares no memory with C++; one thread owns model and context; every queue, frame, file head
//! and template output has a limit; no text of a prompt or an answer reaches a log.
//!
//! The way of a run: [`child`] reads it from stdin, `service` hands it to the `batcher`, `prompt` writes it with the
//! model's `template` and turns it into tokens, a `sequence` takes its logits through `reading` and `grammar` until it
//! ends, and the answer goes out as a frame of the [`protocol`]. [`direct`] is the same without the process.

mod backend;
mod batcher;
mod canonical;
pub mod child;
pub mod clock;
pub mod confine;
mod copied;
pub mod direct;
pub mod fit;
mod fitting;
mod frame;
mod gain;
mod gguf;
mod grammar;
mod guess;
mod jinja;
mod load;
mod memory;
pub mod model_file;
mod pace;
pub mod pages;
mod pins;
mod prefixes;
mod process;
pub mod processor;
mod prompt;
pub mod protocol;
mod reading;
mod sequence;
mod service;
mod shelf;
mod tally;
mod template;
mod text;
pub mod tiny;
