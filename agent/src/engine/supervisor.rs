//! Starts the engine, speaks frames with it, kills it when it is silent, and starts the next one.

use super::pieces::Pieces;
use crate::link::Backoff;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tidegate_engine::protocol::{
    CHILD_ENV, Done, Fault, FromEngine, LENGTH_BYTES, Run, Start, ToEngine, decode_frame, decode_length, encode_frame,
};
use tidegate_schemas::{JobId, ModelName, PromptText};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

/// This program, whatever happened to its file.
pub(super) const SELF: &str = "/proc/self/exe";
/// Commands that wait for the child: every slot's run and its abort fit many times.
pub(crate) const COMMANDS_MAX: usize = 512;
/// Frames of the child that wait for the supervisor.
const FRAMES_MAX: usize = 64;
/// Silence after which a ready child counts as hung. It beats each second; one step of a large model on a small CPU
/// takes a few.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// The same while it loads: a model of some GiB comes from a slow card.
const LOAD_SILENCE_MAX: Duration = Duration::from_secs(120);
/// Longest that a frame to the child may take: the pipe is full when it does not read.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Longest that a child may take to end when asked.
const STOP_MAX: Duration = Duration::from_millis(500);
/// First wait before a restart; a model of a few MiB is loaded in less.
const RESTART_LEAST: Duration = Duration::from_millis(100);
/// Longest wait before a restart: the gateway answers nothing meanwhile.
const RESTART_MOST: Duration = Duration::from_secs(15);
/// A child that lived so long did not die of its start.
const RESTART_STABLE: Duration = Duration::from_secs(20);

/// For the child with that number; one that is gone gets nothing.
#[derive(Debug)]
pub(crate) struct EngineCommand {
    /// From [`EngineReport::Ready`].
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
        model: ModelName,
        /// SHA-256 of the file.
        sha256: String,
        /// Context window of one prompt, in tokens.
        context_tokens: u32,
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
}

/// Owns the child.
pub(crate) struct Supervisor {
    start: Start,
    commands: mpsc::Receiver<EngineCommand>,
    reports: mpsc::Sender<EngineReport>,
    children: u64,
}

/// Why a child's life ended.
enum End {
    /// Whoever commands is gone.
    Stop,
    /// It died or was killed.
    Gone(String),
}

impl Supervisor {
    /// A supervisor that starts the first child when it runs.
    pub(crate) fn new(
        start: Start,
        commands: mpsc::Receiver<EngineCommand>,
        reports: mpsc::Sender<EngineReport>,
    ) -> Self {
        Self { start, commands, reports, children: 0 }
    }

    /// Keeps a child alive until the command channel closes.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(RESTART_LEAST, RESTART_MOST, RESTART_STABLE);
        loop {
            self.children += 1;
            let mut ready = false;
            let why = match self.live(&mut ready, &mut backoff).await {
                End::Stop => return,
                End::Gone(why) => why,
            };
            warn!(child = self.children, %why, "the engine is gone");
            if self.reports.send(EngineReport::Gone { was_ready: ready, why }).await.is_err() {
                return;
            }
            if !self.rest(backoff.next()).await {
                return;
            }
        }
    }

    /// Waits, and drops what was meant for the dead child. False when nobody commands any more.
    async fn rest(&mut self, wait: Duration) -> bool {
        let until = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                command = self.commands.recv() => if command.is_none() { return false },
            }
        }
    }

    /// One child, from start to death.
    async fn live(&mut self, ready: &mut bool, backoff: &mut Backoff) -> End {
        let mut child = match spawn() {
            Ok(child) => child,
            Err(error) => return End::Gone(format!("the engine does not start: {error}")),
        };
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return End::Gone("the engine has no pipes".to_owned());
        };
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        let reader = tokio::spawn(read(stdout, sender));
        let pid = child.id().unwrap_or(0);
        let mut life = Life { supervisor: self, pid, stdin, frames, ready, backoff, pieces: Pieces::default() };
        let end = life.lead().await;
        if matches!(end, End::Stop) {
            let _ = life.write(&ToEngine::Stop).await;
            drop(life);
            let _ = timeout(STOP_MAX, child.wait()).await;
        } else {
            drop(life);
        }
        reader.abort();
        let killed = child.kill().await;
        match end {
            End::Gone(why) if killed.is_err() => End::Gone(format!("{why}; it cannot be killed")),
            end => end,
        }
    }
}

/// A child's life and everything that belongs to it.
struct Life<'a> {
    supervisor: &'a mut Supervisor,
    pid: u32,
    stdin: ChildStdin,
    frames: mpsc::Receiver<Result<FromEngine, String>>,
    ready: &'a mut bool,
    backoff: &'a mut Backoff,
    pieces: Pieces,
}

