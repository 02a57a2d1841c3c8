//! The store against a plain model in memory, with reopenings and crashes at any step.
#![allow(clippy::unwrap_used)]

mod fixtures;
mod plain;

use fixtures::{copy, counts, escalation, forward, limits, outcome, page, prompt, read, submit, take};
use plain::{Model, OUTBOX_MAX, OUTCOMES_MAX};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tempfile::TempDir;
use tidegate_schemas::JobId;
use tidegate_spool::{
    Change, DeadId, DeadReason, ForwardId, Limits, Policy, QueueClass, Recovered, Room, Spool, Stored,
};

/// Jobs that a run plays with: few, so that changes meet.
const JOBS: u64 = 8;

#[derive(Debug, Clone)]
enum Step {
    Keep(u64, usize),
    MarkAttempt(u64, u32),
    Escalate(u64, usize),
    Conclude(u64, usize),
    /// With whether a broker refused it, or the engine died of it.
    ConcludeDead(u64, bool),
    Release(u64),
    Forget(u64),
    /// Of source, priority and size.
    Forward(u64, u8, usize),
    Take(u64),
    PutBack(u64),
    PutAllBack,
    ForwardDone(u64),
    ForwardDead(u64),
    ForwardDrop(u64),
    DeadForward(u64),
    DeadRemove(u64),
    Reopen,
    Crash,
    /// A crash after which the database does not open, though all of its log is there.
    Salvage,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![12 => job_steps(), 10 => telemetry_steps(), 1 => Just(Step::Reopen), 1 => Just(Step::Crash),
        1 => Just(Step::Salvage)]
}

/// Small, at the edge of a file of its own, and large.
fn sizes() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![Just(20_usize), 3500..4200_usize, Just(60_000)]
}

fn job_steps() -> impl Strategy<Value = Step> {
    let (job, len) = (1..=JOBS, sizes());
    prop_oneof![
        6 => (job.clone(), len.clone()).prop_map(|(j, l)| Step::Keep(j, l)),
        2 => (job.clone(), 1..4_u32).prop_map(|(j, n)| Step::MarkAttempt(j, n)),
        3 => (job.clone(), len.clone()).prop_map(|(j, l)| Step::Escalate(j, l)),
        5 => (job.clone(), len).prop_map(|(j, l)| Step::Conclude(j, l)),
        2 => (job.clone(), any::<bool>()).prop_map(|(j, refused)| Step::ConcludeDead(j, refused)),
        3 => job.clone().prop_map(Step::Release),
        1 => job.prop_map(Step::Forget),
    ]
}

fn telemetry_steps() -> impl Strategy<Value = Step> {
    // Numbers that are in use, gone, or to come.
    let entry = 1..12_u64;
    prop_oneof![
        8 => (0..3_u64, 0..10_u8, sizes()).prop_map(|(s, p, l)| Step::Forward(s, p, l)),
        3 => (0..3_u64).prop_map(Step::Take),
        2 => entry.clone().prop_map(Step::PutBack),
        1 => Just(Step::PutAllBack),
        3 => entry.clone().prop_map(Step::ForwardDone),
        2 => entry.clone().prop_map(Step::ForwardDead),
        1 => entry.clone().prop_map(Step::ForwardDrop),
        2 => (1..8_u64).prop_map(Step::DeadForward),
        1 => (1..8_u64).prop_map(Step::DeadRemove),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::RefuseNewest), Just(Policy::DropOldest), Just(Policy::DropLowestPriority)]
}

fn bounds(policy: Policy) -> Limits {
    let room = |entries_max| Room { entries_max, bytes_max: 1 << 30 };
    Limits {
        inbox_entries_max: plain::INBOX_MAX,
        inbox_device: room(plain::INBOX_DEVICE_MAX),
        outbox_entries_max: OUTBOX_MAX,
        outcomes_entries_max: OUTCOMES_MAX,
        telemetry: room(plain::TELEMETRY_MAX),
        telemetry_device: room(plain::TELEMETRY_DEVICE_MAX),
        telemetry_policy: policy,
        dead: room(plain::DEAD_MAX),
        dead_device: room(plain::DEAD_DEVICE_MAX),
        // So that the table takes in some and is behind by some, in all sorts of places.
        behind_max: 5,
        ..limits()
    }
}

