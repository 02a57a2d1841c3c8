//! Rigs about knowing when the gateway is wrong. [`signals`] runs prompts through the engine once and writes down what
//! the logits said, without any text; all others compute on such files, in seconds.

mod bootstrap;
pub(crate) mod budget;
pub(crate) mod calibrated;
pub(crate) mod cascade;
pub(crate) mod deadline;
pub(crate) mod early;
pub(crate) mod file;
pub(crate) mod guarantee;
pub(crate) mod learning;
mod line;
pub(crate) mod pool;
pub(crate) mod predict;
pub(crate) mod signals;
pub(crate) mod wan;
