//! What is measured and told in numbers: counted by the hub as things happen ([`Meter`]), written on one sheet
//! (`Sheet`) that Prometheus, the retained state and the page read, joined with what the machine says (`host`), and
//! kept for a second by the [`Painter`], so that a thousand readers cost what one costs.
//!
//! Invariants: no text of prompts or answers; every label has a handful of values, known when the program is built or
//! configured, never a device's name.

mod facts;
mod host;
mod meter;
mod painter;
mod sheet;
mod window;

pub(super) use facts::{Facts, Happenings};
pub(super) use meter::Meter;
pub(super) use painter::{Certificate, Painter, Picture, Views, Watched};
