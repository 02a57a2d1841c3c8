//! Percentiles and rates: pure, so that the tests hold them.

/// The nearest-rank percentile of unsorted values, `None` of nothing. `percent` is 0 to 100.
pub(crate) fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The mean, `None` of nothing.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// `part` of `whole` in percent, `None` of nothing.
pub(crate) fn percent_of(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

/// A figure with `digits` decimals, or a dash where there is none.
pub(crate) fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.digits$}"))
}

/// Risk and coverage of a confidence signal: which share of the answers is wrong among the surest `coverage` of all.
/// `answers` are (signal, right); the higher the signal, the surer.
pub(crate) fn risk_at(answers: &[(f64, bool)], coverage: f64) -> Option<f64> {
    let mut by_signal = answers.to_vec();
    by_signal.sort_by(|a, b| b.0.total_cmp(&a.0));
    let kept = (coverage * by_signal.len() as f64).round() as usize;
    let wrong = by_signal.iter().take(kept).filter(|(_, right)| !right).count();
    percent_of(wrong, kept)
}

/// Area under the risk-coverage curve in percent: the mean risk over all coverages; lower is better.
pub(crate) fn risk_area(answers: &[(f64, bool)]) -> Option<f64> {
    let mut by_signal = answers.to_vec();
    by_signal.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut wrong = 0;
    let risks: Vec<f64> = (1..=by_signal.len())
        .map(|kept| {
            wrong += usize::from(!by_signal[kept - 1].1);
            100.0 * wrong as f64 / kept as f64
        })
        .collect();
    mean(&risks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_the_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let check = |percent, expect| assert_eq!(percentile(&hundred, percent), Some(expect), "p{percent}");
        check(50.0, 50.0);
        check(95.0, 95.0);
        check(99.0, 99.0);
        check(100.0, 100.0);
        check(0.0, 1.0);
        assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 50.0), Some(2.0));
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn shares_of_nothing_are_no_figure() {
        assert_eq!(percent_of(0, 0), None);
        assert_eq!(percent_of(1, 4), Some(25.0));
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
        assert_eq!(shown(None, 1), "-");
        assert_eq!(shown(Some(2.0), 1), "2.0");
    }

    #[test]
    fn risk_counts_the_wrong_among_the_surest() {
        let answers = [(0.9, true), (0.8, true), (0.4, false), (0.2, false)];
        assert_eq!(risk_at(&answers, 0.5), Some(0.0));
        assert_eq!(risk_at(&answers, 1.0), Some(50.0));
        assert_eq!(risk_at(&answers, 0.0), None);
    }

    #[test]
    fn a_signal_that_knows_has_the_smaller_area() {
        let knows = [(0.9, true), (0.8, true), (0.4, false)];
        let inverted = [(0.1, true), (0.2, true), (0.9, false)];
        assert!(risk_area(&knows) < risk_area(&inverted));
        assert_eq!(risk_area(&[(0.5, true)]), Some(0.0));
    }
}
