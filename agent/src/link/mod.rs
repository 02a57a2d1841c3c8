//! Connections to an MQTT 5 broker: where it is, who we are to it, and one connection at a time.
//!
//! Invariant: an [`Epoch`] is one connection. When it ends, its client and event loop die with it, and everything that
//! it had not seen acknowledged counts as not sent (rumqttc keeps such requests and may drop or repeat them).

mod backoff;
mod broker;
mod epoch;
mod tls;
mod window;

pub(crate) use backoff::Backoff;
pub(crate) use broker::{Address, Broker, Credentials, TlsPaths, Trust, from_args};
pub(crate) use epoch::{Epoch, LinkEvent, SILENCE_MAX};
pub(crate) use window::Window;
