//! The door from outside: real sockets, real clients, a keeper in memory.
#![allow(clippy::unwrap_used)]

mod access;
mod behind;
mod connects;
mod faults;
mod flows;
mod general;
mod limits;
mod mosquitto;
mod normative;
mod passing;
mod prompts;
mod reload;
mod replies;
mod sessions;
mod sizes;
mod support;
mod version5;
mod whole;
