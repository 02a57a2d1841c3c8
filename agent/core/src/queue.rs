//! Who runs next: free slots go round the devices, first to the one that was not served for longest, so that a device that
//! asks now and then does not wait for the rest of a round with one that always asks; within a device by priority, then by deadline, then by age. Every
//! [`SHARE`]th turn of a device is its oldest prompt's, whatever its priority, so that a steady stream of urgent ones
//! delays the others and never stops them: with `n` older ones before it, a prompt runs after at most
//! `SHARE * (n + 1)` turns of its device. A suspect, which ran while the engine died, goes first and alone. Bounded by
//! admission.

use crate::predict::Work;
use crate::time::Now;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_schemas::{DeviceId, JobId, Priority};

/// One turn of so many goes by age instead of priority: a quarter of a device's slots for what is least urgent.
pub const SHARE: u64 = 4;

/// Devices whose last turn is remembered: as many as a large plant has. One that is forgotten counts as never served.
const SERVED_MAX: usize = 4_096;

/// Where a prompt stands among those of its device: the least runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    priority: Reverse<Priority>,
    deadline: Now,
    job: JobId,
}

impl Place {
    /// The place of a prompt; without a deadline it stands behind those of its priority that have one.
    #[must_use]
    pub fn new(priority: Priority, deadline: Option<Now>, job: JobId) -> Self {
        Self { priority: Reverse(priority), deadline: deadline.unwrap_or(Now(u64::MAX)), job }
    }
}

/// What stands before a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Prompts.
    pub entries: u32,
    /// Their work.
    pub work: Work,
}

/// The prompts of one device.
#[derive(Debug, Default)]
struct Lane {
    places: BTreeMap<Place, Work>,
    ages: BTreeMap<JobId, Place>,
    work: Work,
    turns: u64,
}

impl Lane {
    /// Whose turn it is.
    fn next(&mut self) -> Option<Place> {
        self.turns += 1;
        let by_age = self.turns.is_multiple_of(SHARE);
        let oldest = self.ages.first_key_value().map(|(_, place)| *place);
        oldest.filter(|_| by_age).or_else(|| self.places.first_key_value().map(|(place, _)| *place))
    }

    fn insert(&mut self, place: Place, work: Work) -> bool {
        let new = self.places.insert(place, work).is_none();
        if new {
            self.ages.insert(place.job, place);
            self.work = self.work + work;
        }
        new
    }

    fn remove(&mut self, place: Place) -> bool {
        let Some(work) = self.places.remove(&place) else { return false };
        self.ages.remove(&place.job);
        self.work = self.work - work;
        true
    }

    /// The first `count`, their work taken as the mean of the lane: a sum over each lane would cost as much as the queue
    /// is long, at every arrival.
    fn first(&self, count: usize) -> Ahead {
        let len = self.places.len();
        let count = count.min(len);
        let part = |sum: u64| sum.saturating_mul(count as u64) / len.max(1) as u64;
        Ahead {
            entries: u32::try_from(count).unwrap_or(u32::MAX),
            work: Work { bytes: part(self.work.bytes), tokens: part(self.work.tokens) },
        }
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Beside others.
    Together(JobId),
    /// With nothing beside it.
    Alone(JobId),
}

/// Which devices were served, and in what order.
#[derive(Debug, Default)]
struct Served {
    turns: u64,
    turn_of: BTreeMap<DeviceId, u64>,
    device_of: BTreeMap<u64, DeviceId>,
    /// The devices that wait, by their last turn.
    waiting: BTreeSet<(u64, DeviceId)>,
}

impl Served {
    fn last(&self, device: &DeviceId) -> u64 {
        self.turn_of.get(device).copied().unwrap_or(0)
    }

    fn waits(&mut self, device: &DeviceId) {
        self.waiting.insert((self.last(device), device.clone()));
    }

    fn waits_no_more(&mut self, device: &DeviceId) {
        self.waiting.remove(&(self.last(device), device.clone()));
    }

    /// Those that wait, who was not served for longest first.
    fn in_turn(&self) -> impl Iterator<Item = &DeviceId> {
        self.waiting.iter().map(|(_, device)| device)
    }

