//! The engine in this process, for rigs: the same loop as the child's, spoken to through channels.
//!
//! Set [`CHILD_ENV`](crate::protocol::CHILD_ENV) in the rig's environment before it starts, or its threads spin.

use crate::batcher::Gone;
use crate::protocol::{Done, Fault, FromEngine, Run, Start};
use crate::service::{ORDERS_MAX, Order, STACK_BYTES, serve};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tidegate_schemas::JobId;

/// Messages that stand between the engine and its caller; the engine waits when they are not taken.
const MESSAGES_MAX: usize = 1_024;
/// Longest silence of a live engine: more than any single step or load of a rig's model takes.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Why the engine in this process cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectError {
    /// It could not load the model or gave up, in one sentence.
    #[error("{0}")]
    Fatal(String),
    /// Its thread ended or was silent for ten minutes.
    #[error("the engine's thread ended or is stuck")]
    Gone,
}

/// A loaded model. Its thread ends when this is dropped.
#[derive(Debug)]
pub struct Direct {
    name: String,
    sha256: String,
    context_tokens: u32,
    slots: usize,
    orders: SyncSender<Order>,
    messages: Receiver<FromEngine>,
}

impl Direct {
    /// Loads a model.
    ///
    /// # Errors
    /// The file, the memory limit or llama.cpp forbid it.
    pub fn load(start: Start) -> Result<Self, DirectError> {
        let slots = start.slots as usize;
        let (orders, inbox) = sync_channel(ORDERS_MAX);
        let (outbox, messages) = sync_channel(MESSAGES_MAX);
        let work = move || {
            let mut out = |message| match message {
                FromEngine::Beat => Ok(()),
                message => outbox.send(message).map_err(|_| Gone),
            };
            serve(&start, &inbox, &mut out)
        };
        let thread = std::thread::Builder::new().name("engine".to_owned()).stack_size(STACK_BYTES).spawn(work);
        thread.map_err(|e| DirectError::Fatal(format!("the engine's thread does not start: {e}")))?;
        match next(&messages)? {
            FromEngine::Ready { name, sha256, context_tokens } => {
                Ok(Self { name, sha256, context_tokens, slots, orders, messages })
            }
            _ => Err(DirectError::Gone),
        }
    }

    /// The model's name, a valid `ModelName`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the model's file, 64 hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Context window per sequence, in tokens.
    #[must_use]
    pub fn context_tokens(&self) -> u32 {
        self.context_tokens
    }

    /// Runs one prompt.
    ///
    /// # Errors
    /// The engine is gone. A run without an answer is the inner error.
    pub fn run(&mut self, run: Run) -> Result<Result<Done, Fault>, DirectError> {
        let mut results = self.run_all(vec![run])?;
        results.pop().ok_or(DirectError::Gone)
    }

    /// Runs prompts side by side, as many at once as there are slots; results stand in the order of the runs. Their
    /// `stream` is ignored.
    ///
    /// # Errors
    /// The engine is gone. A run without an answer is an inner error.
    pub fn run_all(&mut self, runs: Vec<Run>) -> Result<Vec<Result<Done, Fault>>, DirectError> {
        let jobs: Vec<JobId> = runs.iter().map(|run| run.job).collect();
        let mut results: Vec<Option<Result<Done, Fault>>> = runs.iter().map(|_| None).collect();
        let mut rest = runs.into_iter().enumerate();
        let (mut sent, mut received) = (0, 0);
        while received < results.len() {
            // Twice the slots: the engine always finds one waiting when a slot falls free.
            while sent < results.len() && sent - received < 2 * self.slots {
                let Some((index, run)) = rest.next() else { break };
                let run = Run { job: JobId(index as u64), stream: false, ..run };
                self.orders.send(Order::Run(run)).map_err(|_| DirectError::Gone)?;
                sent += 1;
            }
            let (job, result) = match next(&self.messages)? {
                FromEngine::Done(done) => (done.job, Ok(*done)),
                FromEngine::Failed { job, fault } => (job, Err(fault)),
                _ => continue,
            };
            let index = usize::try_from(job.0).map_err(|_| DirectError::Gone)?;
            *results.get_mut(index).ok_or(DirectError::Gone)? =
                Some(result.map(|done| Done { job: jobs[index], ..done }));
            received += 1;
        }
        results.into_iter().map(|result| result.ok_or(DirectError::Gone)).collect()
    }
}

fn next(messages: &Receiver<FromEngine>) -> Result<FromEngine, DirectError> {
    match messages.recv_timeout(SILENCE_MAX) {
        Ok(FromEngine::Fatal { message }) => Err(DirectError::Fatal(message)),
        Ok(message) => Ok(message),
        Err(_) => Err(DirectError::Gone),
    }
}
