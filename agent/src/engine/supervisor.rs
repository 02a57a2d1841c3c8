//! Starts the engine, kills it when it is silent, starts the next one, and lets another model's engine take over.

use super::kid::Kid;
use super::life::{End, Life, Loaded};
use super::retired::Retired;
use super::successor::Successor;
use crate::link::Backoff;
use std::time::Duration;
use tidegate_engine::protocol::{Done, Fault, Run, Start};
use tidegate_schemas::{JobId, PromptText};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{info, warn};

/// This program, whatever happened to its file.
pub(super) const SELF: &str = "/proc/self/exe";
/// Commands that wait for the child: every slot's run and its abort fit many times.
pub(crate) const COMMANDS_MAX: usize = 512;
/// Silence after which a ready child counts as hung, unless the configuration says otherwise. It beats each second; one
/// step of a large model on a small CPU takes a few.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(20);
/// First wait before a restart; a model of a few MiB is loaded in less.
const RESTART_LEAST: Duration = Duration::from_millis(100);
/// Longest wait before a restart: the gateway answers nothing meanwhile.
const RESTART_MOST: Duration = Duration::from_secs(15);
/// A child that lived so long did not die of its start.
const RESTART_STABLE: Duration = Duration::from_secs(20);

/// For the child with that number; one that is gone gets nothing.
#[derive(Debug)]
pub(crate) struct EngineCommand {
    /// From [`EngineReport::Ready`] or [`Handover::TakenOver`].
    pub(crate) child: u64,
    /// What it should do.
    pub(crate) what: EngineTask,
}

/// What a child should do.
#[derive(Debug)]
pub(crate) enum EngineTask {
    /// Answer a prompt.
    Run(Box<Run>),
    /// Stop a run.
    Abort(JobId),
    /// It was replaced, and all that was meant for it has been said: end what is under way, then go.
    Retire,
}

impl EngineCommand {
    /// A run.
    pub(crate) fn run(child: u64, run: Run) -> Self {
        Self { child, what: EngineTask::Run(Box::new(run)) }
    }

    /// An abort.
    pub(crate) fn abort(child: u64, job: JobId) -> Self {
        Self { child, what: EngineTask::Abort(job) }
    }

    /// The last word to one that was replaced.
    pub(crate) fn retire(child: u64) -> Self {
        Self { child, what: EngineTask::Retire }
    }
}

/// What became of the child and its runs.
#[derive(Debug)]
pub(crate) enum EngineReport {
    /// A child is up.
    Ready {
        /// Its number, from 1.
        child: u64,
        /// Its process id; 0 if it is already gone.
        pid: u32,
        /// Its model.
        loaded: Loaded,
    },
    /// The child is dead, and with it all that it ran.
    Gone {
        /// Whether it had been ready.
        was_ready: bool,
        /// Why, one sentence.
        why: String,
    },
    /// It has become slower for good, or has recovered.
    Speed {
        /// Its share of the speed that it had before, in percent.
        percent: u8,
    },
    /// A piece of an answer.
    Token(JobId, PromptText),
    /// A run ended.
    Done(Box<Done>),
    /// A run failed.
    Failed(JobId, Fault),
    /// One child follows another while both live.
    Handover(Handover),
}

/// What becomes of two children of which one replaces the other.
#[derive(Debug)]
pub(crate) enum Handover {
    /// Another child is up in the place of the one before.
    TakenOver {
        /// Its number.
        child: u64,
        /// Its process id; 0 if it is already gone.
        pid: u32,
        /// Its model.
        loaded: Loaded,
        /// The child before, if it lives: it ends what it began, and waits for [`EngineTask::Retire`].
        before: Option<u64>,
    },
    /// The child before ended what it had begun, and is gone.
    Over {
        /// Its number.
        child: u64,
    },
    /// The child before died first, and with it what it ran.
    Lost {
        /// Its number.
        child: u64,
        /// Why, one sentence.
        why: String,
    },
}

/// Owns the child.
pub(crate) struct Supervisor {
    start: Start,
    commands: mpsc::Receiver<EngineCommand>,
    reports: mpsc::Sender<EngineReport>,
    /// Children that are to take over.
    pub(crate) successors: mpsc::Receiver<Successor>,
    /// Silence after which a ready child counts as hung.
    pub(crate) patience: Duration,
    children: u64,
    /// The child before, as long as nothing is known to the contrary.
    old: Option<Retired>,
}

