//! A process that speaks frames, as the tests start it.

use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use tidegate_engine::protocol::{CHILD_ENV, FromEngine, Start, ToEngine, read_frame, write_frame};

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An engine and its pipes; it ends when dropped.
pub(crate) struct Engine {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) messages: Receiver<FromEngine>,
}

impl Engine {
    pub(crate) fn spawn() -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_tidegate-engine")).envs(CHILD_ENV))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        Self::with(command.stderr(Stdio::null()))
    }

    /// With its stderr as the command has it.
    pub(crate) fn with(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            while let Some(message) = read_frame(&mut stdout).unwrap() {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Self { child, stdin, messages }
    }

    pub(crate) fn start(start: Start) -> Self {
        let mut engine = Self::spawn();
        engine.say(&ToEngine::Start(start));
        assert!(matches!(engine.next(), FromEngine::Ready { .. }));
        engine
    }

    pub(crate) fn say(&mut self, message: &ToEngine) {
        write_frame(self.stdin.as_mut().unwrap(), message).unwrap();
    }

    /// The next message that is not a beat.
    pub(crate) fn next(&self) -> FromEngine {
        loop {
            match self.messages.recv_timeout(PATIENCE).unwrap() {
                FromEngine::Beat => {}
                message => return message,
            }
        }
    }

    /// The next message that is not a beat; none when there are no more.
    pub(crate) fn heard(&self) -> Option<FromEngine> {
        loop {
            match self.messages.recv_timeout(PATIENCE) {
                Ok(FromEngine::Beat) => {}
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("the engine says nothing"),
            }
        }
    }

    /// Waits until the engine's stdout ends, then for its status.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        loop {
            match self.messages.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("the engine does not end"),
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
