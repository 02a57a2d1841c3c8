//! The life of an escalation: it waits for the link, is published, is sent, is published again when its lease ends
//! without a resolution. Invariants: at most one publish under way; the attempt grows only after a publish that
//! counted; what did not count (0x10, a lost connection) is repeated under the same number.

use crate::interval::Interval;
use crate::site::Limits;
use crate::time::Now;
use std::collections::VecDeque;

/// Resolutions from which the lease is computed: enough for a p95, few enough to follow a change within minutes.
const RECENT_MAX: usize = 64;
/// The lease is so many times the p95 of recent resolutions.
const LEASE_FACTOR: u64 = 4;
/// Pause after the first publish that did not count, in milliseconds; doubles up to [`PAUSE_MS_MAX`].
const PAUSE_MS_MIN: u64 = 500;
/// Longest pause, in milliseconds: no worker is subscribed, and one may come at any time.
const PAUSE_MS_MAX: u64 = 30_000;
/// Doublings after which the pause no longer grows.
const UNSENT_MAX: u32 = 16;
/// What a sent escalation gets at least after a reconnect, in milliseconds: its resolution may wait in the session.
const RECONNECT_GRACE_MS: u64 = 5_000;

/// Fewest resolutions from which quantiles are taken.
const MEASURED_MIN: usize = 20;

/// How long recent resolutions took.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    took_ms: VecDeque<u64>,
}

impl Recent {
    /// A resolution came `ms` after its publish.
    pub fn add(&mut self, ms: u64) {
        if self.took_ms.len() == RECENT_MAX {
            self.took_ms.pop_front();
        }
        self.took_ms.push_back(ms);
    }

    /// How long to wait for a resolution, in milliseconds: the larger of `lease_ms_min` and 4 × p95.
    #[must_use]
    pub fn lease_ms(&self, lease_ms_min: u64) -> u64 {
        self.quantile(95).map_or(lease_ms_min, |p95| p95.saturating_mul(LEASE_FACTOR).max(lease_ms_min))
    }

    /// The median, in milliseconds; none before the first.
    #[must_use]
    pub fn typical_ms(&self) -> Option<u64> {
        self.quantile(50)
    }

    /// Median and nine in ten of them; before so many were seen that quantiles mean something, the median alone.
    #[must_use]
    pub fn interval(&self) -> Option<Interval> {
        let at = |percent| self.quantile(percent).map(|ms| ms as f64);
        let mid_ms = at(50)?;
        if self.took_ms.len() < MEASURED_MIN {
            return Some(Interval::exactly(mid_ms));
        }
        Some(Interval { low_ms: at(5)?, mid_ms, high_ms: at(95)? })
    }

    /// Nearest rank.
    fn quantile(&self, percent: usize) -> Option<u64> {
        let mut sorted: Vec<u64> = self.took_ms.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }
}

/// Where an escalation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// To be published, not before this moment.
    Waiting(Now),
    /// A publish is under way.
    Publishing,
    /// The central broker has it, until this moment nothing is done.
    Sent(Now),
}

/// What an escalation wants after time passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Be published.
    Publish,
    /// Nothing yet.
    Patience,
    /// It was sent as often as allowed, and nobody answered.
    GiveUp,
}

/// One escalation on its way.
#[derive(Debug, Clone, Copy)]
pub struct Leg {
    stand: Stand,
    attempt: u32,
    unsent: u32,
    first_sent: Option<Now>,
    last_sent: Option<Now>,
}