/// Why there is no current child any more.
enum Turning {
    /// Nobody commands.
    Stop,
    /// It died or was killed.
    Gone {
        was_ready: bool,
        why: String,
    },
    Succeeded(Box<Successor>),
}

impl Supervisor {
    /// A supervisor that starts the first child when it runs, and lets none take over.
    pub(crate) fn new(
        start: Start,
        commands: mpsc::Receiver<EngineCommand>,
        reports: mpsc::Sender<EngineReport>,
    ) -> Self {
        let (_, successors) = mpsc::channel(1);
        Self { start, commands, reports, successors, patience: PATIENCE_DEFAULT, children: 0, old: None }
    }

    /// Keeps a child alive until the command channel closes.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(RESTART_LEAST, RESTART_MOST, RESTART_STABLE);
        let mut next: Option<Box<Successor>> = None;
        loop {
            self.children += 1;
            let life = match next.take() {
                Some(successor) => self.adopt(*successor).await,
                None => self.born().await,
            };
            let turning = match life {
                Ok(life) => self.lead(life, &mut backoff).await,
                Err(End::Stop) => Turning::Stop,
                Err(End::Gone(why)) => Turning::Gone { was_ready: false, why },
            };
            next = match turning {
                Turning::Stop => return,
                Turning::Succeeded(successor) => Some(successor),
                Turning::Gone { was_ready, why } => {
                    warn!(child = self.children, %why, "the engine is gone");
                    if self.reports.send(EngineReport::Gone { was_ready, why }).await.is_err() {
                        return;
                    }
                    match self.rest(backoff.next()).await {
                        Some(next) => next,
                        None => return,
                    }
                }
            };
        }
    }

    /// Waits, and drops what was meant for the dead child; a successor ends the wait. None when nobody commands any
    /// more.
    async fn rest(&mut self, wait: Duration) -> Option<Option<Box<Successor>>> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return Some(None),
                Some(successor) = self.successors.recv() => return Some(Some(Box::new(successor))),
                command = self.commands.recv() => self.elsewhere(command?).await,
            }
        }
    }

    async fn born(&mut self) -> Result<Life, End> {
        let kid = Kid::spawn().map_err(End::Gone)?;
        let ears = (self.patience, self.reports.clone());
        Life::begin(kid, self.children, &self.start, ears).await.map_err(End::Gone)
    }

    /// A child that was tried serves from now on, and is what restarts start.
    async fn adopt(&mut self, successor: Successor) -> Result<Life, End> {
        let Successor { start, kid, loaded } = successor;
        self.start = start;
        let (child, pid) = (self.children, kid.pid());
        let before = self.old.as_ref().map(|old| old.number).filter(|number| number + 1 == child);
        info!(child, model = %loaded.model, "another model takes over");
        let mut life = Life::of(kid, child, (self.patience, self.reports.clone()));
        let handover = Handover::TakenOver { child, pid, loaded, before };
        life.report(EngineReport::Handover(handover)).await?;
        Ok(life)
    }

    /// One child, until it ends or another takes its place.
    async fn lead(&mut self, mut life: Life, backoff: &mut Backoff) -> Turning {
        let mut worked = false;
        let end = loop {
            if life.ready && !std::mem::replace(&mut worked, life.ready) {
                backoff.works();
            }
            let ended = tokio::select! {
                turn = life.wait() => life.take(turn).await,
                Some(successor) = self.successors.recv() => {
                    self.retire(life).await;
                    return Turning::Succeeded(Box::new(successor));
                }
                command = self.commands.recv() => match command {
                    None => break End::Stop,
                    Some(command) if command.child == life.number => life.pass(command.what).await,
                    Some(command) => {
                        self.elsewhere(command).await;
                        Ok(())
                    }
                },
            };
            if let Err(end) = ended {
                break end;
            }
        };
        let was_ready = life.ready;
        match life.end(end).await {
            End::Stop => Turning::Stop,
            End::Gone(why) => Turning::Gone { was_ready, why },
        }
    }

    /// What was ready ends what it began; what was not has begun nothing.
    async fn retire(&mut self, life: Life) {
        if life.ready {
            self.old = Some(Retired::new(life));
        } else {
            life.end(End::Stop).await;
        }
    }

    /// For a child that is not the current one: the one before gets it, one that is gone nothing.
    async fn elsewhere(&mut self, command: EngineCommand) {
        if let Some(old) = self.old.as_ref().filter(|old| old.number == command.child) {
            old.pass(command.what).await;
        }
    }
}
