//! Outcomes on their way to devices: which ones wait, and what exactly is sent.

use super::bridge::Wait;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tidegate_broker::Outgoing;
use tidegate_core::{Command, Dead};
use tidegate_schemas::{
    ContentHash, DeviceId, Encoding, ErrorCode, ErrorFrame, Frame, JobId, OUTCOME_BYTES_MAX, PROMPT_BYTES_MAX,
    PromptId, Reply, Route, TraceParent, cbor,
};
use tidegate_spool::{DeadReason, OutcomeRecord, Reach, Stamp};

/// Stored outcomes that no session acknowledged, by device, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    devices: HashMap<DeviceId, BTreeSet<JobId>>,
    all: BTreeMap<JobId, DeviceId>,
}

impl Pending {
    /// An outcome is on disk.
    pub(super) fn add(&mut self, device: &DeviceId, job: JobId) {
        self.devices.entry(device.clone()).or_default().insert(job);
        self.all.insert(job, device.clone());
    }

    /// A session acknowledged it. False if it was not pending.
    pub(super) fn release(&mut self, device: &DeviceId, job: JobId) -> bool {
        let Some(jobs) = self.devices.get_mut(device) else { return false };
        let was = jobs.remove(&job);
        if was {
            self.all.remove(&job);
        }
        if jobs.is_empty() {
            self.devices.remove(device);
        }
        was
    }

    /// The oldest of all.
    pub(super) fn oldest(&self) -> Option<JobId> {
        self.all.keys().next().copied()
    }

    /// At most `max` of all devices, after `after`.
    pub(super) fn of_all(&self, after: Option<JobId>, max: usize) -> Vec<(DeviceId, JobId)> {
        let from = after.map_or(JobId(0), |after| JobId(after.0.saturating_add(1)));
        self.all.range(from..).take(max).map(|(job, device)| (device.clone(), *job)).collect()
    }

    /// At most `max` of a device, after `after`.
    pub(super) fn of(&self, device: &DeviceId, after: Option<JobId>, max: usize) -> Vec<JobId> {
        let Some(jobs) = self.devices.get(device) else { return Vec::new() };
        jobs.iter().copied().filter(|job| after.is_none_or(|after| *job > after)).take(max).collect()
    }
}

/// What the store must know of a job when it ends.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The content of its prompt.
    pub(super) hash: ContentHash,
    /// Its task, as the prompt names it.
    pub(super) task: Option<tidegate_schemas::TaskName>,
    /// Where its outcome goes and with what.
    pub(super) reply: Reply,
    /// How far its text may go.
    pub(super) reach: Reach,
    /// The trace that it belongs to.
    pub(super) trace: Option<TraceParent>,
    /// How long its escalation has waited, once there is one.
    pub(super) wait: Option<Wait>,
}

/// The record of an outcome: its exact bytes, and what is delivered instead where they are too many for the device.
pub(super) fn record(conclude: Command, facts: Option<&Facts>) -> Option<OutcomeRecord> {
    let Command::Conclude { job, device, encoding, max_bytes, outcome, .. } = conclude else { return None };
    let id = outcome.id().cloned();
    let bytes = encoding.frame(&outcome).unwrap_or_default();
    let frame = if bytes.len() > OUTCOME_BYTES_MAX {
        too_large(encoding, id.clone(), bytes.len(), OUTCOME_BYTES_MAX)
    } else {
        bytes
    };
    let max = max_bytes.and_then(|max| usize::try_from(max).ok()).filter(|max| frame.len() > *max);
    let notice = max.map(|max| too_large(encoding, id.clone(), frame.len(), max));
    let hash = facts.map_or(ContentHash([0; 16]), |facts| facts.hash);
    let reach = facts.map_or(Reach::Host, |facts| facts.reach);
    let reply = facts.map(|facts| facts.reply.clone()).unwrap_or_default();
    let (released, stamp) = (false, Stamp::now());
    Some(OutcomeRecord { job, device, id, hash, encoding, frame, notice, released, stamp, reach, reply })
}

/// Why a letter is kept, in the words of the store.
pub(super) fn reason(dead: Dead) -> DeadReason {
    match dead {
        Dead::CrashedEngine { runs } => DeadReason::CrashedEngine { runs },
        Dead::Refused { by } => DeadReason::Refused { by },
    }
}

