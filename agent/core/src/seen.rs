//! Which ids a device has used, so that a repeated prompt is answered once (promise 3). Invariants: bounded per device
//! in number and in time; an id under way hides its earlier final use; an answered id costs about 150 bytes.

use crate::time::Now;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use tidegate_schemas::{ContentHash, DeviceId, JobId, PromptId};

/// An answered id found on disk at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFinal {
    /// The device.
    pub device: DeviceId,
    /// Its id of the prompt.
    pub id: PromptId,
    /// The content of the prompt.
    pub hash: ContentHash,
    /// Whose outcome is stored.
    pub job: JobId,
    /// When it became final.
    pub at: Now,
}

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// This job has it and no outcome yet.
    UnderWay {
        /// The job.
        job: JobId,
        /// Its content.
        hash: ContentHash,
    },
    /// The outcome of this job is stored.
    Final {
        /// The job.
        job: JobId,
        /// Its content.
        hash: ContentHash,
    },
}

#[derive(Debug, Clone, Copy)]
struct Answered {
    hash: ContentHash,
    job: JobId,
    at: Now,
}

/// The ids of one device. `order` holds each final use, oldest first; one whose id was used again is skipped there.
#[derive(Debug, Default)]
struct Ids {
    under_way: BTreeMap<PromptId, (JobId, ContentHash)>,
    answered: BTreeMap<PromptId, Answered>,
    order: VecDeque<(PromptId, JobId)>,
}

/// The ids of all devices.
#[derive(Debug)]
pub struct Seen {
    devices: BTreeMap<DeviceId, Ids>,
    keep_ms: u64,
    per_device_max: usize,
    answered: usize,
    swept: Option<DeviceId>,
}

impl Seen {
    /// Remembers `per_device_max` answered ids per device, each for `keep_ms`.
    #[must_use]
    pub fn new(keep_ms: u64, per_device_max: u32) -> Self {
        Self { devices: BTreeMap::new(), keep_ms, per_device_max: per_device_max as usize, answered: 0, swept: None }
    }

    /// What is known of this id now.
    #[must_use]
    pub fn get(&self, device: &DeviceId, id: &PromptId, now: Now) -> Option<Known> {
        let ids = self.devices.get(device)?;
        if let Some(&(job, hash)) = ids.under_way.get(id) {
            return Some(Known::UnderWay { job, hash });
        }
        let answered = ids.answered.get(id).filter(|a| now.since(a.at) < self.keep_ms)?;
        Some(Known::Final { job: answered.job, hash: answered.hash })
    }

    /// A job with this id is under way.
    pub fn begin(&mut self, device: &DeviceId, id: &PromptId, job: JobId, hash: ContentHash) {
        self.devices.entry(device.clone()).or_default().under_way.insert(id.clone(), (job, hash));
    }

    /// The job came to nothing: what was known before holds again.
    pub fn forget(&mut self, device: &DeviceId, id: &PromptId) {
        if let Some(ids) = self.devices.get_mut(device) {
            ids.under_way.remove(id);
        }
        self.trim(device, Now(0));
    }

    /// The outcome of the job with this id is stored.
    pub fn end(&mut self, last: SeenFinal, now: Now) {
        let SeenFinal { device, id, hash, job, at } = last;
        let ids = self.devices.entry(device.clone()).or_default();
        ids.under_way.remove(&id);
        ids.order.push_back((id.clone(), job));
        if ids.answered.insert(id, Answered { hash, job, at }).is_none() {
            self.answered += 1;
        }
        self.trim(&device, now);
        self.sweep(now);
    }

    /// Each outcome also looks after one other device in turn, so that ids of devices that went silent are forgotten.
    fn sweep(&mut self, now: Now) {
        let after = self.swept.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.swept = self.devices.range::<DeviceId, _>((after, Bound::Unbounded)).next().map(|(d, _)| d.clone());
        if let Some(device) = self.swept.clone() {
            self.trim(&device, now);
        }
    }

