//! How often each answer itself was right, beyond what the signals say: a model that mixes up two intents does so again
//! with the same confidence. One number per answer, in log-odds, drawn towards zero where little is known. Invariants:
//! numbers are finite and within [`OFFSET_MAX`]; at most [`RECORDS_MAX`] answers are held; an unknown answer has none.

use std::collections::BTreeMap;

/// Most answers that are held, those whose record says most: a classifier has fewer, free texts never return.
pub const RECORDS_MAX: usize = 1_024;
/// What draws a record to zero, as evidence beside Σ p (1 − p): chosen on the validation intents, where 1 to 8 differ by
/// less than a hundredth of the area under the risk-coverage curve.
const SHRINK: f64 = 2.0;
/// Largest record, in log-odds.
pub const OFFSET_MAX: f64 = 4.0;

/// The records of a task's answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records(BTreeMap<u64, f64>);

/// One labelled answer as a record sees it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Which answer; 0 is unknown and teaches nothing.
    pub answer: u64,
    /// Whether it was right.
    pub right: bool,
    /// How much it counts.
    pub weight: f64,
    /// The probability of being right by the signals alone.
    pub expected: f64,
}

impl Records {
    /// One step of Newton's method from zero for each answer's intercept under a ridge.
    #[must_use]
    pub fn fitted(rows: impl IntoIterator<Item = Seen>) -> Self {
        let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for row in rows.into_iter().filter(|row| row.answer != 0) {
            let sum = sums.entry(row.answer).or_default();
            sum.0 += row.weight * (f64::from(u8::from(row.right)) - row.expected);
            sum.1 += row.weight * row.expected * (1.0 - row.expected);
        }
        let offset = |(answer, (error, curve)): (u64, (f64, f64))| {
            (answer, (error / (curve + SHRINK)).clamp(-OFFSET_MAX, OFFSET_MAX))
        };
        let mut offsets: Vec<(u64, f64)> = sums.into_iter().map(offset).filter(|o| o.1.is_finite()).collect();
        offsets.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        offsets.truncate(RECORDS_MAX);
        Self(offsets.into_iter().collect())
    }

    /// From a file; none where there are too many or a number cannot be.
    #[must_use]
    pub fn from_parts(parts: Vec<(u64, f64)>) -> Option<Self> {
        let sound = parts.len() <= RECORDS_MAX && parts.iter().all(|part| part.1.abs() <= OFFSET_MAX);
        sound.then(|| Self(parts.into_iter().collect()))
    }

    /// Answers with their log-odds.
    pub fn parts(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        self.0.iter().map(|(answer, offset)| (*answer, *offset))
    }

    /// What an answer's record adds to the log-odds of being right; 0 for an answer without one.
    #[must_use]
    pub fn offset(&self, answer: u64) -> f64 {
        self.0.get(&answer).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(answer: u64, right: bool) -> Seen {
        Seen { answer, right, weight: 1.0, expected: 0.9 }
    }

    #[test]
    fn an_answer_that_is_often_wrong_is_doubted_and_one_that_is_as_said_is_not() {
        let often_wrong = (0..20).map(|i| seen(7, i % 2 == 0));
        let as_said = (0..20).map(|i| seen(8, i >= 2));
        let records = Records::fitted(often_wrong.chain(as_said).chain([seen(0, false)]));
        assert!(records.offset(7) < -1.5, "{records:?}");
        assert!(records.offset(8).abs() < 1e-9, "{records:?}");
        assert_eq!((records.offset(0), records.offset(9)), (0.0, 0.0));
    }

    #[test]
    fn one_error_is_little_evidence() {
        let offset = Records::fitted([seen(7, false)]).offset(7);
        assert!((-0.5..0.0).contains(&offset), "{offset}");
    }

    #[test]
    fn records_are_bounded_and_numbers_that_cannot_be_are_refused() {
        let many = Records::fitted((1..5_000).map(|answer| seen(answer, answer % 5 == 0)));
        assert_eq!(many.parts().count(), RECORDS_MAX);
        assert_eq!(Records::from_parts(many.parts().collect()), Some(many));
        assert_eq!(Records::from_parts(vec![(1, f64::NAN)]), None);
        assert_eq!(Records::from_parts(vec![(1, 9.0)]), None);
        assert_eq!(Records::from_parts(vec![(1, 0.1); RECORDS_MAX + 1]), None);
    }
}
