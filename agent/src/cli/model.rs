//! Options of `tidegate model`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Options of `model`.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Control socket of the gateway.
    #[arg(long, global = true, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: ModelCommand,
}

/// What to do with the model.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Let another model serve, without a pause.
    ///
    /// A second engine loads FILE beside the one that serves. If it answers a canary prompt of every task, and those of
    /// engine.canaries as they say, it takes over; the one before ends what it began. If anything fails, nothing
    /// changes, the reason is said, and the exit status is 1.
    ///
    /// The choice outlives restarts, in the data directory; the configuration is left as it is. The last word wins: it
    /// holds until engine.model or --model says something else than now, or until `tidegate model use --configured`.
    /// Confidence is calibrated per model: without a calibration file for FILE it is raw, and promises hold nothing.
    Use {
        /// Model file (GGUF), as the gateway's user can read it.
        #[arg(required_unless_present = "configured")]
        file: Option<PathBuf>,
        /// Go back to the model that the configuration names.
        #[arg(long, conflicts_with = "file")]
        configured: bool,
    },
}
