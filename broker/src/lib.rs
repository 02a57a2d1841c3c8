//! The door: MQTT 3.1.1 and 5 on one port, TCP and TLS, in front of rumqttd or another broker.
//!
//! The door serves Tidegate's own topics itself: a prompt is acknowledged when the [`Keeper`] has it on disk; outcomes go
//! from the keeper to the device's sessions until one acknowledges them. All other traffic passes, checked, through
//! links inside the process to rumqttd, or a loopback connection per client to another broker. Invariants: nothing that a client sends reaches the backend unchecked;
//! everything that waits is bounded; no payload is logged.

mod audience;
mod auth;
mod backend;
mod codec;
mod config;
mod connection;
mod door;
mod error;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod greet;
mod hall;
mod keeper;
mod link;
mod listen;
mod meter;
mod reload;
mod rights;
mod session;
mod shared;
mod stats;
mod tls;
mod topic;
mod upstream;

pub use config::{Anonymous, BackendConfig, DoorConfig, DoorLimits, Listener, TlsFiles};
pub use door::{Door, check_reply_topic};
pub use error::{DoorError, DoorFailure};
pub use keeper::{Ephemeral, Forwarding, Keeper, Kept, Outgoing, Submission, Verdict};
pub use stats::DoorStats;
