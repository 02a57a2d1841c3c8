//! What a store was told and what it acknowledged, and whether an opened store keeps that word.
//!
//! A moment is a number of file operations. What was acknowledged by then must be there; what was submitted by then
//! may be; nothing else can be.

use super::records;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tidegate_schemas::JobId;
use tidegate_spool::{Change, OutcomeRecord, Recovered, Spool};

/// Longest wait for one answer of a store.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A change of a job, in the order in which a job's life goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The prompt is kept.
    Keep,
    /// An attempt is marked: the second one.
    Mark,
    /// It is escalated.
    Escalate,
    /// It has its outcome.
    Conclude,
    /// A session acknowledged that.
    Release,
    /// It is forgotten.
    Forget,
}

/// Sizes of the records of a run, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sizes {
    /// All sorts, with some that stand in files of their own.
    Mixed,
    /// All of the same size.
    Fixed(usize),
}

impl Sizes {
    /// The size of a job's records.
    pub(crate) fn of(self, job: u64) -> usize {
        match self {
            Self::Fixed(len) => len,
            Self::Mixed => match super::disk::mix(job, 17) % 12 {
                0 => 9_000,
                1 => 40_000,
                2..=4 => 2_500,
                _ => 60 + (job % 200) as usize,
            },
        }
    }

    /// The change that is this step of a job.
    pub(crate) fn change(self, job: u64, step: Step) -> Change {
        let len = self.of(job);
        match step {
            Step::Keep => Change::Keep(records::prompt(job, len)),
            Step::Mark => Change::MarkAttempt { job: JobId(job), attempts: 2 },
            Step::Escalate => Change::Escalate(records::escalation(job, len.min(16_000))),
            Step::Conclude => Change::Conclude(records::outcome(job, len)),
            Step::Release => Change::Release { job: JobId(job) },
            Step::Forget => Change::Forget { job: JobId(job) },
        }
    }
}

/// One change that was submitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fact {
    /// The job.
    pub(crate) job: u64,
    /// The change.
    pub(crate) step: Step,
    /// Operations done when it was submitted.
    pub(crate) submitted: u64,
    /// Operations done when it was acknowledged, if it was.
    pub(crate) acknowledged: Option<u64>,
}

/// All changes of a run.
#[derive(Debug, Clone)]
pub(crate) struct History {
    /// The changes.
    pub(crate) facts: Vec<Fact>,
    /// The sizes of their records.
    pub(crate) sizes: Sizes,
}

impl History {
    /// This history as seen after a cut: what was open stays open, and all of it lies before the first operation.
    pub(crate) fn until(&self, moment: u64) -> Self {
        let seen = self.facts.iter().filter(|fact| fact.submitted <= moment).map(|fact| Fact {
            submitted: 0,
            acknowledged: fact.acknowledged.filter(|at| *at <= moment).map(|_| 0),
            ..*fact
        });
        Self { facts: seen.collect(), ..*self }
    }

    /// What the store must and may hold at a moment, by job.
    fn jobs(&self, moment: u64) -> BTreeMap<u64, (BTreeSet<Step>, BTreeSet<Step>)> {
        let mut jobs: BTreeMap<u64, (BTreeSet<Step>, BTreeSet<Step>)> = BTreeMap::new();
        for fact in self.facts.iter().filter(|fact| fact.submitted <= moment) {
            let (must, may) = jobs.entry(fact.job).or_default();
            may.insert(fact.step);
            if fact.acknowledged.is_some_and(|at| at <= moment) {
                must.insert(fact.step);
            }
        }
        jobs
    }

    /// What an opened store does not keep of its word at that moment; one line for each breach.
    pub(crate) fn breaches(&self, moment: u64, spool: &Spool, found: &Recovered) -> Vec<String> {
        let view = View::new(spool, found);
        let mut breaches = Vec::new();
        let jobs = self.jobs(moment);
        for (job, (must, may)) in &jobs {
            let what = view.judge(*job, (must, may), self.sizes);
            breaches.extend(what.into_iter().map(|what| format!("job {job}: {what}")));
        }
        let strange = view.all().into_iter().filter(|job| !jobs.contains_key(job));
        breaches.extend(strange.map(|job| format!("job {job}: was never submitted")));
        // A salvage also counts what a power cut undid, whose large files went with the opening after it.
        if found.unreadable > 0 && found.quarantined.is_none() {
            breaches.push(format!("{} records are unreadable", found.unreadable));
        }
        breaches
    }
}

/// An opened store, as its users see it.
struct View<'a> {
    spool: &'a Spool,
    prompts: BTreeMap<u64, &'a tidegate_spool::PromptRecord>,
    escalations: BTreeMap<u64, &'a tidegate_spool::EscalationRecord>,
    outcomes: BTreeSet<u64>,
    pending: BTreeSet<u64>,
    next_job: u64,
}

impl<'a> View<'a> {
    fn new(spool: &'a Spool, found: &'a Recovered) -> Self {
        Self {
            spool,
            prompts: found.prompts.iter().map(|p| (p.job.0, p)).collect(),
            escalations: found.escalations.iter().map(|e| (e.job.0, e)).collect(),
            outcomes: found.seen.iter().map(|s| s.job.0).collect(),
            pending: found.pending.iter().map(|(_, job)| job.0).collect(),
            next_job: found.next_job.0,
        }
    }

    fn all(&self) -> BTreeSet<u64> {
        let both = self.prompts.keys().chain(self.escalations.keys()).copied();
        both.chain(self.outcomes.iter().copied()).chain(self.pending.iter().copied()).collect()
    }

