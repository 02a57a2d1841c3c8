//! Whether a link that seems up is alive. Pure: every moment comes from the caller.
//!
//! Three signs of death: nothing at all came for two and a half keep-alives; the oldest publish is not acknowledged; the
//! canary, a small publish to a topic of our own that we subscribe, did not come back although the broker answers pings.

use std::time::{Duration, Instant};

/// Longest wait for an acknowledgement or the canary on a link that never stalled.
const PATIENCE_LEAST: Duration = Duration::from_secs(8);
/// Longest wait ever: beyond it a link is of no use to prompts.
const PATIENCE_MOST: Duration = Duration::from_secs(128);

/// How long this broker is waited for. Outlives connections: a link that is slow but moves must not be cut for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience(Duration);

impl Patience {
    /// For a link of which nothing is known; never shorter than the silence that pings find.
    pub(super) fn new(keep_alive: Duration) -> Self {
        Self(PATIENCE_LEAST.max(keep_alive))
    }

    /// A connection ended with nothing acknowledged: the next one gets twice the time.
    pub(super) fn grow(&mut self) {
        self.0 = (self.0 * 2).min(PATIENCE_MOST);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Canary {
    /// None is under way; the next one leaves at this moment.
    Home(Instant),
    /// Left at this moment; gone out under this number.
    Out { number: u64, since: Instant },
}

/// The watch over one connection.
#[derive(Debug)]
pub(super) struct Watch {
    silence_max: Duration,
    patience: Patience,
    every: Duration,
    heard: Instant,
    canary: Canary,
    numbers: u64,
    /// Whether a canary has come back on this connection. Where our rights do not let us hear it, and a broker may say
    /// nothing of that in its SUBACK, its acknowledgement has to do.
    returns: bool,
}

impl Watch {
    /// Over a connection that is being made.
    pub(super) fn new(keep_alive: Duration, every: Duration, patience: Patience, now: Instant) -> Self {
        let silence_max = keep_alive * 5 / 2;
        Self { silence_max, patience, every, heard: now, canary: Canary::Home(now + every), numbers: 0, returns: false }
    }

    /// Something came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The broker took us: the first canary leaves at once, to learn whether we can hear it.
    pub(super) fn taken(&mut self, now: Instant) {
        self.canary = Canary::Home(now);
    }

    /// The number under which a canary is to leave now, if one is due.
    pub(super) fn release(&mut self, now: Instant) -> Option<u64> {
        match self.canary {
            Canary::Home(at) if at <= now => {
                self.numbers += 1;
                self.canary = Canary::Out { number: self.numbers, since: now };
                Some(self.numbers)
            }
            Canary::Home(_) | Canary::Out { .. } => None,
        }
    }

    /// The broker acknowledged the canary; where it does not let us hear it, that has to do.
    pub(super) fn acknowledged(&mut self, now: Instant) {
        if !self.returns {
            self.canary = Canary::Home(now + self.every);
        }
    }

    /// A canary came back; an old one says nothing about this connection.
    pub(super) fn returned(&mut self, number: u64, now: Instant) {
        self.returns |= number == self.numbers;
        if matches!(self.canary, Canary::Out { number: out, .. } if out == number) {
            self.canary = Canary::Home(now + self.every);
        }
    }

    /// When to look again, `oldest` being how long the oldest publish waits.
    pub(super) fn next(&self, oldest: Option<Duration>, now: Instant) -> Instant {
        let canary = match self.canary {
            Canary::Home(at) => at,
            Canary::Out { since, .. } => since + self.patience.0,
        };
        let silence = self.heard + self.silence_max;
        let publish = oldest.map_or(silence, |waited| now + self.patience.0.saturating_sub(waited));
        canary.min(silence).min(publish)
    }

    /// What shows that the link is dead, if anything does.
    pub(super) fn death(&self, oldest: Option<Duration>, now: Instant) -> Option<String> {
        if let Some(waited) = oldest.filter(|waited| *waited >= self.patience.0) {
            return Some(format!("a publish was not acknowledged for {} s", waited.as_secs()));
        }
        if let Canary::Out { since, .. } = self.canary
            && now.duration_since(since) >= self.patience.0
        {
            return Some(format!("the canary did not come back within {} s", self.patience.0.as_secs()));
        }
        let silence = now.duration_since(self.heard);
        (silence >= self.silence_max).then(|| format!("the broker was silent for {} s", silence.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(10);
    const EVERY: Duration = Duration::from_secs(30);

    fn watch(now: Instant) -> Watch {
        Watch::new(KEEP_ALIVE, EVERY, Patience::new(Duration::from_secs(5)), now)
    }

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_death_and_a_word_is_life() {
        let now = Instant::now();
        let mut watch = watch(now);
        assert_eq!(watch.death(None, after(now, 24)), None);
        assert!(watch.death(None, after(now, 25)).is_some_and(|why| why.contains("silent for 25 s")));
        watch.heard(after(now, 20));
        assert_eq!(watch.death(None, after(now, 44)), None);
        assert_eq!(watch.next(None, after(now, 20)), after(now, 30), "the canary is due first");
    }

    #[test]
    fn pings_do_not_hide_a_publish_that_nobody_acknowledges() {
        let now = Instant::now();
        let mut watch = watch(now);
        watch.heard(after(now, 7));
        assert_eq!(watch.death(Some(Duration::from_secs(7)), after(now, 7)), None);
        assert_eq!(watch.next(Some(Duration::from_secs(7)), after(now, 7)), after(now, 8));
        assert!(watch.death(Some(Duration::from_secs(8)), after(now, 8)).is_some());
    }

    #[test]
    fn a_canary_that_does_not_come_back_is_death_although_it_was_acknowledged() {
        let now = Instant::now();
        let mut watch = watch(now);
        watch.taken(now);
        assert_eq!(watch.release(now), Some(1));
        watch.acknowledged(now);
        watch.returned(1, now);
        assert_eq!(watch.release(after(now, 29)), None);
        assert_eq!(watch.release(after(now, 30)), Some(2));
        watch.heard(after(now, 37));
        watch.acknowledged(after(now, 31));
        watch.returned(1, after(now, 32));
        assert!(watch.death(None, after(now, 38)).is_some_and(|why| why.contains("canary")));
        watch.returned(2, after(now, 38));
        assert_eq!(watch.death(None, after(now, 38)), None);
        assert_eq!(watch.release(after(now, 68)), Some(3));
    }

    #[test]
    fn where_the_canary_may_not_be_heard_its_acknowledgement_has_to_do() {
        let now = Instant::now();
        let mut watch = watch(now);
        assert_eq!(watch.release(after(now, 30)), Some(1));
        watch.heard(after(now, 31));
        watch.acknowledged(after(now, 31));
        assert_eq!(watch.death(None, after(now, 40)), None);
    }

    #[test]
    fn a_link_that_moves_slowly_gets_more_time() {
        let mut patience = Patience::new(Duration::from_secs(5));
        patience.grow();
        assert_eq!(patience, Patience(Duration::from_secs(16)));
        (0..9).for_each(|_| patience.grow());
        assert_eq!(patience, Patience(PATIENCE_MOST));
        assert_eq!(Patience::new(Duration::from_secs(60)), Patience(Duration::from_secs(60)));
    }
}
