//! Which forwarded message goes next, and which one goes when there is no room. In memory only: what is taken out is
//! waiting again after a restart.
//!
//! Order: the highest priority first, oldest first within it; but every [`SHARE`]th turn is the oldest's, whatever its
//! priority, so that a steady stream of urgent messages delays the others and never stops them.

use crate::class::{Policy, QueueClass};
use crate::error::SpoolError;
use crate::forward::Room;
use crate::limits::Limits;
use crate::shelf::{Entry, More, Shelf, Slot};
use std::collections::BTreeSet;
use tidegate_schemas::{DeviceId, Priority};

/// One turn of so many goes by age instead of priority: an eighth of the link for what is least urgent.
const SHARE: u64 = 8;
/// Priorities are 0 to 9.
const PRIORITIES: usize = 10;

/// Where a forwarded message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It is nobody's.
    Waiting,
    /// It was taken out to be sent.
    Taken,
    /// Its time was over when it was taken out; the next tidying removes it.
    Expired,
}

/// A stored forwarded message.
#[derive(Debug)]
pub(crate) struct ForwardSlot {
    pub(crate) slot: Slot,
    pub(crate) source: DeviceId,
    pub(crate) priority: Priority,
    pub(crate) stand: Stand,
    /// How often it was taken out since the opening.
    pub(crate) attempts: u32,
    /// An earlier opening had it: it may have been sent then.
    pub(crate) restored: bool,
    /// End of its time to live on this boot's `CLOCK_BOOTTIME`, in milliseconds; the largest number is never.
    pub(crate) expires_boot_ms: u64,
}

impl Entry for ForwardSlot {
    fn slot(&self) -> Slot {
        self.slot
    }
    fn device(&self) -> &DeviceId {
        &self.source
    }
    fn device_mut(&mut self) -> &mut DeviceId {
        &mut self.source
    }
}

/// All forwarded messages.
#[derive(Debug)]
pub(crate) struct Telemetry {
    shelf: Shelf<ForwardSlot>,
    policy: Policy,
    /// Numbers that wait, by priority.
    ready: [BTreeSet<u64>; PRIORITIES],
    /// All numbers, by device, in the order in which the policy drops them.
    lanes: BTreeSet<(DeviceId, u8, u64)>,
    turns: u64,
}

