//! Recalibration while running: every escalation and every audit brings the cloud's answer, a label for ours. A line
//! over the log-odds of the shipped confidence is moved in small steps (a discounted Newton step per label, pulled back
//! to the shipped line as evidence fades). Where labels show that answers are wrong more often than said, a cumulative
//! sum (Page 1954) raises the alarm and confidence is lowered until it is true again.
//!
//! Invariants: without labels the shipped confidence holds; the corrected one is finite, in 0..=1, and grows with the
//! shipped one; a state from a file is checked.

use crate::confidence::Confidence;
use crate::logistic::sigmoid;

/// What a label from so many labels ago still counts: half after 700.
const FADING: f64 = 0.999;
/// Evidence that holds the line where it was shipped, in labels.
const ANCHOR: f64 = 30.0;
/// Slope stays between these, so that a surer answer stays surer.
const SLOPE: (f64, f64) = (0.2, 3.0);
/// Offset stays within this, in log-odds.
const OFFSET_MAX: f64 = 6.0;
/// Excess of errors per label that is chance.
const SLACK: f64 = 0.3;
/// Excess of errors, summed, at which the alarm is raised: some dozen errors more than said; by chance once in some thousand labels.
const ALARM: f64 = 10.0;
/// How much the confidence is lowered under alarm, in log-odds.
const CAUTION: f64 = 0.4;
/// Confidence is taken no nearer to 0 or 1 than this.
const EPSILON: f64 = 1e-4;

/// Whether answers are wrong more often than said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// No.
    Calm,
    /// Yes: confidence is lowered.
    Alarm,
}

/// With which probability a kept answer of this confidence is audited, where at most this share of them is. An audit
/// costs as much as any escalation and teaches the more the less was certain before: its chance follows the standard
/// deviation of the label (Neyman's allocation), and the label weighs as many answers as it stands for.
#[must_use]
pub fn audit_chance(confidence: Confidence, share: f64) -> f64 {
    let p = confidence.get().clamp(EPSILON, 1.0 - EPSILON);
    (share * 2.0 * (p * (1.0 - p)).sqrt()).clamp(0.0, 1.0)
}

/// What was learned of one model and task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learner {
    offset: f64,
    slope: f64,
    /// Upper triangle of the evidence: offset × offset, offset × slope, slope × slope.
    evidence: [f64; 3],
    excess: f64,
    drift: Drift,
    labels: u64,
}

impl Default for Learner {
    fn default() -> Self {
        let evidence = [ANCHOR / 4.0, 0.0, ANCHOR];
        Self { offset: 0.0, slope: 1.0, evidence, excess: 0.0, drift: Drift::Calm, labels: 0 }
    }
}

impl Learner {
    /// From a file: offset, slope, three numbers of evidence, excess, and the count of labels; none where they cannot be
    /// the state of a learner.
    #[must_use]
    pub fn from_parts(parts: [f64; 6], labels: u64) -> Option<Self> {
        let [offset, slope, a, b, c, excess] = parts;
        let finite = parts.iter().all(|part| part.is_finite());
        let sound = offset.abs() <= OFFSET_MAX && (SLOPE.0..=SLOPE.1).contains(&slope) && excess >= 0.0;
        let definite = a > 0.0 && c > 0.0 && a * c > b * b;
        let drift = if excess > ALARM { Drift::Alarm } else { Drift::Calm };
        (finite && sound && definite).then_some(Self { offset, slope, evidence: [a, b, c], excess, drift, labels })
    }

    /// Its state, for a file.
    #[must_use]
    pub fn parts(&self) -> ([f64; 6], u64) {
        let [a, b, c] = self.evidence;
        ([self.offset, self.slope, a, b, c, self.excess], self.labels)
    }

    /// Labels so far.
    #[must_use]
    pub fn labels(&self) -> u64 {
        self.labels
    }

    /// Whether answers are wrong more often than said.
    #[must_use]
    pub fn drift(&self) -> Drift {
        self.drift
    }

    /// The confidence as the labels have corrected it.
    #[must_use]
    pub fn correct(&self, shipped: Confidence) -> Confidence {
        let caution = if self.drift == Drift::Alarm { CAUTION } else { 0.0 };
        Confidence::new(sigmoid(self.line(shipped) - caution))
    }

    fn line(&self, shipped: Confidence) -> f64 {
        self.offset + self.slope * log_odds(shipped)
    }

    /// A label for an answer of that shipped confidence; an audited one stands for `weight` that nobody looked at.
    pub fn learn(&mut self, shipped: Confidence, right: bool, weight: f64) {
        let weight = if weight.is_finite() { weight.clamp(0.0, WEIGHT_MAX) } else { 0.0 };
        let x = log_odds(shipped);
        let p = sigmoid(self.line(shipped));
        let error = f64::from(u8::from(right)) - p;
        self.watch(p, error);
        self.labels = self.labels.saturating_add(1);
        self.fade();
        let curve = weight * (p * (1.0 - p)).max(1e-3);
        self.evidence[0] += curve;
        self.evidence[1] += curve * x;
        self.evidence[2] += curve * x * x;
        let [a, b, c] = self.evidence;
        let determinant = (a * c - b * b).max(f64::MIN_POSITIVE);
        let (first, second) = (weight * error, weight * error * x);
        self.offset = (self.offset + (c * first - b * second) / determinant).clamp(-OFFSET_MAX, OFFSET_MAX);
        self.slope = (self.slope + (a * second - b * first) / determinant).clamp(SLOPE.0, SLOPE.1);
    }

