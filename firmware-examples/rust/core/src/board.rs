//! What a board brings, and what it gets.

use rust_mqtt::io::Transport;

/// How a connection comes about.
pub trait Dial {
    /// A connection. It may borrow the dialler's buffers.
    type Link<'l>: Transport
    where
        Self: 'l;

    /// Opens one. `None`: nobody is there.
    fn open(&mut self) -> impl Future<Output = Option<Self::Link<'_>>>;
}

/// What time it is.
pub trait Clock {
    /// Milliseconds since some moment.
    fn now_ms(&self) -> u64;
    /// Waits.
    fn sleep_ms(&self, ms: u32) -> impl Future<Output = ()>;
}

/// How it ended; also the exit status of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered = 0,
    /// No outcome in time.
    Silent = 1,
    /// The gateway said why there is none.
    Refused = 2,
    /// No connection.
    Unreachable = 3,
    /// The prompt does not fit, or a setting is none.
    Usage = 64,
}

/// The outcome, and what decided it in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// What decided it.
    pub why: &'static str,
}
