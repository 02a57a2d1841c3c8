//! One engine process and its pipes.
//!
//! Invariant: the process is dead when this is gone.

use super::supervisor::SELF;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;
use tidegate_engine::protocol::{
    CHILD_ENV, FromEngine, LENGTH_BYTES, ToEngine, decode_frame, decode_length, encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Frames of the child that wait to be heard.
const FRAMES_MAX: usize = 64;
/// Longest that a frame to the child may take: the pipe is full when it does not read.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// What a processor ends a program with that uses what it lacks.
const SIGILL: i32 = 4;
/// Longest that a child may take to end when asked.
const STOP_MAX: Duration = Duration::from_millis(500);

/// A child that was spawned.
#[derive(Debug)]
pub(super) struct Kid {
    process: Child,
    stdin: ChildStdin,
    frames: mpsc::Receiver<Result<FromEngine, String>>,
    reader: JoinHandle<()>,
    pid: u32,
}

impl Kid {
    /// Spawns one that loads nothing yet.
    pub(super) fn spawn() -> Result<Self, String> {
        let mut process = command().spawn().map_err(|error| format!("the engine does not start: {error}"))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the engine has no pipes".to_owned());
        };
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        let pid = process.id().unwrap_or(0);
        Ok(Self { process, stdin, frames, reader: tokio::spawn(read(stdout, sender)), pid })
    }

    /// Its process id; 0 if it was gone at once.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The next frame, or why there will be none. Nothing is lost when the wait is given up.
    pub(super) async fn hear(&mut self) -> Result<FromEngine, String> {
        match self.frames.recv().await {
            Some(frame) => frame,
            None => Err(self.last_word().await),
        }
    }

    /// How it ended.
    async fn last_word(&mut self) -> String {
        match timeout(STOP_MAX, self.process.wait()).await {
            Ok(Ok(status)) if status.signal() == Some(SIGILL) => {
                format!("the engine ended with {status}: this build is for another processor, see `tidegate doctor`")
            }
            Ok(Ok(status)) => format!("the engine ended with {status}"),
            Ok(Err(_)) | Err(_) => "the engine closed its pipe".to_owned(),
        }
    }

    /// Writes a frame whole, or says why it cannot be.
    pub(super) async fn say(&mut self, message: &ToEngine) -> Result<(), String> {
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

    /// Asks it to end, and kills it when it does not.
    pub(super) async fn stop(mut self) {
        if self.say(&ToEngine::Stop).await.is_ok() {
            let _ = timeout(STOP_MAX, self.process.wait()).await;
        }
        let _ = self.kill().await;
    }

    /// Kills it and waits until it is dead.
    ///
    /// # Errors
    /// The system refuses that.
    pub(super) async fn kill(mut self) -> std::io::Result<()> {
        self.process.kill().await
    }
}

impl Drop for Kid {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn command() -> Command {
    let mut command = Command::new(SELF);
    // What keeps the parent small would make the engine slow.
    for (name, _) in crate::memory::SETTINGS {
        command.env_remove(name);
    }
    command.arg("engine").envs(CHILD_ENV).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
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