    /// Old evidence gives way to the anchor, and the line drifts back with it.
    fn fade(&mut self) {
        let anchor = Self::default();
        for (evidence, rest) in self.evidence.iter_mut().zip(anchor.evidence) {
            *evidence = FADING * *evidence + (1.0 - FADING) * rest;
        }
        let pull = (1.0 - FADING) * ANCHOR / (ANCHOR + self.evidence[0]);
        self.offset -= pull * self.offset;
        self.slope -= pull * (self.slope - anchor.slope);
    }

    /// Sums errors beyond what was said, and forgets what chance explains.
    fn watch(&mut self, p: f64, error: f64) {
        let spread = (p * (1.0 - p)).sqrt().max(0.05);
        self.excess = (self.excess - error / spread.max(0.3) - SLACK).clamp(0.0, 3.0 * ALARM);
        self.drift = match self.drift {
            Drift::Calm if self.excess > ALARM => Drift::Alarm,
            Drift::Alarm if self.excess < ALARM / 4.0 => Drift::Calm,
            same => same,
        };
    }
}

/// An audited answer stands for no more than so many, or one label would move the line by leaps.
pub const WEIGHT_MAX: f64 = 5.0;

fn log_odds(confidence: Confidence) -> f64 {
    let p = confidence.get().clamp(EPSILON, 1.0 - EPSILON);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Labels of a world in which the true log-odds are `offset` beside the shipped ones.
    fn taught(learner: &mut Learner, count: usize, offset: f64, random: &mut StdRng) {
        for _ in 0..count {
            let shipped = Confidence::new(random.random_range(0.05..0.98));
            let right = random.random_bool(sigmoid(log_odds(shipped) + offset));
            learner.learn(shipped, right, 1.0);
        }
    }

    #[test]
    fn without_labels_the_shipped_confidence_holds() {
        for c in [0.1, 0.5, 0.97] {
            assert!((Learner::default().correct(Confidence::new(c)).get() - c).abs() < 1e-9);
        }
        assert!(Learner::default().correct(Confidence::new(0.0)).get() < 1e-3);
    }

    #[test]
    fn true_labels_change_little_and_raise_no_alarm() {
        let mut random = StdRng::seed_from_u64(1);
        let mut learner = Learner::default();
        let mut alarms = 0;
        for _ in 0..40 {
            taught(&mut learner, 100, 0.0, &mut random);
            alarms += usize::from(learner.drift() == Drift::Alarm);
        }
        assert!((learner.correct(Confidence::new(0.8)).get() - 0.8).abs() < 0.06, "{learner:?}");
        assert!(alarms <= 2, "{alarms} alarms");
    }

    #[test]
    fn a_drift_is_noticed_then_learned_and_forgotten_again() {
        let mut random = StdRng::seed_from_u64(2);
        let mut learner = Learner::default();
        taught(&mut learner, 60, -2.5, &mut random);
        assert_eq!(learner.drift(), Drift::Alarm, "{learner:?}");
        taught(&mut learner, 1_500, -2.5, &mut random);
        let got = learner.correct(Confidence::new(0.9)).get();
        assert!((got - sigmoid(9.0_f64.ln() - 2.5)).abs() < 0.1, "{got} {learner:?}");
        assert_eq!(learner.drift(), Drift::Calm);
        taught(&mut learner, 4_000, 0.0, &mut random);
        assert!((learner.correct(Confidence::new(0.9)).get() - 0.9).abs() < 0.05, "{learner:?}");
    }

    #[test]
    fn audits_go_where_they_teach() {
        let chance = |c: f64| audit_chance(Confidence::new(c), 0.01);
        assert!((chance(0.5) - 0.01).abs() < 1e-9 && chance(0.5) > chance(0.8) && chance(0.8) > chance(0.99));
        assert!(chance(1.0) > 0.0 && audit_chance(Confidence::new(0.7), 0.0) == 0.0);
    }

    #[test]
    fn a_state_comes_back_whole_and_a_broken_one_does_not() {
        let mut random = StdRng::seed_from_u64(3);
        let mut learner = Learner::default();
        taught(&mut learner, 300, -1.0, &mut random);
        let (parts, labels) = learner.parts();
        let back = Learner::from_parts(parts, labels).unwrap();
        assert_eq!(back.correct(Confidence::new(0.7)), learner.correct(Confidence::new(0.7)));
        for broken in 0..parts.len() {
            let mut parts = parts;
            parts[broken] = f64::NAN;
            assert_eq!(Learner::from_parts(parts, labels), None);
        }
        assert_eq!(Learner::from_parts([0.0, 1.0, -1.0, 0.0, 1.0, 0.0], 0), None);
    }

    proptest! {
        #[test]
        fn whatever_is_taught_a_surer_answer_stays_surer(labels in prop::collection::vec((0.0..=1.0_f64, any::<bool>(), 0.0..50.0_f64), 0..400)) {
            let mut learner = Learner::default();
            for (c, right, weight) in labels {
                learner.learn(Confidence::new(c), right, weight);
            }
            let (low, high) = (learner.correct(Confidence::new(0.3)), learner.correct(Confidence::new(0.9)));
            prop_assert!(low < high, "{low:?} {high:?}");
            let (parts, count) = learner.parts();
            prop_assert!(Learner::from_parts(parts, count).is_some(), "{parts:?}");
        }
    }
}
