//! The whole way of a prompt, on real processes: `tidegate up` with its engine and the shipped model, Debian's mosquitto
//! as the central broker, `tidegate worker`. Each test has its own of everything, on free ports, in a temporary folder.
#![allow(missing_docs, clippy::unwrap_used)]

mod answers;
mod bad_input;
mod certs;
mod commands;
mod link;
mod model_use;
mod operating;
mod past;
mod privacy;
mod queues;
mod reloads;
mod restart;
mod rights;
mod support;