impl Leg {
    /// To be published for the first time.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self { stand: Stand::Waiting(now), attempt: 1, unsent: 0, first_sent: None, last_sent: None }
    }

    /// Number of the publish that is next, under way or sent.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the central broker has had it once.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.first_sent.is_some()
    }

    /// What it wants now, the link being up.
    #[must_use]
    pub fn want(&self, now: Now, limits: &Limits) -> Want {
        match self.stand {
            Stand::Waiting(from) if from <= now => Want::Publish,
            Stand::Sent(until) if until <= now && self.attempt > limits.escalation_attempts_max => Want::GiveUp,
            Stand::Sent(until) if until <= now => Want::Publish,
            Stand::Waiting(_) | Stand::Publishing | Stand::Sent(_) => Want::Patience,
        }
    }

    /// When it next wants something, the link being up.
    #[must_use]
    pub fn due(&self) -> Option<Now> {
        match self.stand {
            Stand::Waiting(at) | Stand::Sent(at) => Some(at),
            Stand::Publishing => None,
        }
    }

    /// It is being published; the number of the publish.
    pub fn publish(&mut self) -> u32 {
        if matches!(self.stand, Stand::Sent(_)) {
            self.attempt += 1;
        }
        self.stand = Stand::Publishing;
        self.attempt
    }

    /// The central broker acknowledged publish `attempt` with success.
    pub fn sent(&mut self, attempt: u32, now: Now, lease_ms: u64) {
        if self.stand != Stand::Publishing || attempt != self.attempt {
            return;
        }
        self.stand = Stand::Sent(now.after(lease_ms));
        self.unsent = 0;
        self.first_sent.get_or_insert(now);
        self.last_sent = Some(now);
    }

    /// Publish `attempt` did not count. The pause is at most the shortest lease, so that whoever comes to work has it
    /// within one.
    pub fn unsent(&mut self, attempt: u32, now: Now, lease_ms_min: u64) {
        if self.stand != Stand::Publishing || attempt != self.attempt {
            return;
        }
        let pause_ms = PAUSE_MS_MIN
            .checked_shl(self.unsent)
            .unwrap_or(PAUSE_MS_MAX)
            .min(PAUSE_MS_MAX)
            .min(lease_ms_min.max(PAUSE_MS_MIN));
        self.unsent = (self.unsent + 1).min(UNSENT_MAX);
        self.stand = Stand::Waiting(now.after(pause_ms));
    }

    /// The link is back: no pause any more, and time for the resolutions that waited in the session.
    pub fn link_up(&mut self, now: Now) {
        self.unsent = 0;
        self.stand = match self.stand {
            Stand::Waiting(_) => Stand::Waiting(now),
            Stand::Sent(until) => Stand::Sent(until.max(now.after(RECONNECT_GRACE_MS))),
            Stand::Publishing => Stand::Publishing,
        };
    }

    /// How long the resolution of publish `attempt` took; none where the publish was never acknowledged.
    #[must_use]
    pub fn took_ms(&self, attempt: u32, now: Now) -> Option<u64> {
        let from = if attempt == self.attempt { self.last_sent } else { self.first_sent };
        from.map(|at| now.since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_four_times_the_p95_and_never_under_the_minimum() {
        let check = |took: &[u64], expect: u64| {
            let mut recent = Recent::default();
            took.iter().for_each(|ms| recent.add(*ms));
            assert_eq!(recent.lease_ms(30_000), expect, "{took:?}");
        };
        check(&[], 30_000);
        check(&[100], 30_000);
        check(&[10_000], 40_000);
        check(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19_000, 90_000], 76_000);
        let old_then_new: Vec<u64> = [[90_000; 64], [100; 64]].concat();
        check(&old_then_new, 30_000);
    }

    #[test]
    fn the_median_tells_what_is_typical() {
        let mut recent = Recent::default();
        assert_eq!(recent.typical_ms(), None);
        [5, 1, 9].iter().for_each(|ms| recent.add(*ms));
        assert_eq!(recent.typical_ms(), Some(5));
    }

    #[test]
    fn silence_repeats_three_times_and_then_gives_up() {
        let limits = Limits::default();
        let mut leg = Leg::new(Now(0));
        let mut now = Now(0);
        for attempt in 1..=4 {
            assert_eq!(leg.want(now, &limits), Want::Publish);
            assert_eq!(leg.publish(), attempt);
            assert_eq!(leg.want(now, &limits), Want::Patience);
            leg.sent(attempt, now, 30_000);
            assert_eq!(leg.want(now.after(29_999), &limits), Want::Patience);
            now = now.after(30_000);
        }
        assert_eq!(leg.want(now, &limits), Want::GiveUp);
    }

    #[test]
    fn what_did_not_count_keeps_its_number_and_pauses_longer_each_time() {
        let limits = Limits::default();
        let mut leg = Leg::new(Now(0));
        for pause_ms in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(leg.publish(), 1);
            leg.unsent(1, Now(0), 60_000);
            assert_eq!(leg.due(), Some(Now(pause_ms)));
            assert_eq!(leg.want(Now(pause_ms - 1), &limits), Want::Patience);
            assert_eq!(leg.want(Now(pause_ms), &limits), Want::Publish);
        }
        assert!(!leg.was_sent());
        leg.link_up(Now(7));
        assert_eq!(leg.want(Now(7), &limits), Want::Publish);
    }

    #[test]
    fn no_pause_is_longer_than_the_shortest_lease() {
        let mut leg = Leg::new(Now(0));
        for pause_ms in [500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            leg.publish();
            leg.unsent(1, Now(0), 5_000);
            assert_eq!(leg.due(), Some(Now(pause_ms)));
        }
    }

    #[test]
    fn reports_of_another_publish_change_nothing() {
        let mut leg = Leg::new(Now(0));
        leg.publish();
        leg.sent(2, Now(1), 10);
        leg.unsent(2, Now(1), 30_000);
        assert_eq!(leg.due(), None);
        leg.sent(1, Now(5), 10);
        leg.unsent(1, Now(6), 30_000);
        assert_eq!(leg.due(), Some(Now(15)));
    }

    #[test]
    fn a_reconnect_leaves_time_for_what_waited_in_the_session() {
        let mut leg = Leg::new(Now(0));
        leg.publish();
        leg.sent(1, Now(0), 30_000);
        leg.link_up(Now(100_000));
        assert_eq!(leg.due(), Some(Now(105_000)));
        leg.link_up(Now(101_000));
        assert_eq!(leg.due(), Some(Now(106_000)));
    }

    #[test]
    fn a_resolution_is_timed_from_its_own_publish() {
        let mut leg = Leg::new(Now(0));
        assert_eq!(leg.took_ms(1, Now(9)), None);
        leg.publish();
        leg.sent(1, Now(10), 30);
        leg.publish();
        leg.sent(2, Now(40), 30);
        assert_eq!(leg.took_ms(2, Now(45)), Some(5));
        assert_eq!(leg.took_ms(1, Now(45)), Some(35));
    }
}