impl Telemetry {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            shelf: Shelf::new(QueueClass::Telemetry, limits.telemetry, limits.telemetry_device),
            policy: limits.telemetry_policy,
            ready: Default::default(),
            lanes: BTreeSet::new(),
            turns: 0,
        }
    }

    pub(crate) fn shelf(&self) -> &Shelf<ForwardSlot> {
        &self.shelf
    }

    pub(crate) fn insert(&mut self, number: u64, slot: ForwardSlot) {
        self.remove(number);
        self.ready[rank(slot.priority)].insert(number);
        self.shelf.insert(number, slot);
        // Of the slot that is stored: its device shares one name with all others of that device.
        let lane = self.shelf.get(number).map(|slot| self.lane(slot, number));
        self.lanes.extend(lane);
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<ForwardSlot> {
        let slot = self.shelf.remove(number)?;
        self.ready[rank(slot.priority)].remove(&number);
        self.lanes.remove(&self.lane(&slot, number));
        Some(slot)
    }

    fn lane(&self, slot: &ForwardSlot, number: u64) -> (DeviceId, u8, u64) {
        (slot.source.clone(), self.drop_rank(slot.priority), number)
    }

    /// What comes first in the order of dropping.
    fn drop_rank(&self, priority: Priority) -> u8 {
        if self.policy == Policy::DropLowestPriority { priority.get() } else { 0 }
    }

    /// What must go so that a message of this source, size and priority fits. Nothing that is being sent goes.
    pub(crate) fn room_for(&self, source: &DeviceId, bytes: u64, priority: Priority) -> Result<Vec<u64>, SpoolError> {
        let mut victims = BTreeSet::new();
        let (mut own, mut all) = (More::one(bytes), More::one(bytes));
        let (mut of_device, mut of_all) = (self.droppable_of(source), self.droppable());
        while let Err(full) = self.shelf.check(source, own, all) {
            if self.policy == Policy::RefuseNewest {
                return Err(full);
            }
            let fresh = |number: &u64| !victims.contains(number);
            let first = if full.is_of_device() { of_device.find(fresh) } else { of_all.find(fresh) };
            let Some(victim) = first else { return Err(full) };
            let Some(slot) = self.shelf.get(victim) else { return Err(full) };
            if self.policy == Policy::DropLowestPriority && slot.priority > priority {
                return Err(full);
            }
            all.less(slot.slot);
            if slot.source == *source {
                own.less(slot.slot);
            }
            victims.insert(victim);
        }
        Ok(victims.into_iter().collect())
    }

    /// What waits, in the order in which the policy drops it.
    fn droppable(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        match self.policy {
            Policy::DropLowestPriority => Box::new(self.ready.iter().flatten().copied()),
            Policy::DropOldest | Policy::RefuseNewest => {
                Box::new(self.shelf.iter().filter(|(_, s)| s.stand == Stand::Waiting).map(|(number, _)| number))
            }
        }
    }

    fn droppable_of(&self, source: &DeviceId) -> impl Iterator<Item = u64> {
        let lane = self.lanes.range((source.clone(), 0, 0)..=(source.clone(), u8::MAX, u64::MAX));
        lane.map(|(_, _, number)| *number)
            .filter(|number| self.shelf.get(*number).is_some_and(|slot| slot.stand == Stand::Waiting))
    }

    /// Takes out what goes next, as long as it fits; the first goes in any case.
    pub(crate) fn take(&mut self, room: Room) -> Vec<u64> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while (taken.len() as u64) < room.entries_max {
            let Some(number) = self.next() else { break };
            let Some(slot) = self.shelf.get_mut(number) else { break };
            let size = u64::from(slot.slot.bytes);
            if !taken.is_empty() && bytes + size > room.bytes_max {
                break;
            }
            bytes += size;
            slot.stand = Stand::Taken;
            slot.attempts = slot.attempts.saturating_add(1);
            let rank = rank(slot.priority);
            self.ready[rank].remove(&number);
            self.turns += 1;
            taken.push(number);
        }
        taken
    }

    fn next(&self) -> Option<u64> {
        let mut oldest_of_each = self.ready.iter().filter_map(|waiting| waiting.first().copied());
        if (self.turns + 1).is_multiple_of(SHARE) { oldest_of_each.min() } else { oldest_of_each.next_back() }
    }

    /// Whoever took it has not sent it after all; one that is gone meanwhile stays gone.
    pub(crate) fn put_back(&mut self, number: u64) {
        if let Some(slot) = self.shelf.get_mut(number).filter(|slot| slot.stand == Stand::Taken) {
            slot.stand = Stand::Waiting;
            self.ready[rank(slot.priority)].insert(number);
        }
    }

    /// Its time is over: it goes with the next tidying.
    pub(crate) fn expire(&mut self, number: u64) {
        if let Some(slot) = self.shelf.get_mut(number) {
            slot.stand = Stand::Expired;
        }
    }

    /// At most `max` messages whose time is over, without those that are being sent.
    pub(crate) fn overdue(&self, boot_ms: u64, max: usize) -> Vec<u64> {
        let over = |slot: &ForwardSlot| match slot.stand {
            Stand::Waiting => slot.expires_boot_ms <= boot_ms,
            Stand::Taken => false,
            Stand::Expired => true,
        };
        self.shelf.iter().filter(|(_, slot)| over(slot)).map(|(number, _)| number).take(max).collect()
    }

    /// Messages that nobody has taken out.
    pub(crate) fn waiting(&self) -> u64 {
        self.ready.iter().map(BTreeSet::len).sum::<usize>() as u64
    }
}