    fn serve(&mut self, device: &DeviceId) {
        let waited = self.waiting.remove(&(self.last(device), device.clone()));
        self.turns += 1;
        if let Some(before) = self.turn_of.insert(device.clone(), self.turns) {
            self.device_of.remove(&before);
        }
        self.device_of.insert(self.turns, device.clone());
        if waited {
            self.waits(device);
        }
        if self.device_of.len() > SERVED_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((turn, device)) = self.device_of.pop_first() else { return };
        let waited = self.waiting.remove(&(turn, device.clone()));
        self.turn_of.remove(&device);
        if waited {
            self.waits(&device);
        }
    }
}

/// All prompts that wait for a slot.
#[derive(Debug, Default)]
pub struct Waiting {
    lanes: BTreeMap<DeviceId, Lane>,
    served: Served,
    suspects: BTreeMap<JobId, Work>,
    entries: usize,
}

impl Waiting {
    /// Takes a prompt in.
    pub fn push(&mut self, device: &DeviceId, place: Place, work: Work) {
        let lane = self.lanes.entry(device.clone()).or_default();
        if lane.places.is_empty() {
            self.served.waits(device);
        }
        self.entries += usize::from(lane.insert(place, work));
    }

    /// Takes a prompt in that must run alone.
    pub fn push_suspect(&mut self, job: JobId, work: Work) {
        if self.suspects.insert(job, work).is_none() {
            self.entries += 1;
        }
    }

    /// Takes a prompt out, wherever it stands.
    pub fn remove(&mut self, device: &DeviceId, place: Place) {
        if self.suspects.remove(&place.job).is_some() {
            self.entries -= 1;
        }
        let Some(lane) = self.lanes.get_mut(device) else { return };
        self.entries -= usize::from(lane.remove(place));
        if lane.places.is_empty() {
            self.lanes.remove(device);
            self.served.waits_no_more(device);
        }
    }

    /// The next to run beside `busy` others; none while a suspect waits for the engine to be idle.
    pub fn next(&mut self, busy: usize) -> Option<Turn> {
        if let Some((&job, _)) = self.suspects.first_key_value() {
            if busy > 0 {
                return None;
            }
            self.suspects.remove(&job);
            self.entries -= 1;
            return Some(Turn::Alone(job));
        }
        let device = self.served.in_turn().next()?.clone();
        let place = self.lanes.get_mut(&device)?.next()?;
        self.served.serve(&device);
        self.remove(&device, place);
        Some(Turn::Together(place.job))
    }

    /// What stands before a prompt of this device at this place, whether it is in the queue or not.
    #[must_use]
    pub fn ahead(&self, device: &DeviceId, place: Place) -> Ahead {
        let before = self.lanes.get(device).map_or(0, |lane| lane.places.range(..place).count());
        let mut ahead = Ahead::default();
        for (other, lane) in &self.lanes {
            let part = lane.first(if other == device { before } else { before + 1 });
            ahead = Ahead { entries: ahead.entries.saturating_add(part.entries), work: ahead.work + part.work };
        }
        for (_, &work) in self.suspects.iter().filter(|(job, _)| **job != place.job) {
            ahead = Ahead { entries: ahead.entries.saturating_add(1), work: ahead.work + work };
        }
        ahead
    }

    /// Prompts that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const WORK: Work = Work { bytes: 10, tokens: 2 };

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    fn place(job: u64, priority: u8, deadline: Option<u64>) -> Place {
        Place::new(Priority::new(priority).unwrap(), deadline.map(Now), JobId(job))
    }

    fn order(waiting: &mut Waiting) -> Vec<u64> {
        std::iter::from_fn(|| order_of(waiting.next(0))).collect()
    }

