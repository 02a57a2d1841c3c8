//! Connections to a broker: where it is, who we are to it, and one connection at a time; what crosses it by rule.
//!
//! Invariant: a [`Line`] (either protocol version) or [`Epoch`] (MQTT 5 only) is one connection. When it ends, its client
//! and event loop die with it, and everything that it had not seen acknowledged counts as not sent (rumqttc keeps such
//! requests and may drop or repeat them).

mod backoff;
mod broker;
mod epoch;
mod hear;
mod line;
mod rules;
mod search;
mod tls;
mod window;

pub(crate) use backoff::Backoff;
pub(crate) use broker::{Address, Broker, Credentials, Terms, TlsPaths, Trust, from_args};
pub(crate) use epoch::{Epoch, LinkEvent, SILENCE_MAX};
pub(crate) use hear::{Ack, Cause, Down, Heard, Incoming, Welcome};
#[cfg(test)]
pub(crate) use line::Said;
pub(crate) use line::{Delivery, Line, Parcel, Retain, Untaken, Version};
pub(crate) use rules::{Class, Filter, RULES_MAX, Rule, Rules, Taken};
pub(crate) use search::{Pause, Protocol, Search};
pub(crate) use window::Window;
