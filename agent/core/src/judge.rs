//! How good a confidence is: calibration error, risk over coverage, accuracy over escalated share. Ties are shared out:
//! among equal scores nobody knows an order, so none is pretended. All figures are shares, 0 to 1.

/// A confidence and whether the answer was right.
pub type Verdict = (f64, bool);

/// Bins of the calibration error, unless the caller says otherwise.
pub const BINS: usize = 15;

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Mean confidence.
    pub confidence: f64,
    /// Share of right answers.
    pub right: f64,
    /// Answers.
    pub count: usize,
}

/// Bins of equal mass, from the least sure to the surest; fewer where there are fewer answers.
#[must_use]
pub fn reliability(verdicts: &[Verdict], bins: usize) -> Vec<Bin> {
    let mut sorted = verdicts.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let edge = |i: usize| i * sorted.len() / bins.max(1);
    let parts = (0..bins.max(1)).map(|i| &sorted[edge(i)..edge(i + 1)]).filter(|part| !part.is_empty());
    let bin = |part: &[Verdict]| {
        let n = part.len() as f64;
        Bin {
            confidence: part.iter().map(|v| v.0).sum::<f64>() / n,
            right: part.iter().filter(|v| v.1).count() as f64 / n,
            count: part.len(),
        }
    };
    parts.map(bin).collect()
}

/// Expected calibration error over bins of equal mass: the mean distance of confidence and share of right answers.
#[must_use]
pub fn calibration_error(verdicts: &[Verdict], bins: usize) -> f64 {
    let total = verdicts.len().max(1) as f64;
    reliability(verdicts, bins).iter().map(|b| b.count as f64 / total * (b.confidence - b.right).abs()).sum()
}

/// Mean squared distance of confidence and verdict.
#[must_use]
pub fn brier(verdicts: &[Verdict]) -> f64 {
    let square = |v: &Verdict| (v.0 - f64::from(u8::from(v.1))).powi(2);
    verdicts.iter().map(square).sum::<f64>() / verdicts.len().max(1) as f64
}

/// Walks groups of equal scores, the surest first: (answers before, answers of the group, sum before, sum of the group).
fn groups(mut scored: Vec<(f64, f64)>, mut each: impl FnMut(usize, usize, f64, f64)) {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut begin, mut before) = (0, 0.0);
    while begin < scored.len() {
        let score = scored[begin].0;
        let end = begin + scored[begin..].iter().take_while(|(s, _)| *s >= score).count().max(1);
        let sum: f64 = scored[begin..end].iter().map(|(_, value)| value).sum();
        each(begin, end - begin, before, sum);
        before += sum;
        begin = end;
    }
}

/// Share of wrong answers among the surest 1, 2, … of all: the risk-coverage curve.
#[must_use]
pub fn risk_coverage(verdicts: &[Verdict]) -> Vec<f64> {
    let mut risks = Vec::with_capacity(verdicts.len());
    let wrong = verdicts.iter().map(|v| (v.0, f64::from(u8::from(!v.1)))).collect();
    groups(wrong, |begin, count, before, sum| {
        risks.extend((1..=count).map(|k| (before + sum * k as f64 / count as f64) / (begin + k) as f64));
    });
    risks
}

/// Area under the risk-coverage curve; lower is better.
#[must_use]
pub fn risk_area(verdicts: &[Verdict]) -> f64 {
    let risks = risk_coverage(verdicts);
    risks.iter().sum::<f64>() / risks.len().max(1) as f64
}

/// An answer of which the cloud's verdict is known too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The higher, the surer the gateway is.
    pub score: f64,
    /// Whether the gateway's answer is right.
    pub edge: bool,
    /// Whether the cloud's is.
    pub cloud: bool,
}

/// Accuracy when the surest 0, 1, 2, … are kept and all others escalated; its length is one more than the pairs'.
#[must_use]
pub fn deferral(pairs: &[Pair]) -> Vec<f64> {
    let n = pairs.len().max(1) as f64;
    let cloud_right = pairs.iter().filter(|p| p.cloud).count() as f64;
    let mut accuracy = vec![cloud_right / n];
    let change = |p: &Pair| (p.score, f64::from(u8::from(p.edge)) - f64::from(u8::from(p.cloud)));
    groups(pairs.iter().map(change).collect(), |_, count, before, sum| {
        let at = |k: usize| (cloud_right + before + sum * k as f64 / count as f64) / n;
        accuracy.extend((1..=count).map(at));
    });
    accuracy
}

