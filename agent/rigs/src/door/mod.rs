//! The rigs of the door: they speak MQTT to it from outside, byte by byte where it matters, beside the brokers that it
//! is compared with.

pub(crate) mod access;
pub(crate) mod acks;
pub(crate) mod conformance;
pub(crate) mod crowd;
pub(crate) mod fair;
pub(crate) mod faults;
pub(crate) mod fuzz;
pub(crate) mod versus;
pub(crate) mod wire;

mod bystander;
mod histogram;
mod load;
mod peers;
mod pki;
mod socket;