fn rank(priority: Priority) -> usize {
    usize::from(priority.get())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::envelope::Form;
    use crate::error::Bound;

    fn telemetry(policy: Policy, entries_max: u64, device_entries_max: u64) -> Telemetry {
        let room = |entries_max| Room { entries_max, bytes_max: 1_000 };
        let (telemetry, telemetry_device) = (room(entries_max), room(device_entries_max));
        Telemetry::new(&Limits { telemetry, telemetry_device, telemetry_policy: policy, ..Limits::default() })
    }

    fn add(all: &mut Telemetry, number: u64, source: &str, priority: u8) {
        let (source, priority) = (source.parse().unwrap(), Priority::new(priority).unwrap());
        let slot = Slot { bytes: 10, form: Form::Inline };
        let (stand, attempts, restored, expires_boot_ms) = (Stand::Waiting, 0, false, u64::MAX);
        all.insert(number, ForwardSlot { slot, source, priority, stand, attempts, restored, expires_boot_ms });
    }

    fn victims(all: &Telemetry, source: &str, priority: u8) -> Result<Vec<u64>, Bound> {
        let room = all.room_for(&source.parse().unwrap(), 10, Priority::new(priority).unwrap());
        room.map_err(|error| match error {
            SpoolError::Full { what, .. } => what,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn each_policy_finds_its_victim() {
        let full = || Err(Bound::Entries(QueueClass::Telemetry));
        let cases = [
            (Policy::RefuseNewest, 9, full()),
            (Policy::DropOldest, 0, Ok(vec![1])),
            (Policy::DropLowestPriority, 9, Ok(vec![2])),
            (Policy::DropLowestPriority, 2, Ok(vec![2])),
            (Policy::DropLowestPriority, 1, full()),
        ];
        for (policy, priority, expect) in cases {
            let mut all = telemetry(policy, 3, 3);
            [(1, "a", 7), (2, "b", 2), (3, "a", 2)].iter().for_each(|(n, source, p)| add(&mut all, *n, source, *p));
            assert_eq!(victims(&all, "c", priority), expect, "{policy:?} with priority {priority}");
        }
    }

    #[test]
    fn a_device_over_its_bound_drops_its_own() {
        let mut all = telemetry(Policy::DropOldest, 10, 2);
        [(1, "a"), (2, "b"), (3, "b"), (4, "a")].iter().for_each(|(n, source)| add(&mut all, *n, source, 4));
        assert_eq!(victims(&all, "b", 4), Ok(vec![2]));
        assert_eq!(victims(&all, "c", 4), Ok(vec![]));
    }

    #[test]
    fn what_is_being_sent_is_not_dropped() {
        let mut all = telemetry(Policy::DropOldest, 2, 2);
        (1..=2).for_each(|n| add(&mut all, n, "a", 4));
        assert_eq!(all.take(Room { entries_max: 1, bytes_max: 10 }), [1]);
        assert_eq!(victims(&all, "b", 4), Ok(vec![2]));
        assert_eq!(all.take(Room { entries_max: 9, bytes_max: 10 }), [2]);
        assert_eq!(victims(&all, "b", 4), Err(Bound::Entries(QueueClass::Telemetry)));
        all.put_back(1);
        assert_eq!(victims(&all, "b", 4), Ok(vec![1]));
    }

    #[test]
    fn a_large_message_takes_the_room_of_several() {
        let mut all = telemetry(Policy::DropOldest, 100, 100);
        (1..=100).for_each(|n| add(&mut all, n, "a", 4));
        let room = all.room_for(&"b".parse().unwrap(), 25, Priority::default());
        assert_eq!(room, Ok(vec![1, 2, 3]));
    }

    #[test]
    fn the_urgent_go_first_and_every_eighth_turn_is_the_oldest_s() {
        let mut all = telemetry(Policy::DropOldest, 100, 100);
        (1..=3).for_each(|n| add(&mut all, n, "a", 0));
        (4..=30).for_each(|n| add(&mut all, n, "a", 9));
        let order = all.take(Room { entries_max: 24, bytes_max: 1_000 });
        assert_eq!(order[..8], [4, 5, 6, 7, 8, 9, 10, 1]);
        assert_eq!([order[15], order[23]], [2, 3]);
    }

    #[test]
    fn a_batch_ends_where_its_bytes_end() {
        let mut all = telemetry(Policy::DropOldest, 100, 100);
        (1..=9).for_each(|n| add(&mut all, n, "a", 4));
        assert_eq!(all.take(Room { entries_max: 9, bytes_max: 35 }), [1, 2, 3]);
        assert_eq!(all.take(Room { entries_max: 9, bytes_max: 1 }), [4], "one goes in any case");
        assert_eq!(all.waiting(), 5);
    }

    #[test]
    fn what_is_over_its_time_goes_unless_it_is_being_sent() {
        let mut all = telemetry(Policy::DropOldest, 100, 100);
        (1..=3).for_each(|n| add(&mut all, n, "a", 4));
        for number in 1..=3 {
            all.shelf.get_mut(number).unwrap().expires_boot_ms = number * 100;
        }
        assert!(all.overdue(99, 9).is_empty());
        all.take(Room { entries_max: 1, bytes_max: 10 });
        assert_eq!(all.overdue(250, 9), [2]);
        all.expire(1);
        assert_eq!(all.overdue(250, 9), [1, 2]);
    }
}
