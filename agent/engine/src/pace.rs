//! Whether this machine has become slower for good: heat, a short supply of power, a neighbour.
//!
//! Invariants: only steps count in which each sequence wrote one token and nothing else was computed, and each number of
//! sequences is held against the best of its own; a fall is said once, and its end once.

use std::time::{Duration, Instant};

/// Weight of the latest step in the mean of its size: half of what is remembered is 11 steps old.
const LATEST: f64 = 1.0 / 16.0;
/// Steps of one size before its mean counts.
const STEPS_MIN: u32 = 12;
/// Share of the expected speed under which a machine has fallen: heat and a short supply of power halve the clock, a busy
/// neighbour on one of two cores takes about as much.
const FALLEN: f64 = 0.6;
/// Share from which it has recovered.
const RECOVERED: f64 = 0.8;
/// How long a fall lasts before it is said: a backup or an update is over by then.
const LASTING: Duration = Duration::from_secs(60);
/// Longest time without a step of the same size: what lies before says nothing of a fall that lasts.
const SILENCE: Duration = Duration::from_secs(30);

/// A change that lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It writes at this share of its expected speed, in percent.
    Fallen(u8),
    /// It is about as fast as before.
    Recovered,
}

/// Times of steps.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// By the number of sequences less one.
    sizes: Vec<Size>,
    /// Since when, and until when, it was seen to be slow without a break.
    slow: Option<(Instant, Instant)>,
    told: bool,
}

/// Steps of one size.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    mean_s: f64,
    /// The least mean so far: what this machine can do.
    best_s: f64,
    steps: u32,
}

impl Size {
    fn add(&mut self, took: Duration) {
        let weight = LATEST.max(1.0 / f64::from(self.steps.saturating_add(1)));
        self.mean_s += weight * (took.as_secs_f64() - self.mean_s);
        self.steps = self.steps.saturating_add(1);
        if self.is_known() && (self.best_s == 0.0 || self.mean_s < self.best_s) {
            self.best_s = self.mean_s;
        }
    }

    fn is_known(&self) -> bool {
        self.steps >= STEPS_MIN
    }

    /// Its speed as a share of what was expected of it.
    fn share(&self) -> Option<f64> {
        (self.is_known() && self.mean_s > 0.0).then(|| self.best_s / self.mean_s)
    }
}

impl Pace {
    /// A step in which so many sequences wrote one token each, and nothing else was computed; a change that lasted.
    pub(crate) fn step(&mut self, sequences: usize, took: Duration, now: Instant) -> Option<Turn> {
        let at = sequences.checked_sub(1)?;
        if self.sizes.len() <= at {
            self.sizes.resize(at + 1, Size::default());
        }
        self.sizes[at].add(took);
        let share = self.sizes[at].share()?;
        if share >= if self.told { RECOVERED } else { FALLEN } {
            self.slow = None;
            return std::mem::take(&mut self.told).then_some(Turn::Recovered);
        }
        let begin = self.slow.filter(|(_, seen)| now.duration_since(*seen) <= SILENCE).map_or(now, |(begin, _)| begin);
        self.slow = Some((begin, now));
        if self.told || now.duration_since(begin) < LASTING {
            return None;
        }
        self.told = true;
        Some(Turn::Fallen((share * 100.0).round() as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(step_ms: &[u64]) -> Pace {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for (n, ms) in (1..).zip(step_ms) {
            (0..STEPS_MIN).for_each(|_| assert_eq!(pace.step(n, Duration::from_millis(*ms), now), None));
        }
        pace
    }

    /// Steps of one sequence for so many seconds; what was said, and after how many of them.
    fn run(pace: &mut Pace, now: &mut Instant, step_ms: u64, seconds: u64) -> Vec<(u64, Turn)> {
        let begin = *now;
        let mut said = Vec::new();
        while *now < begin + Duration::from_secs(seconds) {
            *now += Duration::from_millis(step_ms);
            let turn = pace.step(1, Duration::from_millis(step_ms), *now);
            said.extend(turn.map(|turn| ((*now - begin).as_secs(), turn)));
        }
        said
    }

    #[test]
    fn a_fall_is_said_when_it_lasts_and_once() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        assert!(run(&mut pace, &mut now, 20, 60).is_empty());
        assert!(run(&mut pace, &mut now, 50, 50).is_empty(), "it may be over soon");
        assert!(run(&mut pace, &mut now, 20, 10).is_empty());
        let said = run(&mut pace, &mut now, 50, 300);
        assert!(matches!(said[..], [(60..=62, Turn::Fallen(40..=42))]), "{said:?}");
        let said = run(&mut pace, &mut now, 20, 300);
        assert!(matches!(said[..], [(0..=2, Turn::Recovered)]), "{said:?}");
    }

    #[test]
    fn pauses_do_not_make_a_fall_last() {
        let (mut pace, mut now) = (of(&[20]), Instant::now());
        for _ in 0..20 {
            assert!(run(&mut pace, &mut now, 60, 5).is_empty());
            now += Duration::from_secs(40);
        }
    }

    #[test]
    fn steps_of_each_size_are_held_against_their_own_best() {
        let mut pace = of(&[20, 60]);
        let mut now = Instant::now();
        // Two sequences together always took so long.
        for _ in 0..2_000 {
            now += Duration::from_millis(60);
            assert_eq!(pace.step(2, Duration::from_millis(60), now), None);
        }
        assert!(matches!(run(&mut pace, &mut now, 100, 80)[..], [(60..=62, Turn::Fallen(20))]));
    }
}
