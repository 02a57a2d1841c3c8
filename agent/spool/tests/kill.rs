//! kill -9 of a process that stores: what it said was on disk is there.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{escalation, limits, outcome, prompt};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tidegate_schemas::JobId;
use tidegate_spool::{Change, Spool, SpoolError};

/// Names the store to the process that is killed.
const STORE: &str = "TIDEGATE_SPOOL_KILL_TEST";
const ROUNDS: u32 = 5;
/// Answers after which a round ends: enough for some groups, few enough for five rounds in seconds.
const ANSWERS: usize = 300;

fn say(class: char, job: u64) -> impl FnOnce(Result<(), SpoolError>) + Send + 'static {
    move |result| {
        result.unwrap();
        // One write, so that a kill leaves the whole line or nothing. A closed pipe is the end of the round.
        let _ = std::io::stderr().lock().write_all(format!("{class} {job}\n").as_bytes());
    }
}

/// The life of the process that is killed: prompts, every second one escalated, every third concluded.
fn store(dir: &Path) {
    let (spool, recovered) = Spool::open(dir, limits()).unwrap();
    let mut job = recovered.next_job.0;
    let (gate, free) = std::sync::mpsc::sync_channel(64);
    for _ in 0..64 {
        gate.send(()).unwrap();
    }
    // Ends by being killed; the bound is for a test that forgets to.
    while job < recovered.next_job.0 + 100_000 {
        free.recv().unwrap();
        let len = if job.is_multiple_of(10) { 9_000 } else { 300 };
        spool.submit(Change::Keep(prompt(job, len)), say('p', job));
        if job.is_multiple_of(2) {
            spool.submit(Change::Escalate(escalation(job, len)), say('o', job));
        }
        if job.is_multiple_of(3) {
            spool.submit(Change::Conclude(outcome(job, len)), say('r', job));
            spool.submit(Change::Release { job: JobId(job) }, say('d', job));
        }
        let gate = gate.clone();
        spool.counts(move |_| gate.try_send(()).unwrap_or_default());
        job += 1;
    }
}

fn start(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "nothing_that_was_acknowledged_is_lost", "--nocapture"]).env(STORE, dir);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs until enough was acknowledged, kills, and takes the rest of what was said before the end.
fn round(dir: &Path, said: &mut BTreeSet<(char, u64)>) {
    let mut child = start(dir);
    let mut said_by_it = BufReader::new(child.stderr.take().unwrap());
    for count in 0.. {
        let mut line = String::new();
        said_by_it.read_line(&mut line).unwrap();
        // The last line may be cut by the kill; a cut number would be another job's.
        let Some(line) = line.strip_suffix('\n') else { break };
        let (class, job) = line.split_once(' ').unwrap_or_else(|| panic!("the storing process said: {line}"));
        let job = job.parse().unwrap_or_else(|_| panic!("the storing process said: {line}"));
        said.insert((class.chars().next().unwrap(), job));
        if count == ANSWERS {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it ended by being killed");
}

fn check(dir: &Path, said: &BTreeSet<(char, u64)>) {
    let (spool, found) = Spool::open(dir, limits()).unwrap();
    assert_eq!((found.quarantined.as_ref(), found.unreadable), (None, 0));
    let prompts: BTreeSet<u64> = found.prompts.iter().map(|p| p.job.0).collect();
    let escalations: BTreeSet<u64> = found.escalations.iter().map(|e| e.job.0).collect();
    let outcomes: BTreeSet<u64> = found.seen.iter().map(|s| s.job.0).collect();
    let pending: BTreeSet<u64> = found.pending.iter().map(|(_, j)| j.0).collect();
    assert!(prompts.is_disjoint(&outcomes), "a prompt with an outcome");
    assert!(escalations.is_subset(&prompts), "an escalation without a prompt");
    for (class, job) in said {
        let there = match class {
            'p' => prompts.contains(job) || outcomes.contains(job),
            'o' => escalations.contains(job) || outcomes.contains(job),
            'r' => outcomes.contains(job),
            'd' => !pending.contains(job),
            other => panic!("{other} is no class"),
        };
        assert!(there, "{class} {job} was acknowledged and is not there");
    }
    assert!(said.iter().all(|(_, job)| *job < found.next_job.0));
    spool.close();
}

#[test]
fn nothing_that_was_acknowledged_is_lost() {
    if let Some(dir) = std::env::var_os(STORE) {
        return store(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut said = BTreeSet::new();
    for _ in 0..ROUNDS {
        let before = said.len();
        round(dir.path(), &mut said);
        assert!(said.len() >= before + ANSWERS);
        check(dir.path(), &said);
    }
}
