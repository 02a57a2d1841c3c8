//! What asking the cloud is worth: not doubt alone, but how often it mends a wrong answer and how often it breaks a
//! right one. Decomposed as P(wrong) × P(cloud right | wrong) − P(right) × P(cloud wrong | right), since a direct
//! regression of the difference overfits (Jitkrittum et al. 2023). Invariants: rates lie in 0..1; evidence fades, so
//! that a better model in the cloud is noticed.

use crate::confidence::Confidence;

/// What is believed before any evidence, in answers: the cloud mends seven in ten and breaks one in twenty.
const MENDS: (f64, f64) = (7.0, 10.0);
const BREAKS: (f64, f64) = (1.0, 20.0);
/// Evidence beyond so many answers fades out.
const EVIDENCE_MAX: f64 = 2_000.0;
/// Fewest answers from which the rates are taken as measured.
const MEASURED_MIN: f64 = 100.0;
/// A resolution replaces an answer only where it is surer by at least this: equal confidence is no reason to change.
const SURER_BY: f64 = 0.0;

/// Yes out of all, faded.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    yes: f64,
    all: f64,
}

impl Rate {
    fn get(self) -> f64 {
        self.yes / self.all
    }

    fn add(&mut self, yes: f64, all: f64) {
        self.yes += yes;
        self.all += all;
        let fade = (EVIDENCE_MAX / self.all).min(1.0);
        self.yes *= fade;
        self.all *= fade;
    }

    fn sound(self) -> bool {
        self.yes.is_finite() && self.all.is_finite() && self.all > 0.0 && (0.0..=self.all).contains(&self.yes)
    }
}

/// How often the cloud mended and how often it broke an answer of one task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    mends: Rate,
    breaks: Rate,
}

impl Default for Gain {
    fn default() -> Self {
        let rate = |(yes, all): (f64, f64)| Rate { yes, all };
        Self { mends: rate(MENDS), breaks: rate(BREAKS) }
    }
}

impl Gain {
    /// From labelled answers of both: (gateway right, cloud right).
    #[must_use]
    pub fn measured(pairs: &[(bool, bool)]) -> Self {
        let mut gain = Self::default();
        for (edge, cloud) in pairs {
            if *edge { gain.breaks.add(truth(!cloud), 1.0) } else { gain.mends.add(truth(*cloud), 1.0) }
        }
        gain
    }

    /// From a file: (yes, all) of mends, then of breaks; none where these are no counts.
    #[must_use]
    pub fn from_parts(mends: (f64, f64), breaks: (f64, f64)) -> Option<Self> {
        let rate = |(yes, all): (f64, f64)| Rate { yes, all };
        let gain = Self { mends: rate(mends), breaks: rate(breaks) };
        (gain.mends.sound() && gain.breaks.sound()).then_some(gain)
    }

    /// (yes, all) of mends, then of breaks.
    #[must_use]
    pub fn parts(&self) -> ((f64, f64), (f64, f64)) {
        ((self.mends.yes, self.mends.all), (self.breaks.yes, self.breaks.all))
    }

    /// P(cloud right | gateway wrong).
    #[must_use]
    pub fn mends(&self) -> f64 {
        self.mends.get()
    }

    /// P(cloud wrong | gateway right).
    #[must_use]
    pub fn breaks(&self) -> f64 {
        self.breaks.get()
    }

    /// Whether enough is known to act on it: what is only believed beforehand overrules nobody's threshold.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.mends.all + self.breaks.all >= MENDS.1 + BREAKS.1 + MEASURED_MIN
    }

    /// Expected change of P(right) by the hop, -1 to 1.
    #[must_use]
    pub fn of(&self, confidence: Confidence) -> f64 {
        let right = confidence.get();
        (1.0 - right) * self.mends() - right * self.breaks()
    }

    /// Learns from a resolution: whether the answers agree, how sure the gateway was and how sure the cloud is. Nobody
    /// knows the truth then: an agreement is right as often as the surer of both says, of two different answers at most
    /// one is right.
    pub fn learn(&mut self, agree: bool, edge: Confidence, cloud: Option<f64>) {
        let cloud = cloud.map_or(1.0, |c| Confidence::new(c).get());
        if agree {
            let right = edge.get().max(cloud);
            self.mends.add(0.0, 1.0 - right);
            self.breaks.add(0.0, right);
            return;
        }
        let edge_right = edge.get() * (1.0 - cloud);
        let cloud_right = cloud * (1.0 - edge.get());
        let neither = (1.0 - edge.get()) * (1.0 - cloud);
        let all = (edge_right + cloud_right + neither).max(f64::MIN_POSITIVE);
        self.mends.add(cloud_right / all, (cloud_right + neither) / all);
        self.breaks.add(edge_right / all, edge_right / all);
    }
}

fn truth(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// Whether the cloud's answer replaces ours: not when it is less sure. A cloud that says nothing about its confidence is
/// taken at its word.
#[must_use]
pub fn replaces(ours: Option<f64>, clouds: Option<f64>) -> bool {
    match (ours, clouds) {
        (Some(ours), Some(clouds)) => Confidence::new(clouds).get() >= Confidence::new(ours).get() + SURER_BY,
        _ => true,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubt_alone_is_no_reason() {
        let sure = Confidence::new(0.99);
        let doubtful = Confidence::new(0.3);
        let good = Gain::measured(&[(false, true), (true, true)].repeat(500));
        assert!(good.of(doubtful) > 0.5 && good.of(sure) < 0.02, "{good:?}");
        // A cloud that is wrong wherever the gateway is wrong.
        let useless = Gain::measured(&[(false, false), (true, true), (true, false)].repeat(500));
        assert!(useless.of(doubtful) < 0.0, "{useless:?}");
    }

    #[test]
    fn a_less_sure_resolution_does_not_replace() {
        assert!(replaces(Some(0.4), Some(0.9)));
        assert!(!replaces(Some(0.9), Some(0.4)));
        assert!(replaces(Some(0.4), None));
        assert!(replaces(None, Some(0.1)));
        assert!(!replaces(Some(0.4), Some(f64::NAN)));
    }

    #[test]
    fn evidence_fades_and_a_better_cloud_is_noticed() {
        let mut gain = Gain::measured(&vec![(false, false); 10_000]);
        assert!(gain.mends() < 0.01);
        for _ in 0..4_000 {
            gain.learn(false, Confidence::new(0.1), Some(0.99));
        }
        assert!(gain.mends() > 0.6, "{gain:?}");
    }

    #[test]
    fn counts_that_are_none_are_refused() {
        assert_eq!(Gain::from_parts((f64::NAN, 1.0), (0.0, 1.0)), None);
        assert_eq!(Gain::from_parts((2.0, 1.0), (0.0, 1.0)), None);
        assert_eq!(Gain::from_parts((0.0, 0.0), (0.0, 1.0)), None);
        let (mends, breaks) = Gain::default().parts();
        assert_eq!(Gain::from_parts(mends, breaks), Some(Gain::default()));
    }

    proptest! {
        #[test]
        fn rates_stay_rates(steps in prop::collection::vec((any::<bool>(), 0.0..=1.0_f64, 0.0..=1.0_f64), 0..300)) {
            let mut gain = Gain::default();
            for (agree, edge, cloud) in steps {
                gain.learn(agree, Confidence::new(edge), Some(cloud));
            }
            prop_assert!((0.0..=1.0).contains(&gain.mends()) && (0.0..=1.0).contains(&gain.breaks()), "{gain:?}");
        }
    }
}
