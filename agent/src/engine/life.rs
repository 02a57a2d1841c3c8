//! A child's life: what it says becomes reports, its silence is its end.
//!
//! Invariants: a run that was passed on is under way until its frame came; the pieces of an answer are reported before
//! its end.

use super::kid::Kid;
use super::pieces::Pieces;
use super::supervisor::{EngineReport, EngineTask};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tidegate_engine::protocol::{FromEngine, Start, ToEngine};
use tidegate_schemas::{JobId, ModelName};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::info;

/// Silence after which a child that loads counts as hung: a model of some GiB comes from a slow card.
pub(super) const LOAD_SILENCE_MAX: Duration = Duration::from_secs(120);

/// What a child is known to be once it is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Its model.
    pub(crate) model: ModelName,
    /// SHA-256 of the file.
    pub(crate) sha256: String,
    /// Context window of one prompt, in tokens.
    pub(crate) context_tokens: u32,
}

/// Why a child's life ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody listens any more.
    Stop,
    /// It died or is to be killed.
    Gone(String),
}

/// What there is to do next.
pub(super) enum Turn {
    Heard(Result<FromEngine, String>),
    Silent(Duration),
    PiecesDue,
}

/// A child that lives, and everything that belongs to it.
pub(super) struct Life {
    pub(super) kid: Kid,
    pub(super) number: u64,
    pub(super) ready: bool,
    /// Runs without an end.
    pub(super) under_way: BTreeSet<JobId>,
    /// Longest silence once it is ready.
    pub(super) patience: Duration,
    pub(super) reports: mpsc::Sender<EngineReport>,
    heard: Instant,
    pieces: Pieces,
}

impl Life {
    /// One that was spawned; it is told what to load.
    pub(super) async fn begin(
        mut kid: Kid,
        number: u64,
        start: &Start,
        (patience, reports): (Duration, mpsc::Sender<EngineReport>),
    ) -> Result<Self, String> {
        kid.say(&ToEngine::Start(start.clone())).await?;
        Ok(Self { ready: false, ..Self::of(kid, number, (patience, reports)) })
    }

    /// One that is up already.
    pub(super) fn of(kid: Kid, number: u64, (patience, reports): (Duration, mpsc::Sender<EngineReport>)) -> Self {
        let (heard, under_way, pieces) = (Instant::now(), BTreeSet::new(), Pieces::default());
        Self { kid, number, ready: true, under_way, patience, reports, heard, pieces }
    }

    /// Waits for what is next. Nothing is lost when the wait is given up.
    pub(super) async fn wait(&mut self) -> Turn {
        let silence = if self.ready { self.patience } else { LOAD_SILENCE_MAX };
        let over = self.heard + silence;
        let due = self.pieces.next_due().unwrap_or(over);
        tokio::select! {
            biased;
            heard = self.kid.hear() => Turn::Heard(heard),
            () = sleep_until(due.into()), if due < over => Turn::PiecesDue,
            () = sleep_until(over.into()) => Turn::Silent(silence),
        }
    }

    /// Does what is next.
    pub(super) async fn take(&mut self, turn: Turn) -> Result<(), End> {
        match turn {
            Turn::Heard(Ok(frame)) => {
                self.heard = Instant::now();
                self.frame(frame).await
            }
            Turn::Heard(Err(why)) => Err(End::Gone(why)),
            Turn::Silent(silence) => Err(End::Gone(format!("the engine was silent for {} s", silence.as_secs()))),
            Turn::PiecesDue => {
                for (job, text) in self.pieces.due(Instant::now()) {
                    self.report(EngineReport::Token(job, text)).await?;
                }
                Ok(())
            }
        }
    }

    async fn frame(&mut self, frame: FromEngine) -> Result<(), End> {
        let report = match frame {
            FromEngine::Beat => return Ok(()),
            FromEngine::Ready { name, sha256, context_tokens } => {
                self.ready = true;
                let loaded = loaded(&name, sha256, context_tokens).map_err(End::Gone)?;
                info!(child = self.number, model = %loaded.model, context_tokens, "the engine is ready");
                EngineReport::Ready { child: self.number, pid: self.kid.pid(), loaded }
            }
            FromEngine::Speed { percent } => EngineReport::Speed { percent },
            FromEngine::Fatal { message } => return Err(End::Gone(message)),
            FromEngine::Token { job, text } => match self.pieces.add(job, &text, Instant::now()) {
                Some(text) => EngineReport::Token(job, text),
                None => return Ok(()),
            },
            FromEngine::Done(done) => {
                self.ended(done.job).await?;
                EngineReport::Done(done)
            }
            FromEngine::Failed { job, fault } => {
                self.ended(job).await?;
                EngineReport::Failed(job, fault)
            }
        };
        self.report(report).await
    }

    async fn ended(&mut self, job: JobId) -> Result<(), End> {
        self.under_way.remove(&job);
        match self.pieces.end(job) {
            Some(text) => self.report(EngineReport::Token(job, text)).await,
            None => Ok(()),
        }
    }

    pub(super) async fn report(&mut self, report: EngineReport) -> Result<(), End> {
        self.reports.send(report).await.map_err(|_| End::Stop)
    }

    /// Passes a task on.
    pub(super) async fn pass(&mut self, task: EngineTask) -> Result<(), End> {
        let message = match task {
            EngineTask::Run(run) => {
                self.under_way.insert(run.job);
                ToEngine::Run(*run)
            }
            EngineTask::Abort(job) => ToEngine::Abort { job },
            EngineTask::Retire => return Ok(()),
        };
        self.kid.say(&message).await.map_err(End::Gone)
    }

    /// Ends it: kindly, or at once. Gives the reason, with that it cannot be killed where that is so.
    pub(super) async fn end(self, end: End) -> End {
        match end {
            End::Stop => {
                self.kid.stop().await;
                End::Stop
            }
            End::Gone(why) => match self.kid.kill().await {
                Ok(()) => End::Gone(why),
                Err(_) => End::Gone(format!("{why}; it cannot be killed")),
            },
        }
    }
}

/// What a child says of its model, checked.
pub(super) fn loaded(name: &str, sha256: String, context_tokens: u32) -> Result<Loaded, String> {
    let model = name.parse().map_err(|e| format!("the engine named its model badly: {e}"))?;
    Ok(Loaded { model, sha256, context_tokens })
}