    fn judge(&self, job: u64, told: (&BTreeSet<Step>, &BTreeSet<Step>), sizes: Sizes) -> Vec<&'static str> {
        let (must, may) = told;
        let must = |step: Step| must.contains(&step);
        let may = |step: Step| may.contains(&step);
        let (prompt, outcome) = (self.prompts.get(&job), self.outcomes.contains(&job));
        let len = sizes.of(job);
        let wrong_prompt = prompt.is_some_and(|found| {
            let attempts = if must(Step::Mark) { found.attempts == 2 } else { found.attempts == 0 || may(Step::Mark) };
            !attempts
                || **found != tidegate_spool::PromptRecord { attempts: found.attempts, ..records::prompt(job, len) }
        });
        let wrong_escalation =
            self.escalations.get(&job).is_some_and(|found| **found != records::escalation(job, len.min(16_000)));
        let wrong_outcome =
            outcome && read(self.spool, job).is_none_or(|found| found.frame != records::outcome(job, len).frame);
        let rules = [
            (must(Step::Keep) && prompt.is_none() && !outcome && !may(Step::Forget), "lost"),
            (must(Step::Conclude) && !outcome && !may(Step::Forget), "its outcome is lost"),
            (must(Step::Conclude) && prompt.is_some(), "open again after its outcome"),
            (must(Step::Escalate) && prompt.is_some() && !self.escalations.contains_key(&job), "escalation lost"),
            (must(Step::Release) && self.pending.contains(&job), "its release is lost"),
            (must(Step::Forget) && (outcome || prompt.is_some()), "there again after it was forgotten"),
            (must(Step::Keep) && self.next_job <= job, "its number would be taken again"),
            (prompt.is_some() && outcome, "open and concluded at once"),
            (outcome && !may(Step::Conclude), "has an outcome that nobody stored"),
            (wrong_prompt, "its prompt is another one"),
            (wrong_escalation, "its escalation is another one"),
            (wrong_outcome, "its outcome is another one"),
        ];
        rules.into_iter().filter(|(broken, _)| *broken).map(|(_, what)| what).collect()
    }
}

/// Reads an outcome.
pub(crate) fn read(spool: &Spool, job: u64) -> Option<OutcomeRecord> {
    let (done, answer) = sync_channel(1);
    spool.outcome(JobId(job), move |found| {
        let _ = done.send(found);
    });
    answer.recv_timeout(WAIT_MAX).ok().flatten()
}

/// Submits a change and waits for its fate.
pub(crate) fn submit(spool: &Spool, change: Change) -> anyhow::Result<()> {
    let (done, answer) = sync_channel(1);
    spool.submit(change, move |result| {
        let _ = done.send(result);
    });
    answer.recv_timeout(WAIT_MAX)??;
    Ok(())
}

/// Waits until all that was submitted before is done; gives the size of the database file.
pub(crate) fn settle(spool: &Spool) -> anyhow::Result<tidegate_spool::Counts> {
    let (done, answer) = sync_channel(1);
    spool.counts(move |counts| {
        let _ = done.send(counts);
    });
    Ok(answer.recv_timeout(WAIT_MAX)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_spool::Limits;

    fn fact(job: u64, step: Step, acknowledged: Option<u64>) -> Fact {
        Fact { job, step, submitted: 1, acknowledged }
    }

    /// A store with a kept job 1 and a concluded job 2, and what a history says of it.
    fn breaches(facts: Vec<Fact>, moment: u64) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes::Fixed(100);
        let limits = Limits { free_bytes_min: 0, ..Limits::default() };
        let (spool, _) = Spool::open(dir.path(), limits).unwrap();
        for (job, step) in [(1, Step::Keep), (2, Step::Keep), (2, Step::Conclude)] {
            submit(&spool, sizes.change(job, step)).unwrap();
        }
        spool.close();
        let (spool, found) = Spool::open(dir.path(), limits).unwrap();
        History { facts, sizes }.breaches(moment, &spool, &found)
    }

    fn true_history() -> Vec<Fact> {
        vec![
            fact(1, Step::Keep, Some(2)),
            fact(2, Step::Keep, Some(2)),
            fact(2, Step::Conclude, Some(2)),
            fact(3, Step::Keep, None),
        ]
    }

    #[test]
    fn a_kept_word_is_no_breach() {
        assert_eq!(breaches(true_history(), 2), Vec::<String>::new());
        assert_eq!(breaches(true_history(), 1), Vec::<String>::new(), "what may be there is no breach either");
    }

    #[test]
    fn each_broken_word_is_told() {
        let with = |more: Fact| breaches([true_history(), vec![more]].concat(), 9);
        assert_eq!(with(fact(3, Step::Keep, Some(5))), ["job 3: lost", "job 3: its number would be taken again"]);
        assert_eq!(with(fact(1, Step::Escalate, Some(5))), ["job 1: escalation lost"]);
        assert_eq!(with(fact(2, Step::Release, Some(5))), ["job 2: its release is lost"]);
        assert_eq!(with(fact(2, Step::Forget, Some(5))), ["job 2: there again after it was forgotten"]);
        let concluded = with(fact(1, Step::Conclude, Some(5)));
        assert_eq!(concluded, ["job 1: its outcome is lost", "job 1: open again after its outcome"]);
        assert_eq!(breaches(true_history()[1..].to_vec(), 2), ["job 1: was never submitted"]);
        assert_eq!(breaches(true_history()[..2].to_vec(), 2), ["job 2: has an outcome that nobody stored"]);
    }

    #[test]
    fn a_history_is_cut_at_a_moment() {
        let history = History { facts: true_history(), sizes: Sizes::Mixed };
        assert_eq!(history.until(0).facts.len(), 0);
        assert!(history.until(1).facts.iter().all(|fact| fact.acknowledged.is_none()));
        assert_eq!(history.until(2).facts.iter().filter(|fact| fact.acknowledged == Some(0)).count(), 3);
    }
}
