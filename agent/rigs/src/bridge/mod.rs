//! The rigs of the link to the central broker: `link` and `worker-loss`.

pub(crate) mod link;
mod load;
mod moody;
mod peer;
pub(crate) mod worker_loss;
