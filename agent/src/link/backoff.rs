//! How long to wait before the next try: decorrelated jitter, so that a site's gateways do not come back in step.

use std::time::{Duration, Instant};

/// Grows from `least` to `most` and starts anew only after something held for `stable`.
#[derive(Debug)]
pub(crate) struct Backoff {
    least: Duration,
    most: Duration,
    stable: Duration,
    last: Duration,
    since: Option<Instant>,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(crate) fn new(least: Duration, most: Duration, stable: Duration) -> Self {
        Self { least, most, stable, last: least, since: None }
    }

    /// It works, from now on.
    pub(crate) fn works(&mut self) {
        self.since = Some(Instant::now());
    }

    /// It failed: how long to wait.
    pub(crate) fn next(&mut self) -> Duration {
        if self.since.take().is_some_and(|since| since.elapsed() >= self.stable) {
            self.last = self.least;
        }
        self.last = grown(self.last, self.least, self.most, random_share());
        self.last
    }
}

/// Between `least` and three times the last wait, at most `most`.
fn grown(last: Duration, least: Duration, most: Duration, share: f64) -> Duration {
    let span = last.saturating_mul(3).saturating_sub(least);
    (least + span.mul_f64(share)).min(most)
}

/// 0 to 1. Without randomness every try waits the mean: slower to spread, never wrong.
fn random_share() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn grows_within_its_bounds() {
        let (least, most) = (Duration::from_millis(500), Duration::from_secs(30));
        assert_eq!(grown(least, least, most, 0.0), least);
        assert_eq!(grown(least, least, most, 1.0), Duration::from_millis(1500));
        assert_eq!(grown(Duration::from_secs(20), least, most, 1.0), most);
        let mut backoff = Backoff::new(least, most, Duration::from_secs(10));
        for _ in 0..100 {
            let wait = backoff.next();
            assert!(wait >= least && wait <= most, "{wait:?}");
        }
    }

    #[test]
    fn starts_anew_only_after_it_held() {
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut backoff = Backoff::new(least, most, Duration::ZERO);
        backoff.last = most;
        backoff.works();
        assert!(backoff.next() <= Duration::from_secs(3));
        let mut backoff = Backoff::new(least, most, Duration::from_secs(3600));
        backoff.last = most;
        backoff.works();
        backoff.next();
        assert!(backoff.last >= least);
        assert!(backoff.since.is_none());
    }
}
