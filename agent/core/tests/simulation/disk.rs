//! The disk: writes end in order, some fail, a crash keeps a prefix of those under way, unreported.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tidegate_core::{Event, Keepsake, Now, Restored, RestoredEscalation, SeenFinal};
use tidegate_schemas::{Answer, DeviceId, Escalation, Frame, JobId, Prompt};

pub(crate) enum Change {
    Keep(Keepsake),
    Mark { job: JobId, attempt: u32 },
    Escalate { job: JobId, escalation: Box<Escalation>, provisional: Option<Box<Answer>> },
    Conclude { job: JobId, device: DeviceId, outcome: Box<Frame> },
}

impl Change {
    fn done(&self) -> Event {
        match self {
            Self::Keep(keepsake) => Event::Kept(keepsake.job),
            Self::Mark { job, .. } => Event::AttemptMarked(*job),
            Self::Escalate { job, .. } => Event::EscalationKept(*job),
            Self::Conclude { job, .. } => Event::Concluded(*job),
        }
    }

    /// What is reported when it fails; marks and outcomes are retried by the shell until they are stored.
    fn failed(&self) -> Option<Event> {
        match self {
            Self::Keep(keepsake) => Some(Event::NotKept { job: keepsake.job, why: "disk full".to_owned() }),
            Self::Escalate { job, .. } => Some(Event::EscalationNotKept(*job)),
            Self::Mark { .. } | Self::Conclude { .. } => None,
        }
    }
}

pub(crate) struct Kept {
    pub(crate) keepsake: Keepsake,
    pub(crate) attempts: u32,
}

pub(crate) struct Outcome {
    pub(crate) device: DeviceId,
    pub(crate) prompt: Arc<Prompt>,
    pub(crate) frame: Frame,
    pub(crate) at: Now,
}

type Escalated = (Box<Escalation>, Option<Box<Answer>>);

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) inbox: BTreeMap<JobId, Kept>,
    pub(crate) outbox: BTreeMap<JobId, Escalated>,
    pub(crate) outcomes: BTreeMap<JobId, Outcome>,
    under_way: VecDeque<Change>,
}

impl Disk {
    pub(crate) fn submit(&mut self, change: Change) {
        self.under_way.push_back(change);
    }

    /// The oldest write ends, well or badly.
    pub(crate) fn end_one(&mut self, fails: bool, now: Now) -> Event {
        let change = self.under_way.pop_front().unwrap();
        match change.failed() {
            Some(event) if fails => event,
            _ => {
                let event = change.done();
                self.apply(change, now);
                event
            }
        }
    }

    /// Power cut: the first `durable` writes under way are on disk all the same.
    pub(crate) fn crash(&mut self, durable: usize, now: Now) {
        for change in std::mem::take(&mut self.under_way).into_iter().take(durable) {
            self.apply(change, now);
        }
    }

    fn apply(&mut self, change: Change, at: Now) {
        match change {
            Change::Keep(keepsake) => {
                let before = self.inbox.insert(keepsake.job, Kept { keepsake, attempts: 0 });
                assert!(before.is_none(), "a job number was given twice");
            }
            Change::Mark { job, attempt } => {
                if let Some(kept) = self.inbox.get_mut(&job) {
                    kept.attempts = attempt;
                }
            }
            Change::Escalate { job, escalation, provisional } => {
                if self.inbox.contains_key(&job) {
                    self.outbox.insert(job, (escalation, provisional));
                }
            }
            Change::Conclude { job, device, outcome } => {
                let kept = self.inbox.remove(&job).expect("an outcome of a job that was not on disk");
                self.outbox.remove(&job);
                let prompt = kept.keepsake.prompt;
                let before = self.outcomes.insert(job, Outcome { device, prompt, frame: *outcome, at });
                assert!(before.is_none(), "a second outcome of job {job}");
            }
        }
    }

    /// What a start finds.
    pub(crate) fn recover(&self) -> (Vec<Restored>, Vec<SeenFinal>) {
        let restored = |(job, kept): (&JobId, &Kept)| Restored {
            job: *job,
            device: kept.keepsake.device.clone(),
            prompt: Arc::clone(&kept.keepsake.prompt),
            encoding: kept.keepsake.encoding,
            bytes: kept.keepsake.bytes,
            received: kept.keepsake.received,
            attempts: kept.attempts,
            escalation: self.outbox.get(job).map(|(escalation, provisional)| RestoredEscalation {
                escalation: escalation.clone(),
                provisional: provisional.clone(),
            }),
        };
        let seen = |(job, outcome): (&JobId, &Outcome)| {
            let id = outcome.prompt.id.clone()?;
            let (device, hash) = (outcome.device.clone(), outcome.prompt.content_hash());
            Some(SeenFinal { device, id, hash, job: *job, at: outcome.at })
        };
        (self.inbox.iter().map(restored).collect(), self.outcomes.iter().filter_map(seen).collect())
    }

    /// The highest job number that is on disk.
    pub(crate) fn last_job(&self) -> u64 {
        let last = |id: Option<&JobId>| id.map_or(0, |job| job.0);
        last(self.inbox.last_key_value().map(|(job, _)| job)).max(last(self.outcomes.last_key_value().map(|(j, _)| j)))
    }
}
