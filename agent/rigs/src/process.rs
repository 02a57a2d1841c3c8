//! Processes that a rig starts. Invariant: none outlives the rig. Each runs on a leash: the kernel kills it when its
//! parent dies, however the parent dies; and it stands in a process group of its own, so that ctrl-C reaches the rig
//! first, which then stops its children in order.

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long a child may take to end after SIGTERM: the gateway's own drain bound is 10 s.
const STOP_WAIT: Duration = Duration::from_secs(15);
/// How often a child is looked at while it ends.
const POLL: Duration = Duration::from_millis(20);

/// Options of the leash.
#[derive(clap::Args, Debug)]
pub(crate) struct LeashOptions {
    /// The process that must live on.
    #[arg(long)]
    parent: i32,
    /// Program and arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Ties this process to its parent, then becomes the program.
pub(crate) fn leash(options: &LeashOptions) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask for a signal at the parent's death")?;
    // The parent may have died before the request: then no signal comes any more.
    if getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(options.parent) {
        bail!("parent {} is gone already", options.parent);
    }
    let (program, arguments) = options.command.split_first().context("no program to run")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", Path::new(program).display()))
}

/// A command that runs `program` on a leash, with stdin closed.
pub(crate) fn leashed(program: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(own_binary()?);
    command.args(["leash", "--parent", &std::process::id().to_string(), "--"]).arg(program);
    command.stdin(Stdio::null()).process_group(0);
    Ok(command)
}

/// This binary.
pub(crate) fn own_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this binary lies")
}

/// The gateway's binary: beside this one, as cargo builds them.
pub(crate) fn tidegate_binary() -> anyhow::Result<PathBuf> {
    let path = own_binary()?.with_file_name("tidegate");
    if !path.is_file() {
        bail!("{} is not there, build it with: cargo build --release -p tidegate", path.display());
    }
    Ok(path)
}

/// A running child.
pub(crate) struct Process {
    name: &'static str,
    child: std::process::Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts a command whose stderr (and stdout, unless it is piped already) goes to `log`.
    pub(crate) fn start(name: &'static str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let copy = file.try_clone().context("cannot share a log file")?;
        command.stdout(file).stderr(copy);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log: Some(log.to_owned()) })
    }

    /// Its process id. The leash becomes the program, so it is the program's own.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of its log when it is no longer running.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("cannot ask for a child's state")? {
            None => Ok(()),
            Some(status) => bail!("{} ended early with {status}{}", self.name, self.last_words()),
        }
    }

    fn last_words(&self) -> String {
        /// Lines of a log that explain an early end.
        const LINES: usize = 12;
        let text = self.log.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
        if end.is_empty() { String::new() } else { format!(":\n  {end}") }
    }

    /// Asks it to stop and waits; kills it when it does not.
    pub(crate) fn stop(&mut self) {
        if !self.signal(Signal::TERM) {
            return;
        }
        let give_up = Instant::now() + STOP_WAIT;
        while Instant::now() < give_up {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(POLL),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        eprintln!("{} did not stop within {} s and is killed", self.name, STOP_WAIT.as_secs());
        self.kill();
    }

    fn signal(&mut self, signal: Signal) -> bool {
        let running = matches!(self.child.try_wait(), Ok(None));
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        running && pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until `ready` says so, as long as the process lives.
pub(crate) fn wait_until(
    what: &str,
    limit: Duration,
    process: &mut Process,
    mut ready: impl FnMut() -> bool,
) -> anyhow::Result<Duration> {
    /// How often readiness is looked at: fine enough to measure a start of 300 ms.
    const LOOK: Duration = Duration::from_millis(2);
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if ready() {
            return Ok(begin.elapsed());
        }
        process.check_alive()?;
        std::thread::sleep(LOOK);
    }
    bail!("{what} did not come within {} s{}", limit.as_secs(), process.last_words())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn an_early_end_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut process =
            Process::start("child", shell("echo no port left >&2; exit 3"), &dir.path().join("log")).unwrap();
        let error = wait_until("a port", Duration::from_secs(10), &mut process, || false).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("child ended early") && text.contains("no port left"), "{text}");
    }

    #[test]
    fn dropping_ends_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::start("child", shell("exec sleep 600"), &dir.path().join("log")).unwrap();
        let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap()).unwrap();
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