fn too_large(encoding: Encoding, id: Option<PromptId>, bytes: usize, max: usize) -> Vec<u8> {
    let message = format!("answer is {bytes} bytes, limit is {max}");
    let error = ErrorFrame { id, code: ErrorCode::TooLarge, message, retry_after_ms: None };
    encoding.frame(&Frame::Error(error)).unwrap_or_default()
}

/// What is delivered at first.
pub(super) fn delivered(record: OutcomeRecord) -> Vec<u8> {
    record.notice.unwrap_or(record.frame)
}

/// The same on its way.
pub(super) fn outgoing(mut record: OutcomeRecord) -> Outgoing {
    let (job, reply) = (record.job, std::mem::take(&mut record.reply));
    Outgoing { job, payload: delivered(record).into(), reply }
}

/// What is sent when it is asked for again: the whole frame, its route now `stored`.
pub(super) fn fetched(record: OutcomeRecord) -> Vec<u8> {
    /// A stored frame has been checked when it was made; this is only the decoder's bound.
    const FRAME_BYTES_MAX: usize = PROMPT_BYTES_MAX + OUTCOME_BYTES_MAX;
    let frame: Option<Frame> = match record.encoding {
        Encoding::Json => serde_json::from_slice(&record.frame).ok(),
        Encoding::Cbor => cbor::from_slice(&record.frame, FRAME_BYTES_MAX).ok(),
        Encoding::Text => None,
    };
    match frame {
        Some(Frame::Answer(mut answer)) => {
            answer.route = Route::Stored;
            record.encoding.frame(&Frame::Answer(answer)).unwrap_or(record.frame)
        }
        _ => record.frame,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_schemas::{Answer, Body, Reason, Timing, Usage};

    fn conclude(encoding: Encoding, max_bytes: Option<u32>) -> Command {
        let answer = Answer {
            id: Some("a-1".parse().unwrap()),
            body: Body::Text("forty-two".into()),
            confidence: Some(0.5),
            route: Route::Local,
            reason: Reason::Confident,
            provisional: false,
            model: "tide-edge".parse().unwrap(),
            usage: Usage::default(),
            timing: Timing::default(),
        };
        let device = "local-1".parse().unwrap();
        let outcome = Box::new(Frame::Answer(answer));
        Command::Conclude { job: JobId(3), device, encoding, max_bytes, outcome, dead: None }
    }

    #[test]
    fn a_fetched_outcome_says_that_it_is_stored() {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            let record = record(conclude(encoding, None), None).unwrap();
            assert_eq!(record.notice, None);
            let again = fetched(record.clone());
            assert_ne!(again, record.frame);
            assert_eq!(delivered(record.clone()), record.frame);
            assert!(again.windows(6).any(|w| w == b"stored"), "{encoding:?}");
        }
        let text = record(conclude(Encoding::Text, None), None).unwrap();
        assert_eq!(fetched(text), b"forty-two");
    }

    #[test]
    fn over_max_bytes_a_notice_is_delivered_and_the_answer_stays() {
        let record = record(conclude(Encoding::Json, Some(60)), None).unwrap();
        let notice = String::from_utf8(record.notice.clone().unwrap()).unwrap();
        assert!(notice.contains("too_large") && notice.contains("limit is 60"), "{notice}");
        assert!(notice.contains("a-1"), "{notice}");
        assert!(fetched(record.clone()).len() > 60);
        assert_eq!(delivered(record), notice.into_bytes());
    }

    #[test]
    fn pending_outcomes_come_oldest_first() {
        let (mut pending, device) = (Pending::default(), "d".parse::<DeviceId>().unwrap());
        for job in [5, 2, 9] {
            pending.add(&device, JobId(job));
        }
        assert_eq!(pending.of(&device, None, 2), [JobId(2), JobId(5)]);
        assert_eq!(pending.of(&device, Some(JobId(2)), 9), [JobId(5), JobId(9)]);
        assert!(pending.release(&device, JobId(5)));
        assert!(!pending.release(&device, JobId(5)));
        assert_eq!(pending.of(&device, None, 9), [JobId(2), JobId(9)]);
        let other = "e".parse::<DeviceId>().unwrap();
        pending.add(&other, JobId(7));
        let of_all = |after| pending.of_all(after, 2).into_iter().map(|(_, job)| job.0).collect::<Vec<_>>();
        assert_eq!((of_all(None), of_all(Some(JobId(2))), of_all(Some(JobId(9)))), (vec![2, 7], vec![7, 9], vec![]));
    }
}
