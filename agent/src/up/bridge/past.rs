//! What whoever gets a message at the central broker hears of its past: that it may have come before, and how long it
//! waited here. User properties of MQTT 5; 3.1.1 has no place for them.

use tidegate_spool::Stamp;

/// It may have been published before.
const REPLAYED: &str = "tidegate-replayed";
/// The number of this publish, where it may not be the first.
const ATTEMPT: &str = "tidegate-attempt";
/// How long it has waited, in milliseconds.
const QUEUED_MS: &str = "tidegate-queued-ms";
/// A shorter wait is the way through this gateway, and not told.
const QUEUED_LEAST_MS: u64 = 1_000;

/// The past of one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::up) struct Past {
    /// Whether it may have been published before, under whatever number.
    pub(in crate::up) replayed: bool,
    /// The number of this publish, from 1.
    pub(in crate::up) attempt: u32,
    /// How long it has waited, in milliseconds.
    pub(in crate::up) queued_ms: u64,
}

impl Past {
    /// Of what is published for the first time, and at once.
    pub(in crate::up) const NONE: Self = Self { replayed: false, attempt: 1, queued_ms: 0 };

    /// Puts it among the user properties. What a gateway before us said of its own attempts is over.
    pub(super) fn tell(self, user: &mut Vec<(String, String)>) {
        user.retain(|(name, _)| ![REPLAYED, ATTEMPT].contains(&name.as_str()));
        if self.replayed || self.attempt > 1 {
            user.push((REPLAYED.to_owned(), "true".to_owned()));
            user.push((ATTEMPT.to_owned(), self.attempt.to_string()));
        }
        if self.queued_ms >= QUEUED_LEAST_MS {
            user.push((QUEUED_MS.to_owned(), self.queued_ms.to_string()));
        }
    }
}

/// The wait of an escalation for the link.
#[derive(Debug, Clone, Copy)]
pub(in crate::up) struct Wait {
    since: Stamp,
    replayed: bool,
}

impl Wait {
    /// Of an escalation that is being stored.
    pub(in crate::up) fn from(now: Stamp) -> Self {
        Self { since: now, replayed: false }
    }

    /// Of one that an earlier run stored: whether it was published, nobody knows. Nor is it known when its wait began,
    /// but when its prompt came.
    pub(in crate::up) fn of_earlier_run(prompt: Stamp) -> Self {
        Self { since: prompt, replayed: true }
    }

    /// It is about to be published; the next publish is not the first.
    pub(in crate::up) fn publishes(&mut self, attempt: u32, now: &Stamp) -> Past {
        let replayed = std::mem::replace(&mut self.replayed, true);
        Past { replayed, attempt, queued_ms: self.since.age_ms(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(boot_ms: u64) -> Stamp {
        Stamp { boot_ms, boot_id: [1; 16], wall_ms: 0, wall_trusted: false }
    }

    fn told(past: Past) -> Vec<(String, String)> {
        let mut user = vec![(REPLAYED.to_owned(), "of before".to_owned()), ("other".to_owned(), "x".to_owned())];
        past.tell(&mut user);
        user
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_first_publish_says_nothing_and_each_later_one_what_it_is() {
        let mut wait = Wait::from(stamp(1_000));
        assert_eq!(told(wait.publishes(1, &stamp(1_400))), pairs(&[("other", "x")]));
        // The first publish did not count: the same number, and still perhaps the second of its kind.
        let again = [("other", "x"), (REPLAYED, "true"), (ATTEMPT, "1"), (QUEUED_MS, "31000")];
        assert_eq!(told(wait.publishes(1, &stamp(32_000))), pairs(&again));
        let later = [("other", "x"), (REPLAYED, "true"), (ATTEMPT, "2"), (QUEUED_MS, "61000")];
        assert_eq!(told(wait.publishes(2, &stamp(62_000))), pairs(&later));
    }

    #[test]
    fn what_an_earlier_run_stored_may_have_been_published() {
        let past = Wait::of_earlier_run(stamp(0)).publishes(1, &stamp(5_000));
        assert_eq!(past, Past { replayed: true, attempt: 1, queued_ms: 5_000 });
    }

    #[test]
    fn a_long_wait_alone_is_told() {
        let past = Wait::from(stamp(0)).publishes(1, &stamp(7_000));
        assert_eq!(told(past), pairs(&[("other", "x"), (QUEUED_MS, "7000")]));
    }
}
