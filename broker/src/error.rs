//! Why the door does not open, or why it ends.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// No listener in the configuration.
    #[error("no listener is configured, at least one address is needed")]
    NoListener,
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the configuration cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate, key or CA file has not what it should have.
    #[error("{path} cannot be used for TLS: {what}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The users file has a line that is none.
    #[error("{path} line {line}: {what}")]
    Users {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it; never the hash.
        what: String,
    },
    /// The rights file cannot be used.
    #[error("{path} cannot be used for rights: {what}")]
    Rights {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        what: String,
    },
    /// A pattern of `reply_topics` cannot be used.
    #[error("reply topic pattern {what}")]
    ReplyTopic {
        /// Which, and what is wrong with it.
        what: String,
    },
    /// rumqttd did not come up.
    #[error("rumqttd does not answer: {what}")]
    Backend {
        /// What happened.
        what: String,
    },
    /// A thread could not be started, or no randomness is to be had.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Why a running door cannot go on; the process should end and be started again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rumqttd was replaced {restarts} times within an hour, allowed are {max}")]
pub struct DoorFailure {
    /// Replacements within the last hour.
    pub restarts: u32,
    /// How many are allowed.
    pub max: u32,
}
