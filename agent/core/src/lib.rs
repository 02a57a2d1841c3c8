//! The decisions: admit, confidence, route, and the dispatcher that leads a prompt through its life.
//!
//! Invariants: no IO, no clock, no randomness, no async, no serde, no logging. Time comes in as [`Now`]; a decision
//! comes out as a value with its reason; the shells do what the [`Command`]s say and report back with [`Event`]s.

pub mod admit;
mod command;
mod confidence;
pub mod cost;
mod dispatcher;
pub mod early;
pub mod escalate;
mod event;
pub mod features;
pub mod fitted;
pub mod gain;
pub mod interval;
pub mod isotonic;
mod job;
pub mod judge;
pub mod knowledge;
pub mod learn;
mod load;
pub mod logistic;
pub mod predict;
pub mod price;
pub mod queue;
pub mod records;
pub mod risk;
pub mod route;
pub mod seen;
pub mod share;
mod site;
pub mod strain;
mod time;

pub use command::{Command, Dead, Inference, Keepsake, Note};
pub use confidence::{Calibration, CalibrationError, Confidence, Score};
pub use dispatcher::{Dispatcher, Standing, Whereabouts};
pub use event::{Arrival, Completion, EngineFault, Event, OperatorDrop, Restored, RestoredEscalation, Signals, Ticket};
pub use load::LoadView;
pub use seen::SeenFinal;
pub use site::{Bridge, Consent, Keep, Learning, Limits, Provisional, Site, Task};
pub use time::Now;
