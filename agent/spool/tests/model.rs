//! The store against a plain model in memory, with reopenings and crashes at any step.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{copy, counts, escalation, limits, outcome, prompt, read, submit};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tempfile::TempDir;
use tidegate_schemas::JobId;
use tidegate_spool::{
    Bound, Change, EscalationRecord, Limits, OutcomeRecord, PromptRecord, Recovered, Spool, SpoolError,
};

/// Jobs that a run plays with: few, so that changes meet.
const JOBS: u64 = 8;
const INBOX_MAX: u64 = 3;
const OUTBOX_MAX: u64 = 2;
const OUTCOMES_MAX: u64 = 5;

#[derive(Debug, Clone)]
enum Step {
    Keep(u64, usize),
    MarkAttempt(u64, u32),
    Escalate(u64, usize),
    Conclude(u64, usize),
    Release(u64),
    Forget(u64),
    Reopen,
    Crash,
}

fn steps() -> impl Strategy<Value = Step> {
    let job = 1..=JOBS;
    // Small, at the edge of a file of its own, and large.
    let len = prop_oneof![Just(20_usize), 3500..4200_usize, Just(60_000)];
    prop_oneof![
        6 => (job.clone(), len.clone()).prop_map(|(j, l)| Step::Keep(j, l)),
        2 => (job.clone(), 1..4_u32).prop_map(|(j, n)| Step::MarkAttempt(j, n)),
        3 => (job.clone(), len.clone()).prop_map(|(j, l)| Step::Escalate(j, l)),
        5 => (job.clone(), len).prop_map(|(j, l)| Step::Conclude(j, l)),
        3 => job.clone().prop_map(Step::Release),
        1 => job.prop_map(Step::Forget),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

/// What the store should hold.
#[derive(Default)]
struct Model {
    prompts: BTreeMap<u64, PromptRecord>,
    escalations: BTreeMap<u64, EscalationRecord>,
    outcomes: BTreeMap<u64, OutcomeRecord>,
    highest: u64,
}

impl Model {
    fn keep(&mut self, record: PromptRecord) -> Result<(), SpoolError> {
        let job = record.job.0;
        if self.prompts.contains_key(&job) || self.outcomes.contains_key(&job) {
            return Err(SpoolError::Taken(record.job));
        }
        let would = self.prompts.len() as u64 + 1;
        if would > INBOX_MAX {
            return Err(SpoolError::Full { what: Bound::Prompts, would, max: INBOX_MAX });
        }
        let released: Vec<u64> = self.outcomes.values().filter(|o| o.released).map(|o| o.job.0).collect();
        let all = self.outcomes.len() as u64 + would;
        let surplus = all.saturating_sub(OUTCOMES_MAX);
        if surplus > released.len() as u64 {
            let would = all - released.len() as u64;
            return Err(SpoolError::Full { what: Bound::Outcomes, would, max: OUTCOMES_MAX });
        }
        released.iter().take(surplus as usize).for_each(|j| drop(self.outcomes.remove(j)));
        self.prompts.insert(job, record);
        self.highest = self.highest.max(job);
        Ok(())
    }

    fn escalate(&mut self, record: EscalationRecord) -> Result<(), SpoolError> {
        let job = record.job.0;
        if !self.prompts.contains_key(&job) {
            return Err(SpoolError::Unknown(record.job));
        }
        let would = self.escalations.len() as u64 + u64::from(!self.escalations.contains_key(&job));
        if would > OUTBOX_MAX {
            return Err(SpoolError::Full { what: Bound::Escalations, would, max: OUTBOX_MAX });
        }
        self.escalations.insert(job, record);
        Ok(())
    }

    fn conclude(&mut self, record: OutcomeRecord) -> Result<(), SpoolError> {
        let job = record.job.0;
        if let Some(stored) = self.outcomes.get(&job) {
            return if stored.frame == record.frame { Ok(()) } else { Err(SpoolError::Decided(record.job)) };
        }
        self.prompts.remove(&job).ok_or(SpoolError::Unknown(record.job))?;
        self.escalations.remove(&job);
        self.outcomes.insert(job, record);
        Ok(())
    }

    fn forget(&mut self, job: u64) -> Result<(), SpoolError> {
        let stored = self.outcomes.get(&job).ok_or(SpoolError::Unknown(JobId(job)))?;
        if !stored.released {
            return Err(SpoolError::Unreleased(JobId(job)));
        }
        self.outcomes.remove(&job);
        Ok(())
    }

    fn apply(&mut self, change: Change) -> Result<(), SpoolError> {
        match change {
            Change::Keep(record) => self.keep(record),
            Change::MarkAttempt { job, attempts } => {
                self.prompts.get_mut(&job.0).ok_or(SpoolError::Unknown(job))?.attempts = attempts;
                Ok(())
            }
            Change::Escalate(record) => self.escalate(record),
            Change::Conclude(record) => self.conclude(record),
            Change::Release { job } => {
                self.outcomes.get_mut(&job.0).ok_or(SpoolError::Unknown(job))?.released = true;
                Ok(())
            }
            Change::Forget { job } => self.forget(job.0),
        }
    }

    fn check_recovered(&self, found: &Recovered) {
        assert_eq!(found.prompts, self.prompts.values().cloned().collect::<Vec<_>>());
        assert_eq!(found.escalations, self.escalations.values().cloned().collect::<Vec<_>>());
        let pending: Vec<_> =
            self.outcomes.values().filter(|o| !o.released).map(|o| (o.device.clone(), o.job)).collect();
        assert_eq!(found.pending, pending);
        let seen: Vec<_> = self.outcomes.values().map(|o| (o.job, o.id.clone().unwrap(), o.hash)).collect();
        assert_eq!(found.seen.iter().map(|s| (s.job, s.id.clone(), s.hash)).collect::<Vec<_>>(), seen);
        assert!(found.next_job.0 > self.highest, "{} after {}", found.next_job, self.highest);
        assert_eq!((found.quarantined.as_ref(), found.salvaged, found.unreadable), (None, 0, 0));
    }

    fn check_open(&self, spool: &Spool) {
        for job in 1..=JOBS {
            assert_eq!(read(spool, job).as_ref(), self.outcomes.get(&job));
        }
        let counts = counts(spool);
        assert_eq!(counts.prompts.entries, self.prompts.len() as u64);
        assert_eq!(counts.escalations.entries, self.escalations.len() as u64);
        assert_eq!(counts.outcomes.entries, self.outcomes.len() as u64);
        assert_eq!(counts.pending, self.outcomes.values().filter(|o| !o.released).count() as u64);
    }
}

fn bounds() -> Limits {
    Limits {
        inbox_entries_max: INBOX_MAX,
        outbox_entries_max: OUTBOX_MAX,
        outcomes_entries_max: OUTCOMES_MAX,
        ..limits()
    }
}

/// The store under test, in a directory that moves when it crashes.
struct Subject {
    root: TempDir,
    dir: PathBuf,
    crashes: u32,
    spool: Spool,
}

impl Subject {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("store");
        let (spool, _) = Spool::open(&dir, bounds()).unwrap();
        Self { root, dir, crashes: 0, spool }
    }

    fn open(&mut self) -> Recovered {
        let (spool, recovered) = Spool::open(&self.dir, bounds()).unwrap();
        self.spool = spool;
        recovered
    }

    fn reopen(&mut self) -> Recovered {
        self.spool.clone().close();
        self.open()
    }

    /// Goes on with what is on disk at this moment; the running store never gets to close what it has.
    fn crash(&mut self) -> Recovered {
        self.crashes += 1;
        let left = self.root.path().join(format!("crash-{}", self.crashes));
        copy(&self.dir, &left);
        self.dir = left;
        self.open()
    }

    /// Names in `large/`: each is one of the model's.
    fn large(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.dir.join("large")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn change(step: &Step) -> Option<Change> {
    Some(match *step {
        Step::Keep(job, len) => Change::Keep(prompt(job, len)),
        Step::MarkAttempt(job, attempts) => Change::MarkAttempt { job: JobId(job), attempts },
        Step::Escalate(job, len) => Change::Escalate(escalation(job, len)),
        Step::Conclude(job, len) => Change::Conclude(outcome(job, len)),
        Step::Release(job) => Change::Release { job: JobId(job) },
        Step::Forget(job) => Change::Forget { job: JobId(job) },
        Step::Reopen | Step::Crash => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_the_model(steps in proptest::collection::vec(steps(), 1..60)) {
        let mut subject = Subject::new();
        let mut model = Model::default();
        for step in &steps {
            match change(step) {
                Some(change) => {
                    let expected = model.apply(change.clone());
                    prop_assert_eq!(submit(&subject.spool, change), expected, "{:?}", step);
                }
                None if matches!(step, Step::Crash) => model.check_recovered(&subject.crash()),
                None => model.check_recovered(&subject.reopen()),
            }
        }
        model.check_open(&subject.spool);
        model.check_recovered(&subject.crash());
        model.check_open(&subject.spool);
        let stored = model.prompts.len() + model.escalations.len() + model.outcomes.len();
        prop_assert!(subject.large().len() <= stored);
    }
}
