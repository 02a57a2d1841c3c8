//! A child process whose stderr is kept, and which does not outlive its test.

use super::until;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Our binary.
pub(crate) fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A process and what it said on stderr. One that logs an error fails its test.
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    may_log_errors: bool,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, pipe) = (lines.clone(), child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                kept.lock().unwrap().push(line.unwrap_or_else(|e| format!("unreadable: {e}")));
            }
        });
        Self { child, lines, reader: Some(reader), may_log_errors: false }
    }

    /// For a test that breaks what a process stands on.
    #[allow(dead_code, reason = "not every test that shares this breaks something")]
    pub(crate) fn may_log_errors(&mut self) {
        self.may_log_errors = true;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    pub(crate) fn wait_for_log(&mut self, text: &str) {
        until(&format!("the log line {text:?}"), || {
            if self.log().contains(text) {
                return Some(());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                self.join();
                assert!(self.log().contains(text), "it ended with {status} before {text:?}:\n{}", self.log());
            }
            None
        });
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = until("the end of a process", || self.child.try_wait().unwrap());
        self.join();
        status
    }

    /// SIGKILL: what a power cut is to a process.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join();
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- log of a process\n{log}\n---");
        } else {
            assert!(self.may_log_errors || !log.contains(" ERROR "), "a process logged an error:\n{log}");
            assert!(!log.contains("panicked at"), "a process panicked:\n{log}");
        }
    }
}

/// Runs a command to its end: status, stdout, stderr.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = until("the end of a command", || child.try_wait().unwrap());
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (status.code().unwrap_or(-1), out, err)
}