    /// Answered ids in memory.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// Drops what is too old or too much for a device.
    fn trim(&mut self, device: &DeviceId, now: Now) {
        let Some(ids) = self.devices.get_mut(device) else { return };
        while let Some((id, job)) = ids.order.front() {
            let current = ids.answered.get(id).filter(|a| a.job == *job);
            let too_old = current.is_none_or(|a| now.since(a.at) >= self.keep_ms);
            if !too_old && ids.order.len() <= self.per_device_max {
                break;
            }
            if current.is_some() {
                ids.answered.remove(id);
                self.answered -= 1;
            }
            ids.order.pop_front();
        }
        if ids.order.is_empty() && ids.under_way.is_empty() {
            self.devices.remove(device);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HASH: ContentHash = ContentHash([1; 16]);

    fn device() -> DeviceId {
        "d1".parse().unwrap()
    }

    fn id(n: u64) -> PromptId {
        format!("b3f1-{n}").parse().unwrap()
    }

    fn last(n: u64, job: u64, at: u64) -> SeenFinal {
        SeenFinal { device: device(), id: id(n), hash: HASH, job: JobId(job), at: Now(at) }
    }

    #[test]
    fn an_id_is_under_way_then_final_then_forgotten() {
        let mut seen = Seen::new(100, 10);
        assert_eq!(seen.get(&device(), &id(1), Now(0)), None);
        seen.begin(&device(), &id(1), JobId(5), HASH);
        assert_eq!(seen.get(&device(), &id(1), Now(0)), Some(Known::UnderWay { job: JobId(5), hash: HASH }));
        seen.end(last(1, 5, 10), Now(10));
        assert_eq!(seen.get(&device(), &id(1), Now(109)), Some(Known::Final { job: JobId(5), hash: HASH }));
        assert_eq!(seen.get(&device(), &id(1), Now(110)), None);
    }

    #[test]
    fn ids_of_other_devices_are_other_ids() {
        let mut seen = Seen::new(100, 10);
        seen.begin(&device(), &id(1), JobId(5), HASH);
        assert_eq!(seen.get(&"d2".parse().unwrap(), &id(1), Now(0)), None);
    }

    #[test]
    fn a_job_that_came_to_nothing_uncovers_the_earlier_use() {
        let mut seen = Seen::new(100, 10);
        seen.end(last(1, 5, 0), Now(0));
        seen.begin(&device(), &id(1), JobId(6), ContentHash([2; 16]));
        seen.forget(&device(), &id(1));
        assert_eq!(seen.get(&device(), &id(1), Now(1)), Some(Known::Final { job: JobId(5), hash: HASH }));
    }

    #[test]
    fn the_oldest_go_when_a_device_has_too_many() {
        let mut seen = Seen::new(1_000_000, 3);
        for n in 1..=5 {
            seen.end(last(n, n, n), Now(n));
        }
        let kept: Vec<bool> = (1..=5).map(|n| seen.get(&device(), &id(n), Now(5)).is_some()).collect();
        assert_eq!(kept, [false, false, true, true, true]);
        assert_eq!(seen.answered(), 3);
    }

    #[test]
    fn ids_of_a_silent_device_are_forgotten_while_others_go_on() {
        let mut seen = Seen::new(100, 10);
        seen.end(SeenFinal { device: "silent".parse().unwrap(), ..last(1, 1, 0) }, Now(0));
        for n in 2..=5 {
            seen.end(last(n, n, 1_000), Now(1_000));
        }
        assert_eq!(seen.answered(), 4);
    }

    #[test]
    fn an_id_used_again_is_kept_for_its_last_use() {
        let mut seen = Seen::new(100, 10);
        seen.end(last(1, 5, 0), Now(0));
        seen.end(last(1, 6, 90), Now(90));
        seen.end(last(2, 7, 150), Now(150));
        assert_eq!(seen.get(&device(), &id(1), Now(150)), Some(Known::Final { job: JobId(6), hash: HASH }));
        assert_eq!(seen.answered(), 2);
        seen.end(last(3, 8, 5_000), Now(5_000));
        assert_eq!(seen.answered(), 1);
    }
}