    #[test]
    fn slots_go_round_the_devices() {
        let mut waiting = Waiting::default();
        for (job, name) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c"), (6, "c")] {
            waiting.push(&device(name), place(job, 4, None), WORK);
        }
        assert_eq!(order(&mut waiting), [1, 4, 5, 2, 6, 3]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn who_was_not_served_for_longest_comes_first() {
        let mut waiting = Waiting::default();
        let mut turns = Vec::new();
        let mut turn = |waiting: &mut Waiting| turns.extend(order_of(waiting.next(0)));
        for job in 1..10 {
            waiting.push(&device("m"), place(job, 4, None), WORK);
        }
        for (job, name) in [(11, "a"), (12, "z")] {
            turn(&mut waiting);
            turn(&mut waiting);
            waiting.push(&device(name), place(job, 4, None), WORK);
            turn(&mut waiting);
        }
        // Both ask again: each waits for nobody but the other.
        waiting.push(&device("z"), place(13, 4, None), WORK);
        waiting.push(&device("a"), place(14, 4, None), WORK);
        (0..3).for_each(|_| turn(&mut waiting));
        assert_eq!(turns, [1, 2, 11, 3, 4, 12, 14, 5, 13]);
    }

    fn order_of(turn: Option<Turn>) -> Option<u64> {
        match turn? {
            Turn::Together(job) | Turn::Alone(job) => Some(job.0),
        }
    }

    #[test]
    fn within_a_device_priority_then_deadline_then_age() {
        let mut waiting = Waiting::default();
        for (job, priority, deadline) in [(1, 4, None), (2, 4, Some(90)), (3, 4, Some(50)), (4, 9, None), (5, 4, None)]
        {
            waiting.push(&device("a"), place(job, priority, deadline), WORK);
        }
        assert_eq!(order(&mut waiting), [4, 3, 2, 1, 5]);
    }

    #[test]
    fn every_fourth_turn_of_a_device_is_its_oldest_s() {
        let mut waiting = Waiting::default();
        waiting.push(&device("a"), place(1, 0, None), WORK);
        waiting.push(&device("a"), place(2, 0, None), WORK);
        let mut turns = Vec::new();
        for job in 3..11 {
            // A device that always has something urgent.
            waiting.push(&device("a"), place(job, 9, None), WORK);
            let Some(Turn::Together(JobId(next))) = waiting.next(0) else { panic!("nobody's turn") };
            turns.push(next);
        }
        assert_eq!(turns, [3, 4, 5, 1, 6, 7, 8, 2]);
    }

    #[test]
    fn a_suspect_waits_for_an_idle_engine_and_holds_the_others_back() {
        let mut waiting = Waiting::default();
        waiting.push(&device("a"), place(1, 9, None), WORK);
        waiting.push_suspect(JobId(7), WORK);
        assert_eq!(waiting.next(1), None);
        assert_eq!(waiting.next(0), Some(Turn::Alone(JobId(7))));
        assert_eq!(waiting.next(1), Some(Turn::Together(JobId(1))));
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn ahead_counts_the_round_that_comes_first() {
        let mut waiting = Waiting::default();
        for (job, name) in [(1, "a"), (2, "a"), (3, "a"), (4, "b")] {
            waiting.push(&device(name), place(job, 4, None), WORK);
        }
        let check = |name: &str, job: u64, entries: u32| {
            let ahead = waiting.ahead(&device(name), place(job, 4, None));
            let work = Work { bytes: 10 * u64::from(entries), tokens: 2 * u64::from(entries) };
            assert_eq!(ahead, Ahead { entries, work }, "{name} {job}");
        };
        check("a", 9, 4);
        check("a", 1, 1);
        check("a", 2, 2);
        check("b", 9, 3);
        check("c", 9, 2);
    }

    #[test]
    fn removed_prompts_never_get_a_turn() {
        let mut waiting = Waiting::default();
        waiting.push(&device("a"), place(1, 4, None), WORK);
        waiting.push(&device("a"), place(2, 4, None), WORK);
        waiting.push_suspect(JobId(3), WORK);
        waiting.remove(&device("a"), place(1, 4, None));
        waiting.remove(&device("a"), place(3, 4, None));
        waiting.remove(&device("b"), place(2, 4, None));
        assert_eq!(waiting.len(), 1);
        assert_eq!(order(&mut waiting), [2]);
    }
}
