//! The eight devices: a process each, told what to publish, heard for what came.

use super::plan::DEVICES;
use crate::device::{Order, Word};
use crate::ledger::{Entry, Tally};
use crate::process::{leashed, own_binary};
use crate::world::Gateway;
use anyhow::{Context as _, bail};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the devices may take to connect and subscribe.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long they may take to report.
const REPORT_LIMIT: Duration = Duration::from_secs(10);

/// A device process and what was last heard of it. Killed when dropped.
struct Member {
    child: Child,
    stdin: ChildStdin,
    tally: Tally,
    report: Option<Vec<Entry>>,
    ready: bool,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All devices.
pub(super) struct Crew {
    members: Vec<Member>,
    words: mpsc::Receiver<(usize, Word)>,
}

impl Crew {
    /// Starts the devices: MQTT 3.1.1 and 5 in turn, JSON and CBOR in turn, every pair of both twice.
    pub(super) fn start(gateway: &Gateway) -> anyhow::Result<Self> {
        let (out, words) = mpsc::channel();
        let members = (0..DEVICES).map(|n| start_member(n, gateway, out.clone())).collect::<anyhow::Result<_>>()?;
        let mut crew = Self { members, words };
        crew.hear_until(READY_LIMIT, "be ready", |members| members.iter().all(|m| m.ready))?;
        Ok(crew)
    }

    /// Tells a device to publish.
    pub(super) fn publish(&mut self, device: usize, order: &Order) -> anyhow::Result<()> {
        let line = serde_json::to_string(order)?;
        writeln!(self.members[device].stdin, "{line}").with_context(|| format!("device {} is gone", device + 1))
    }

    /// Hears what is said within `limit`, and gives the sums of all devices.
    pub(super) fn hear(&mut self, limit: Duration) -> anyhow::Result<Tally> {
        let end = Instant::now() + limit;
        while let Ok((device, word)) = self.words.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.note(device, word);
        }
        self.check_alive()?;
        Ok(self.tally())
    }

    /// The sums of all devices.
    pub(super) fn tally(&self) -> Tally {
        self.members.iter().fold(Tally::default(), |sum, member| sum.plus(member.tally))
    }

    /// Asks every device for all it knows.
    pub(super) fn report(&mut self) -> anyhow::Result<Vec<Entry>> {
        self.members.iter_mut().for_each(|m| m.report = None);
        for device in 0..self.members.len() {
            self.publish(device, &Order::Report)?;
        }
        self.hear_until(REPORT_LIMIT, "report", |members| members.iter().all(|m| m.report.is_some()))?;
        let mut entries: Vec<Entry> = self.members.iter_mut().filter_map(|m| m.report.take()).flatten().collect();
        entries.sort_by_key(|entry| entry.line);
        Ok(entries)
    }

    fn hear_until(&mut self, limit: Duration, what: &str, done: impl Fn(&[Member]) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        while !done(&self.members) {
            self.check_alive()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("not every device could {what} within {} s", limit.as_secs());
            }
            // Short, so that a device that ended is noticed.
            if let Ok((device, word)) = self.words.recv_timeout(left.min(Duration::from_millis(200))) {
                self.note(device, word);
            }
        }
        Ok(())
    }

    fn note(&mut self, device: usize, word: Word) {
        let member = &mut self.members[device];
        match word {
            Word::Ready => member.ready = true,
            Word::Tally(tally) => member.tally = tally,
            Word::Report(entries) => member.report = Some(entries),
        }
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        for (number, member) in self.members.iter_mut().enumerate() {
            if let Some(status) = member.child.try_wait().context("cannot ask for a device's state")? {
                bail!("device {} ended early with {status}", number + 1);
            }
        }
        Ok(())
    }
}

fn start_member(number: usize, gateway: &Gateway, out: mpsc::Sender<(usize, Word)>) -> anyhow::Result<Member> {
    let mut command = leashed(&own_binary()?)?;
    let protocol = if number.is_multiple_of(2) { "v4" } else { "v5" };
    command.args([
        "device",
        "--connect",
        &gateway.door.address.to_string(),
        "--name",
        &format!("local-{}", number + 1),
    ]);
    command.args(["--origin", &gateway.door.origin.to_string(), "--protocol", protocol]);
    if (number / 2).is_multiple_of(2) {
        command.arg("--cbor");
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a device")?;
    let stdin = child.stdin.take().context("stdin is piped")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let sent = match serde_json::from_str(&line) {
                Ok(word) => out.send((number, word)),
                Err(error) => {
                    eprintln!("device {}: a word is none: {error}", number + 1);
                    continue;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    });
    Ok(Member { child, stdin, tally: Tally::default(), report: None, ready: false })
}