impl Life<'_> {
    async fn lead(&mut self) -> End {
        let start = ToEngine::Start(self.supervisor.start.clone());
        if let Err(why) = self.write(&start).await {
            return End::Gone(why);
        }
        let mut heard = Instant::now();
        loop {
            let silence = if *self.ready { SILENCE_MAX } else { LOAD_SILENCE_MAX };
            let due = self.pieces.next_due().unwrap_or(heard + silence);
            tokio::select! {
                frame = self.frames.recv() => {
                    heard = Instant::now();
                    match frame {
                        Some(Ok(frame)) => if let Err(end) = self.heard(frame).await { return end },
                        Some(Err(why)) => return End::Gone(why),
                        None => return End::Gone("the engine closed its pipe".to_owned()),
                    }
                }
                command = self.supervisor.commands.recv() => {
                    let Some(command) = command else { return End::Stop };
                    if let Err(why) = self.pass(command).await { return End::Gone(why) }
                }
                () = sleep_until((heard + silence).into()) => {
                    return End::Gone(format!("the engine was silent for {} s", silence.as_secs()));
                }
                () = sleep_until(due.into()) => if let Err(end) = self.pass_due().await { return end },
            }
        }
    }

    async fn heard(&mut self, frame: FromEngine) -> Result<(), End> {
        let report = match frame {
            FromEngine::Beat => return Ok(()),
            FromEngine::Ready { name, sha256, context_tokens } => {
                *self.ready = true;
                self.backoff.works();
                let child = self.supervisor.children;
                let model: ModelName =
                    name.parse().map_err(|e| End::Gone(format!("the engine named its model badly: {e}")))?;
                info!(child, %model, context_tokens, "the engine is ready");
                EngineReport::Ready { child, pid: self.pid, model, sha256, context_tokens }
            }
            FromEngine::Speed { percent } => EngineReport::Speed { percent },
            FromEngine::Fatal { message } => return Err(End::Gone(message)),
            FromEngine::Token { job, text } => match self.pieces.add(job, &text, Instant::now()) {
                Some(text) => EngineReport::Token(job, text),
                None => return Ok(()),
            },
            FromEngine::Done(done) => {
                self.pass_rest(done.job).await?;
                EngineReport::Done(done)
            }
            FromEngine::Failed { job, fault } => {
                self.pass_rest(job).await?;
                EngineReport::Failed(job, fault)
            }
        };
        self.report(report).await
    }

    async fn pass_rest(&mut self, job: JobId) -> Result<(), End> {
        match self.pieces.end(job) {
            Some(text) => self.report(EngineReport::Token(job, text)).await,
            None => Ok(()),
        }
    }

    async fn pass_due(&mut self) -> Result<(), End> {
        for (job, text) in self.pieces.due(Instant::now()) {
            self.report(EngineReport::Token(job, text)).await?;
        }
        Ok(())
    }

    async fn report(&mut self, report: EngineReport) -> Result<(), End> {
        self.supervisor.reports.send(report).await.map_err(|_| End::Stop)
    }

    async fn pass(&mut self, command: EngineCommand) -> Result<(), String> {
        if command.child != self.supervisor.children {
            return Ok(());
        }
        match command.what {
            EngineTask::Run(run) => self.write(&ToEngine::Run(*run)).await,
            EngineTask::Abort(job) => self.write(&ToEngine::Abort { job }).await,
        }
    }

    async fn write(&mut self, message: &ToEngine) -> Result<(), String> {
        let frame = encode_frame(message);
        let write = async {
            self.stdin.write_all(&frame).await?;
            self.stdin.flush().await
        };
        match timeout(WRITE_MAX, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the engine's pipe broke: {error}")),
            Err(_) => Err(format!("the engine read nothing for {} s", WRITE_MAX.as_secs())),
        }
    }
}

fn spawn() -> std::io::Result<Child> {
    let mut command = Command::new(SELF);
    // What keeps the parent small would make the engine slow.
    for (name, _) in crate::memory::SETTINGS {
        command.env_remove(name);
    }
    command.arg("engine").envs(CHILD_ENV).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()
}

/// Reads frames until the pipe ends or one is broken.
async fn read(mut stdout: ChildStdout, frames: mpsc::Sender<Result<FromEngine, String>>) {
    loop {
        let frame = match frame(&mut stdout).await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(why) => Err(why),
        };
        let over = frame.is_err();
        if frames.send(frame).await.is_err() || over {
            return;
        }
    }
}

async fn frame(stdout: &mut ChildStdout) -> Result<Option<FromEngine>, String> {
    let mut head = [0; LENGTH_BYTES];
    if stdout.read_exact(&mut head).await.is_err() {
        return Ok(None);
    }
    let length = decode_length(head).map_err(|e| e.to_string())?;
    let mut body = vec![0; length];
    stdout.read_exact(&mut body).await.map_err(|e| format!("the engine stopped within a frame: {e}"))?;
    decode_frame(&body).map(Some).map_err(|e| e.to_string())
}