/// Mean accuracy over all escalated shares; higher is better.
#[must_use]
pub fn deferral_area(pairs: &[Pair]) -> f64 {
    let curve = deferral(pairs);
    curve.iter().sum::<f64>() / curve.len() as f64
}

/// Where a router stands between one that draws lots (0) and an oracle that knows the edge's errors (1): the mean
/// accuracy over all escalated shares, on that scale. Not a number where the two do not differ.
#[must_use]
pub fn routing_efficiency(pairs: &[Pair]) -> f64 {
    let with = |score: fn(&Pair) -> f64| -> f64 {
        deferral_area(&pairs.iter().map(|p| Pair { score: score(p), ..*p }).collect::<Vec<_>>())
    };
    let (random, oracle) = (with(|_| 0.0), with(|p| f64::from(u8::from(p.edge))));
    (deferral_area(pairs) - random) / (oracle - random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_perfect_confidence_has_no_error_and_an_inverted_one_a_large_one() {
        let verdicts: Vec<Verdict> = (0..300).map(|i| (if i % 3 == 0 { 0.0 } else { 1.0 }, i % 3 != 0)).collect();
        assert!(calibration_error(&verdicts, BINS) < 1e-12);
        let inverted: Vec<Verdict> = verdicts.iter().map(|v| (1.0 - v.0, v.1)).collect();
        assert!((calibration_error(&inverted, BINS) - 1.0).abs() < 1e-12);
        assert!(brier(&verdicts) < 1e-12);
        assert_eq!(reliability(&verdicts, BINS).iter().map(|b| b.count).sum::<usize>(), 300);
        assert_eq!(calibration_error(&[], BINS), 0.0);
    }

    #[test]
    fn risk_grows_with_coverage_where_the_score_knows() {
        let risks = risk_coverage(&[(0.9, true), (0.8, true), (0.4, false), (0.2, false)]);
        let expect = [0.0, 0.0, 1.0 / 3.0, 0.5];
        assert!(risks.iter().zip(expect).all(|(got, want)| (got - want).abs() < 1e-12), "{risks:?}");
    }

    #[test]
    fn ties_are_shared_out() {
        let one = risk_area(&[(0.5, true), (0.5, false)]);
        let other = risk_area(&[(0.5, false), (0.5, true)]);
        assert!((one - other).abs() < 1e-12 && (one - 0.5).abs() < 1e-12, "{one} {other}");
    }

    #[test]
    fn efficiency_runs_from_lots_to_the_oracle() {
        let pairs: Vec<Pair> = (0..100).map(|i| Pair { score: 0.0, edge: i % 4 != 0, cloud: i % 10 != 1 }).collect();
        let scored = |score: fn(&Pair) -> f64| {
            routing_efficiency(&pairs.iter().map(|p| Pair { score: score(p), ..*p }).collect::<Vec<_>>())
        };
        assert!(scored(|_| 0.3).abs() < 1e-9);
        assert!((scored(|p| f64::from(u8::from(p.edge))) - 1.0).abs() < 1e-9);
        assert!(scored(|p| f64::from(u8::from(!p.edge))) < -0.5);
    }

    proptest! {
        #[test]
        fn curves_end_where_they_must(raw in prop::collection::vec((0.0..1.0_f64, any::<bool>(), any::<bool>()), 1..200)) {
            let pairs: Vec<Pair> = raw.iter().map(|(score, edge, cloud)| Pair { score: *score, edge: *edge, cloud: *cloud }).collect();
            let n = pairs.len() as f64;
            let curve = deferral(&pairs);
            prop_assert_eq!(curve.len(), pairs.len() + 1);
            prop_assert!((curve[0] - pairs.iter().filter(|p| p.cloud).count() as f64 / n).abs() < 1e-9);
            prop_assert!((curve[pairs.len()] - pairs.iter().filter(|p| p.edge).count() as f64 / n).abs() < 1e-9);
            let verdicts: Vec<Verdict> = pairs.iter().map(|p| (p.score, p.edge)).collect();
            let last = risk_coverage(&verdicts)[pairs.len() - 1];
            prop_assert!((last - verdicts.iter().filter(|v| !v.1).count() as f64 / n).abs() < 1e-9);
            prop_assert!((0.0..=1.0).contains(&calibration_error(&verdicts, BINS)));
        }
    }
}
