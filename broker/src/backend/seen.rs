//! What rumqttd has seen: it keeps every filter and every topic that it ever saw until it ends, some 7 KiB and 250
//! bytes of each, so there may only be so many, and one identity cannot use them up for the others.
//!
//! Invariants: what rumqttd knows already passes always; nothing new passes over a bound; names are told apart by 64
//! bits of a hash with a secret of this process, so that nobody can make two of them one on purpose.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Filters that rumqttd has seen, of everybody: 70 MB.
const FILTERS_MAX: usize = 10_000;
/// Of one identity: a dashboard with a filter for each device of a large plant.
const FILTERS_PER_IDENTITY_MAX: usize = 1_000;
/// Topics that rumqttd has seen, of everybody: 25 MB.
const TOPICS_MAX: usize = 100_000;
/// Of one identity: a site's collector that publishes for all of it.
const TOPICS_PER_IDENTITY_MAX: usize = 10_000;

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
    fn of(&self, name: Name) -> (&AtomicUsize, usize) {
        match name {
            Name::Filter => (&self.filters, FILTERS_PER_IDENTITY_MAX),
            Name::Topic => (&self.topics, TOPICS_PER_IDENTITY_MAX),
        }
    }
}

/// The names that the door's rumqttd has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    secret: RandomState,
    filters: Mutex<HashSet<u64>>,
    topics: Mutex<HashSet<u64>>,
}

impl Seen {
    /// Whether a name may go to rumqttd, because it did before or because there is room for it.
    pub(crate) fn admit(&self, name: Name, text: &str, brought: &Brought) -> bool {
        let (set, max) = match name {
            Name::Filter => (&self.filters, FILTERS_MAX),
            Name::Topic => (&self.topics, TOPICS_MAX),
        };
        let hash = self.secret.hash_one(text);
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.contains(&hash) {
            return true;
        }
        let (count, own_max) = brought.of(name);
        if set.len() >= max || count.load(Ordering::Relaxed) >= own_max {
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
        let (seen, greedy, polite) = (Seen::default(), Brought::default(), Brought::default());
        let admitted = |who: &Brought, from: usize, to: usize| {
            (from..to).filter(|n| seen.admit(Name::Filter, &format!("f/{n}"), who)).count()
        };
        assert_eq!(admitted(&greedy, 0, 2_000), FILTERS_PER_IDENTITY_MAX);
        assert_eq!(admitted(&greedy, 0, 1_000), FILTERS_PER_IDENTITY_MAX, "what is known passes");
        assert_eq!(admitted(&polite, 2_000, 2_010), 10);
        let crowd: Vec<Brought> = (0..12).map(|_| Brought::default()).collect();
        let all: usize = (0..12).map(|n| admitted(&crowd[n], 10_000 * (n + 1), 10_000 * (n + 1) + 1_000)).sum();
        assert_eq!(all + 1_010, FILTERS_MAX);
        assert!(seen.admit(Name::Topic, "t", &greedy), "topics are counted apart");
        seen.forget();
        assert!(seen.admit(Name::Filter, "new", &polite));
    }
}
