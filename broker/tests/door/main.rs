//! The door from outside: real sockets, real clients, a keeper in memory.
#![allow(clippy::unwrap_used)]

mod access;
mod behind;
mod faults;
mod general;
mod limits;
mod mosquitto;
mod prompts;
mod reload;
mod replies;
mod sessions;
mod support;
mod version5;
mod whole;
