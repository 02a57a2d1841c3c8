//! The door from outside: real sockets, real clients, a keeper in memory.
#![allow(clippy::unwrap_used)]

mod access;
mod faults;
mod general;
mod mosquitto;
mod prompts;
mod sessions;
mod support;
