//! MQTT 3.1.1 and 5 packets: a strict decoder, an encoder.
//!
//! Invariants: nothing is allocated by a declared length, only by bytes that have arrived; a packet over the limit is
//! refused by its fixed header; no input panics.

mod decode;
mod encode;
mod packet;
mod properties;
mod reader;

pub(crate) use decode::{decode, peek_version, publish_head};
pub(crate) use encode::{encode, encode_within};
pub(crate) use packet::{Ack, ConnAck, Connect, Filter, Malformed, Packet, Publish, QoS, Version, Will, reason};
pub(crate) use properties::Properties;

#[cfg(test)]
mod tests;
