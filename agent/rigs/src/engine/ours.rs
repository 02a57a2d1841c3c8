//! Our engine as the gateway has it: `tidegate engine`, a process of its own that is spoken to in frames.

use crate::process::{leashed, tidegate_binary};
use anyhow::{Context as _, bail};
use std::collections::HashMap;
use std::io::{BufReader, BufWriter};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use tidegate_engine::protocol::{CHILD_ENV, Done, FromEngine, Run, Start, ToEngine, read_frame, write_frame};
use tidegate_schemas::{JobId, Message, Role};

/// Frames between the reading thread and the rig.
const FRAMES_MAX: usize = 1_024;
/// Longest silence of an engine that loads or works: it beats four times a second.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A running engine.
pub(crate) struct Ours {
    child: Child,
    orders: BufWriter<ChildStdin>,
    frames: Receiver<(Instant, FromEngine)>,
    next: u64,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Seconds until it was whole.
    pub(crate) wall_s: f64,
    pub(crate) done: Done,
}

/// A prompt with its limits; the engine's number of it comes later.
pub(crate) fn prompt(system: &str, text: &str, schema: Option<&str>, max_tokens: u32) -> Run {
    Run {
        job: JobId(0),
        system: system.to_owned(),
        messages: vec![Message { role: Role::User, content: text.into() }],
        schema: schema.map(str::to_owned),
        max_tokens,
        stream: false,
        floor: None,
    }
}

impl Ours {
    /// Starts one and waits until the model is loaded.
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        let mut command = leashed(&tidegate_binary()?)?;
        command.arg("engine").envs(CHILD_ENV).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the engine")?;
        let orders = BufWriter::new(child.stdin.take().context("the engine has no stdin")?);
        let mut pipe = BufReader::new(child.stdout.take().context("the engine has no stdout")?);
        let (frames, inbox) = sync_channel(FRAMES_MAX);
        std::thread::spawn(move || {
            while let Ok(Some(frame)) = read_frame(&mut pipe) {
                if frames.send((Instant::now(), frame)).is_err() {
                    return;
                }
            }
        });
        let mut ours = Self { child, orders, frames: inbox, next: 1 };
        ours.say(&ToEngine::Start(start.clone()))?;
        loop {
            match ours.hear()?.1 {
                FromEngine::Ready { .. } => return Ok(ours),
                FromEngine::Fatal { message } => bail!("the engine does not start: {message}"),
                _ => {}
            }
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn say(&mut self, order: &ToEngine) -> anyhow::Result<()> {
        write_frame(&mut self.orders, order).context("the engine takes no orders any more")
    }

    fn hear(&self) -> anyhow::Result<(Instant, FromEngine)> {
        self.frames.recv_timeout(SILENCE_MAX).context("the engine is gone or silent")
    }

    /// One prompt.
    pub(crate) fn ask(&mut self, run: Run) -> anyhow::Result<Answer> {
        self.crowd(vec![run], 1)?.pop().context("a prompt without an answer")
    }

    /// Prompts of so many clients, each of which asks again when it has its answer; answers stand in the prompts' order.
    pub(crate) fn crowd(&mut self, runs: Vec<Run>, clients: usize) -> anyhow::Result<Vec<Answer>> {
        let mut answers: Vec<Option<Answer>> = runs.iter().map(|_| None).collect();
        let mut waiting = runs.into_iter().enumerate();
        let mut asked: HashMap<JobId, (usize, Instant)> = HashMap::new();
        let mut open = 0;
        loop {
            while open < clients {
                let Some((index, run)) = waiting.next() else { break };
                let job = JobId(self.next);
                self.next += 1;
                asked.insert(job, (index, Instant::now()));
                self.say(&ToEngine::Run(Run { job, ..run }))?;
                open += 1;
            }
            if open == 0 {
                return answers.into_iter().map(|answer| answer.context("a prompt without an answer")).collect();
            }
            let (at, frame) = self.hear()?;
            match frame {
                FromEngine::Done(done) => {
                    let (index, began) = asked.remove(&done.job).context("an answer to nothing")?;
                    answers[index] = Some(Answer { wall_s: (at - began).as_secs_f64(), done: *done });
                    open -= 1;
                }
                FromEngine::Failed { fault, .. } => bail!("a prompt failed: {fault:?}"),
                FromEngine::Fatal { message } => bail!("the engine gave up: {message}"),
                _ => {}
            }
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
