//! What rumqttd has seen: it keeps every filter and every topic that it ever saw until it ends, some 7 KiB and 250
//! bytes of each, so there may only be so many, and one identity cannot use them up for the others.
//!
//! Invariants: what rumqttd knows already passes always; nothing new passes over a bound; names are told apart by 64
//! bits of a hash with a secret of this process, so that nobody can make two of them one on purpose.

use crate::config::DoorLimits;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many names rumqttd may be shown, of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Of everybody.
    pub(crate) total_max: usize,
    /// Of one identity.
    pub(crate) per_identity_max: usize,
}

/// What kind of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Filter,
    Topic,
}

/// How many new names one identity brought.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    filters: AtomicUsize,
    topics: AtomicUsize,
}

impl Brought {
    fn of(&self, name: Name) -> &AtomicUsize {
        match name {
            Name::Filter => &self.filters,
            Name::Topic => &self.topics,
        }
    }
}

/// The names that the door's rumqttd has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    filters_room: Room,
    topics_room: Room,
    secret: RandomState,
    filters: Mutex<HashSet<u64>>,
    topics: Mutex<HashSet<u64>>,
}

impl Seen {
    pub(crate) fn new(limits: &DoorLimits) -> Self {
        let (filters, topics) = (limits.rumqttd_filters_max, limits.rumqttd_topics_max);
        let filters_room = Room { total_max: filters, per_identity_max: limits.rumqttd_filters_per_identity_max };
        let topics_room = Room { total_max: topics, per_identity_max: limits.rumqttd_topics_per_identity_max };
        Self {
            filters_room,
            topics_room,
            secret: RandomState::new(),
            filters: Mutex::default(),
            topics: Mutex::default(),
        }
    }

    /// Whether a name may go to rumqttd, because it did before or because there is room for it.
    pub(crate) fn admit(&self, name: Name, text: &str, brought: &Brought) -> bool {
        let (set, room) = match name {
            Name::Filter => (&self.filters, self.filters_room),
            Name::Topic => (&self.topics, self.topics_room),
        };
        let hash = self.secret.hash_one(text);
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.contains(&hash) {
            return true;
        }
        let count = brought.of(name);
        if set.len() >= room.total_max || count.load(Ordering::Relaxed) >= room.per_identity_max {
            return false;
        }
        count.fetch_add(1, Ordering::Relaxed);
        set.insert(hash)
    }

    /// Another rumqttd has seen nothing yet, and gets again what is in use.
    pub(crate) fn forget(&self) {
        for set in [&self.filters, &self.topics] {
            set.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_cannot_use_up_the_names_of_others_and_all_together_are_bounded() {
        let limits = DoorLimits {
            rumqttd_filters_max: 100,
            rumqttd_filters_per_identity_max: 10,
            rumqttd_topics_per_identity_max: 20,
            ..DoorLimits::default()
        };
        let (seen, greedy, polite) = (Seen::new(&limits), Brought::default(), Brought::default());
        let admitted = |name: Name, who: &Brought, from: usize, to: usize| {
            (from..to).filter(|n| seen.admit(name, &format!("f/{n}"), who)).count()
        };
        assert_eq!(admitted(Name::Filter, &greedy, 0, 20), 10);
        assert_eq!(admitted(Name::Filter, &greedy, 0, 10), 10, "what is known passes");
        assert_eq!(admitted(Name::Filter, &polite, 20, 25), 5);
        let crowd: Vec<Brought> = (0..12).map(|_| Brought::default()).collect();
        let all: usize = (0..12).map(|n| admitted(Name::Filter, &crowd[n], 100 * (n + 1), 100 * (n + 1) + 10)).sum();
        assert_eq!(all + 15, 100);
        assert_eq!(admitted(Name::Topic, &greedy, 0, 50), 20, "topics are counted apart");
        seen.forget();
        assert!(seen.admit(Name::Filter, "new", &polite));
    }
}
