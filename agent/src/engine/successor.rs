//! A second child with another model, tried before it takes over from the one that serves.
//!
//! Invariant: until it was handed to the supervisor it answers nobody but whoever tries it, and dies with it.

use super::kid::Kid;
use super::life::{LOAD_SILENCE_MAX, Loaded, loaded};
use std::time::Duration;
use tidegate_engine::protocol::{Done, Fault, FromEngine, Run, Start, ToEngine};
use tokio::time::timeout;

/// A child that is up and may take over.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(super) start: Start,
    pub(super) kid: Kid,
    /// Its model.
    pub(crate) loaded: Loaded,
}

impl Successor {
    /// Starts a child and waits until its model is loaded.
    ///
    /// # Errors
    /// One sentence: what the engine says, or that it died or was silent.
    pub(crate) async fn load(start: Start) -> Result<Self, String> {
        let mut kid = Kid::spawn()?;
        kid.say(&ToEngine::Start(start.clone())).await?;
        loop {
            match heard(&mut kid, LOAD_SILENCE_MAX).await.map_err(|why| format!("while it loaded: {why}"))? {
                FromEngine::Beat | FromEngine::Speed { .. } => {}
                FromEngine::Ready { name, sha256, context_tokens } => {
                    let loaded = loaded(&name, sha256, context_tokens)?;
                    return Ok(Self { start, kid, loaded });
                }
                FromEngine::Fatal { message } => return Err(message),
                FromEngine::Token { .. } | FromEngine::Done(_) | FromEngine::Failed { .. } => {
                    return Err("the engine answered before it was asked".to_owned());
                }
            }
        }
    }

    /// Its answer to one prompt.
    ///
    /// # Errors
    /// One sentence without any text of prompt or answer; after `limit` nothing is waited for.
    pub(crate) async fn answer(&mut self, run: Run, limit: Duration) -> Result<Done, String> {
        let job = run.job;
        self.kid.say(&ToEngine::Run(run)).await?;
        let ended = async {
            loop {
                match heard(&mut self.kid, limit).await? {
                    FromEngine::Done(done) if done.job == job => return Ok(*done),
                    FromEngine::Failed { job: failed, fault } if failed == job => return Err(words(fault)),
                    FromEngine::Fatal { message } => return Err(message),
                    _ => {}
                }
            }
        };
        timeout(limit, ended).await.unwrap_or_else(|_| Err(format!("it did not answer within {} s", limit.as_secs())))
    }
}

async fn heard(kid: &mut Kid, limit: Duration) -> Result<FromEngine, String> {
    timeout(limit, kid.hear()).await.unwrap_or_else(|_| Err(format!("the engine was silent for {} s", limit.as_secs())))
}

fn words(fault: Fault) -> String {
    match fault {
        Fault::TooLong { tokens, context_tokens } => {
            format!("the prompt is {tokens} tokens, the context window is {context_tokens}")
        }
        Fault::Cut => "no valid ending within its tokens".to_owned(),
        Fault::Aborted => "it was stopped".to_owned(),
        Fault::Hopeless { tokens } => format!("it was given up after {tokens} tokens"),
        Fault::Schema(why) => format!("its schema cannot be used: {why}"),
        Fault::Other(why) => why,
    }
}
