//! One price of escalating for the whole gateway. A budget of escalations per hour fills it up, every escalation draws
//! on it, and the emptier it is the dearer is the next one (the price of a virtual queue, as in Lyapunov
//! drift-plus-penalty: Neely 2010). What the cloud is expected to mend, times the task's value, is weighed against it.
//!
//! Invariants: without a budget the price is zero; with one, at most two hours' worth is escalated for gain in any hour;
//! the posted price moves only when the level has moved by [`BAND`], so that equals that come one after another are
//! treated alike.

use crate::time::Now;

/// Milliseconds of an hour.
const HOUR_MS: f64 = 3.6e6;
/// How far the level moves before the posted price follows: the hysteresis, in units of expected gain.
pub const BAND: f64 = 0.05;

/// The price, and what it follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    per_hour: Option<f64>,
    /// Escalations over the budget, from 0 to one more than an hour's worth.
    debt: f64,
    seen: Now,
    posted: f64,
}

impl Price {
    /// A price that follows this budget of escalations per hour; without one, escalating is free.
    #[must_use]
    pub fn new(per_hour: Option<u32>) -> Self {
        let per_hour = per_hour.map(|n| f64::from(n.max(1)));
        Self { per_hour, debt: 0.0, seen: Now::default(), posted: 0.0 }
    }

    /// What an escalation costs now, from 0 to 1: in expected gain at value 1.
    pub fn now(&mut self, now: Now) -> f64 {
        let Some(per_hour) = self.per_hour else { return 0.0 };
        let passed_ms = now.since(self.seen) as f64;
        self.seen = self.seen.max(now);
        self.debt = (self.debt - per_hour * passed_ms / HOUR_MS).max(0.0);
        let level = (self.debt / per_hour).min(1.0);
        // At both ends it follows at once: nothing is bought beyond the budget, and nothing is dear without debt.
        if (level - self.posted).abs() >= BAND || level <= 0.0 || level >= 1.0 {
            self.posted = level;
        }
        self.posted
    }

    /// An escalation was made, for whatever reason: those that are owed to a promise or have no other way are charged
    /// as well, and what is left for gain is less.
    pub fn charge(&mut self, now: Now) {
        let _ = self.now(now);
        let Some(per_hour) = self.per_hour else { return };
        // One more than an hour's worth: cut off at it, each escalation near the end would be partly free.
        self.debt = (self.debt + 1.0).min(per_hour + 1.0);
        let _ = self.now(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_budget_it_is_free() {
        let mut price = Price::new(None);
        for second in 0..1_000 {
            price.charge(Now(second * 1_000));
        }
        assert_eq!(price.now(Now(1_000_000)), 0.0);
    }

    #[test]
    fn it_rises_with_what_is_spent_and_falls_with_time() {
        let mut price = Price::new(Some(100));
        for _ in 0..50 {
            price.charge(Now(0));
        }
        let dear = price.now(Now(0));
        assert!((dear - 0.5).abs() <= BAND, "{dear}");
        let later = price.now(Now(15 * 60 * 1_000));
        assert!((later - 0.25).abs() <= BAND, "{later}");
        assert_eq!(price.now(Now(3_600_000)), 0.0);
    }

    #[test]
    fn equals_that_follow_each_other_are_treated_alike() {
        let mut price = Price::new(Some(1_000));
        for _ in 0..460 {
            price.charge(Now(0));
        }
        let before = price.now(Now(0));
        for step in 1..=20 {
            price.charge(Now(step));
        }
        assert_eq!(price.now(Now(21)), before);
    }

    #[test]
    fn demand_over_the_budget_settles_at_the_budget() {
        let mut price = Price::new(Some(60));
        let mut bought = 0;
        for second in 0..36_000_u64 {
            // A prompt a second; their gains spread evenly over 0 to 1.
            let gain = (second * 617 % 1_000) as f64 / 1_000.0;
            let now = Now(second * 1_000);
            if gain > price.now(now) {
                price.charge(now);
                bought += 1;
            }
        }
        assert!((600..=670).contains(&bought), "{bought} in ten hours at 60 an hour");
    }

    proptest! {
        #[test]
        fn it_stays_between_nothing_and_everything(steps in prop::collection::vec((0..100_000_u64, any::<bool>()), 0..300), per_hour in 0..500_u32) {
            let mut price = Price::new(Some(per_hour));
            let mut now = Now(0);
            for (pause, charged) in steps {
                now = now.after(pause);
                if charged { price.charge(now) }
                prop_assert!((0.0..=1.0).contains(&price.now(now)));
            }
        }
    }
}
