//! Logging to stderr: our own crates as verbose as asked, everyone else's at `warn`.
//!
//! Invariant: other crates may print what passes through them (packets, payloads), so no filter lets them say more
//! than `warn`, whatever `RUST_LOG` asks; ours print no text of prompts or answers at any level.

use crate::cli::LogArgs;
use std::io;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// What a daemon logs when nobody asks for more.
const DEFAULT_FILTER: &str = "info";
/// The same of a command that a person runs: it says what it has to say by itself.
const COMMAND_FILTER: &str = "warn";

/// What kind of process logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// One that runs until it is stopped.
    Daemon,
    /// One that a person waits for.
    Command,
}

/// Starts logging for the whole process.
pub(crate) fn start(args: &LogArgs, voice: Voice) {
    let default = if voice == Voice::Daemon { DEFAULT_FILTER } else { COMMAND_FILTER };
    let wanted = args.log.clone().or_else(|| std::env::var("RUST_LOG").ok());
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(wanted.as_deref().unwrap_or(default));
    let format = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    let layer = if args.log_json { format.json().boxed() } else { format.boxed() };
    let reserved = FilterFn::new(may_speak as fn(&Metadata<'_>) -> bool);
    // A second start (in one process) keeps the first: nothing to report.
    let _ = tracing_subscriber::registry().with(layer.with_filter(reserved)).with(filter).try_init();
}

/// rumqttd's router calls it an error that a connection which said goodbye was heard of once more, which its own queue
/// of events makes happen. What matters of the router, the door's canary and counters tell.
const ROUTER: &str = "rumqttd::router::routing";

/// Ours always, others from `warn` upwards, the router not at all.
fn may_speak(of: &Metadata<'_>) -> bool {
    of.target().starts_with("tidegate") || (*of.level() <= Level::WARN && of.target() != ROUTER)
}