/// The store under test, in a directory that moves when it crashes.
struct Subject {
    root: TempDir,
    dir: PathBuf,
    crashes: u32,
    bounds: Limits,
    spool: Spool,
}

impl Subject {
    fn new(policy: Policy) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        let bounds = bounds(policy);
        let (spool, _) = Spool::open(&dir, bounds).unwrap();
        Self { root, dir, crashes: 0, bounds, spool }
    }

    fn open(&mut self) -> Recovered {
        let (spool, recovered) = Spool::open(&self.dir, self.bounds).unwrap();
        self.spool = spool;
        recovered
    }

    fn reopen(&mut self) -> Recovered {
        self.spool.clone().close();
        self.open()
    }

    /// Goes on with what is on disk at this moment; the running store never gets to close what it has.
    fn crash(&mut self) -> Recovered {
        self.cut();
        self.open()
    }

    /// The same, and the database is found damaged, with nothing of its log lost.
    fn salvage(&mut self) -> Recovered {
        self.cut();
        let mut found = std::fs::read_dir(&self.dir).unwrap().map(|e| e.unwrap().path());
        let is_generation = |p: &PathBuf| p.file_name().unwrap().to_str().unwrap().starts_with("gen-");
        std::fs::write(found.find(is_generation).unwrap().join("conf"), "what is this").unwrap();
        self.open()
    }

    fn cut(&mut self) {
        // Files are copied one after the other: nothing may be written meanwhile.
        counts(&self.spool);
        self.crashes += 1;
        let left = self.root.path().join(format!("crash-{}", self.crashes));
        copy(&self.dir, &left);
        self.dir = left;
    }

    /// Names in `large/`: each is one of the model's.
    fn large(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.dir.join("large")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn change(step: &Step, model: &Model) -> Option<Change> {
    let refused = || DeadReason::Refused { by: "0x87".to_owned() };
    Some(match *step {
        Step::Keep(job, len) => Change::Keep(prompt(job, len)),
        Step::MarkAttempt(job, attempts) => Change::MarkAttempt { job: JobId(job), attempts },
        Step::Escalate(job, len) => Change::Escalate(escalation(job, len)),
        Step::Conclude(job, len) => Change::Conclude(outcome(job, len)),
        Step::ConcludeDead(job, of_broker) => {
            let reason = if of_broker { refused() } else { DeadReason::CrashedEngine { runs: 2 } };
            Change::ConcludeDead { outcome: outcome(job, 50), reason }
        }
        Step::Release(job) => Change::Release { job: JobId(job) },
        Step::Forget(job) => Change::Forget { job: JobId(job) },
        Step::Forward(source, priority, len) => Change::Forward(forward(model.next_forward, source, priority, len)),
        Step::ForwardDone(entry) => Change::ForwardDone { entry: ForwardId(entry) },
        Step::ForwardDead(entry) => Change::ForwardDead { entry: ForwardId(entry), reason: refused() },
        Step::ForwardDrop(entry) => Change::ForwardDrop { entry: ForwardId(entry) },
        Step::DeadForward(entry) => Change::DeadForward { entry: DeadId(entry) },
        Step::DeadRemove(entry) => Change::DeadRemove { entry: DeadId(entry) },
        Step::Take(_) | Step::PutBack(_) | Step::PutAllBack | Step::Reopen | Step::Crash | Step::Salvage => {
            return None;
        }
    })
}

/// A step that changes nothing on disk.
fn other(step: &Step, subject: &mut Subject, model: &mut Model) {
    match *step {
        Step::Take(entries_max) => {
            let taken = take(&subject.spool, Room { entries_max, bytes_max: 1 << 20 });
            let expected = model.take(entries_max);
            let told = |(record, attempt, replayed)| (plain::timeless(record), attempt, replayed);
            let taken: Vec<_> = taken.into_iter().map(|due| told((due.record, due.attempt, due.replayed))).collect();
            assert_eq!(taken, expected.into_iter().map(told).collect::<Vec<_>>());
        }
        Step::PutBack(entry) => {
            subject.spool.put_back(vec![ForwardId(entry)]);
            model.put_back(entry);
        }
        Step::PutAllBack => {
            subject.spool.put_all_back();
            model.put_all_back();
        }
        Step::Crash => {
            let found = subject.crash();
            model.reopened();
            check_recovered(model, &found);
            assert_eq!((found.quarantined.as_ref(), found.salvaged), (None, 0));
        }
        Step::Salvage => {
            let found = subject.salvage();
            model.salvaged();
            check_recovered(model, &found);
            assert!(found.quarantined.is_some());
        }
        _ => {
            let found = subject.reopen();
            model.reopened();
            check_recovered(model, &found);
            assert_eq!((found.quarantined.as_ref(), found.salvaged), (None, 0));
        }
    }
}

fn check_recovered(model: &Model, found: &Recovered) {
    assert_eq!(found.prompts, model.prompts.values().cloned().collect::<Vec<_>>());
    assert_eq!(found.escalations, model.escalations.values().cloned().collect::<Vec<_>>());
    let pending: Vec<_> = model.outcomes.values().filter(|o| !o.released).map(|o| (o.device.clone(), o.job)).collect();
    assert_eq!(found.pending, pending);
    let seen: Vec<_> = model.outcomes.values().map(|o| (o.job, o.id.clone().unwrap(), o.hash)).collect();
    assert_eq!(found.seen.iter().map(|s| (s.job, s.id.clone(), s.hash)).collect::<Vec<_>>(), seen);
    assert!(found.next_job.0 > model.highest, "{} after {}", found.next_job, model.highest);
    assert_eq!(found.next_forward.0, model.next_forward);
    assert_eq!(found.forwards, model.forwards.len() as u64);
    assert_eq!(found.unreadable, 0);
}

fn check_open(model: &Model, spool: &Spool) {
    for job in 1..=JOBS {
        assert_eq!(read(spool, job).as_ref(), model.outcomes.get(&job));
    }
    let counts = counts(spool);
    assert_eq!(counts.prompts.entries, model.prompts.len() as u64);
    assert_eq!(counts.escalations.entries, model.escalations.len() as u64);
    assert_eq!(counts.outcomes.entries, model.outcomes.len() as u64);
    assert_eq!(counts.pending, model.outcomes.values().filter(|o| !o.released).count() as u64);
    assert_eq!(counts.telemetry.entries, model.forwards.len() as u64);
    assert_eq!(counts.dead.entries, model.dead.len() as u64);
    let forwards = page(spool, QueueClass::Telemetry).into_iter().map(plain::timeless_stored);
    let expected = model.forwards.values().map(|f| plain::timeless_stored(Stored::Forward(f.record.clone())));
    assert_eq!(forwards.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let letters = page(spool, QueueClass::Dead).into_iter().map(plain::timeless_stored);
    let expected = model.dead.values().map(|d| plain::timeless_stored(Stored::Dead(d.clone())));
    assert_eq!(letters.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_the_model(policy in policies(), steps in proptest::collection::vec(steps(), 1..90)) {
        let mut subject = Subject::new(policy);
        let mut model = Model::new(policy);
        for step in &steps {
            match change(step, &model) {
                Some(change) => {
                    let expected = model.apply(change.clone());
                    prop_assert_eq!(submit(&subject.spool, change), expected, "{:?}", step);
                }
                None => other(step, &mut subject, &mut model),
            }
        }
        check_open(&model, &subject.spool);
        let found = subject.salvage();
        model.salvaged();
        check_recovered(&model, &found);
        check_open(&model, &subject.spool);
        // Whatever was taken, given back, acknowledged or cut off: what is left drains in order, each once.
        other(&Step::Take(100), &mut subject, &mut model);
        other(&Step::Take(100), &mut subject, &mut model);
        let stored = model.prompts.len() + model.escalations.len() + model.outcomes.len()
            + model.forwards.len() + model.dead.len();
        prop_assert!(subject.large().len() <= stored);
    }
}
