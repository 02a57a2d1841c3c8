//! What labelled answers show: the fit, how well it does on answers that it has not seen, and what it can promise.

use super::labels::{Answer, Set};
use crate::calibration::{self, Entry, evidence_row};
use serde_json::{Value, json};
use std::fmt::Write as _;
use tidegate_core::Calibration;
use tidegate_core::gain::Gain;
use tidegate_core::judge::{
    BINS, Pair, Verdict, brier, calibration_error, deferral_area, risk_area, routing_efficiency,
};
use tidegate_core::knowledge::Evidence;
use tidegate_core::logistic::Labelled;
use tidegate_core::risk::guaranteed;

/// Parts of the answers; each is judged by a fit of the others.
const FOLDS: usize = 5;
/// Of so many answers, the last is evidence: never fitted on, so that it can back a promise.
const EVIDENCE_EVERY: usize = 5;
/// How many of these are evidence.
const EVIDENCE_OF: usize = 2;
/// Promises that the report tries.
const LEVELS: [f64; 3] = [0.01, 0.05, 0.1];
/// Probability of these promises.
const SURE: f64 = 0.95;

/// The fit and its judgement.
#[derive(Debug)]
pub(super) struct Study {
    /// What will be written.
    pub(super) calibration: Calibration,
    /// Cross-validated: (confidence, right) of every answer.
    pub(super) verdicts: Vec<Verdict>,
    /// Cross-validated finer order of every answer.
    pub(super) ranks: Vec<f64>,
    evidence: Vec<Evidence>,
}

impl Study {
    /// Fits and judges. What the labels leave open is taken from `prior`.
    pub(super) fn of(set: &Set, prior: Option<&Calibration>) -> Result<Self, String> {
        let right = set.answers.iter().filter(|answer| answer.right && answer.features.is_some()).count();
        let usable = set.answers.iter().filter(|answer| answer.features.is_some()).count();
        if let Some(why) = calibration::too_few(right, usable - right) {
            return Err(why);
        }
        let is_evidence = |index: usize| index % EVIDENCE_EVERY < EVIDENCE_OF;
        let calibration = fit(set, prior, |index| !is_evidence(index))?;
        let mut verdicts = vec![(0.0, false); set.answers.len()];
        let mut ranks = vec![0.0; set.answers.len()];
        for fold in 0..FOLDS {
            let others = fit(set, prior, |index| index % FOLDS != fold)?;
            for (index, answer) in set.answers.iter().enumerate().filter(|(index, _)| index % FOLDS == fold) {
                verdicts[index] = (confidence(&others, answer), answer.right);
                ranks[index] = answer.features.map_or(-1.0, |f| others.rank_of(&f, answer.answer));
            }
        }
        let row = |(_, answer): (usize, &Answer)| Evidence {
            confidence: confidence(&calibration, answer),
            right: answer.right,
            trail: answer.trail,
        };
        let evidence = set.answers.iter().enumerate().filter(|(index, _)| is_evidence(*index)).map(row).collect();
        Ok(Self { calibration, verdicts, ranks, evidence })
    }

    /// The entry of the calibration file.
    pub(super) fn entry(&self, set: &Set) -> Entry {
        let pairs: Vec<(bool, bool)> = set.answers.iter().filter_map(|a| Some((a.right, a.cloud?))).collect();
        // Escalations take the cloud's word for the truth: they cannot say what it is worth.
        let measured = !pairs.is_empty() && !set.sha256.is_empty();
        Entry {
            data: set.name.clone(),
            data_sha256: set.sha256.clone(),
            rows: set.answers.len(),
            gain: measured.then(|| Gain::measured(&pairs).into()),
            evidence: self.evidence.iter().map(evidence_row).collect(),
            ..Entry::of(&self.calibration)
        }
    }

    /// Routers by name: scores of every answer, the higher the surer.
    pub(super) fn routers(&self, set: &Set) -> Vec<(&'static str, Vec<f64>)> {
        let mut routers = vec![("combined", self.ranks.clone())];
        let names: Vec<&'static str> = set
            .answers
            .iter()
            .find(|a| !a.singles.is_empty())
            .map(|a| a.singles.iter().map(|s| s.0).collect())
            .unwrap_or_default();
        for (number, name) in names.into_iter().enumerate() {
            let score = |a: &Answer| a.singles.get(number).map_or(f64::NEG_INFINITY, |s| s.1);
            routers.push((name, set.answers.iter().map(score).collect()));
        }
        routers
    }

    /// Answers with their scores. A cloud that nobody measured is taken as always right.
    pub(super) fn pairs(set: &Set, scores: &[f64]) -> Vec<Pair> {
        let pair = |(answer, score): (&Answer, &f64)| Pair {
            score: *score,
            edge: answer.right,
            cloud: answer.cloud.unwrap_or(true),
        };
        set.answers.iter().zip(scores).map(pair).collect()
    }

    /// The report for a terminal.
    pub(super) fn report(&self, set: &Set) -> String {
        let mut text = String::new();
        let right = set.answers.iter().filter(|a| a.right).count();
        let share = 100.0 * right as f64 / set.answers.len() as f64;
        let _ = writeln!(text, "{}: {} labelled answers, {share:.1} % right", set.name, set.answers.len());
        let error = calibration_error(&self.verdicts, BINS);
        let _ = writeln!(
            text,
            "expected calibration error {error:.4}, Brier {:.4} (cross-validated)",
            brier(&self.verdicts)
        );
        let cloud = if set.answers.iter().all(|a| a.cloud.is_some()) { "measured" } else { "modelled: always right" };
        let _ =
            writeln!(text, "cloud {cloud}\n{:<24}{:>14}{:>14}{:>14}", "signal", "risk area", "accuracy", "efficiency");
        for (name, scores) in self.routers(set) {
            let verdicts: Vec<Verdict> = scores.iter().zip(&set.answers).map(|(s, a)| (*s, a.right)).collect();
            let pairs = Self::pairs(set, &scores);
            let (risk, mean, share) = (risk_area(&verdicts), deferral_area(&pairs), routing_efficiency(&pairs));
            let _ = writeln!(text, "{name:<24}{risk:>14.4}{mean:>14.4}{share:>14.3}");
        }
        let rows: Vec<Verdict> = self.evidence.iter().map(|e| (e.confidence, e.right)).collect();
        for level in LEVELS {
            let line = match guaranteed(&rows, level, SURE) {
                Ok(found) => {
                    format!("keep from confidence {:.4}, {} of {} rows", found.threshold, found.kept, rows.len())
                }
                Err(why) => format!("{why}: all would be escalated"),
            };
            let _ = writeln!(text, "wrong_at_most = {level}, sure = {SURE}: {line}");
        }
        text
    }
}

impl Study {
    /// The report for a script.
    pub(super) fn json(&self, set: &Set) -> Value {
        let signal = |(name, scores): (&str, Vec<f64>)| {
            let verdicts: Vec<Verdict> = scores.iter().zip(&set.answers).map(|(s, a)| (*s, a.right)).collect();
            let pairs = Self::pairs(set, &scores);
            json!({ "signal": name, "risk_area": risk_area(&verdicts), "accuracy": deferral_area(&pairs),
                "efficiency": routing_efficiency(&pairs) })
        };
        let rows: Vec<Verdict> = self.evidence.iter().map(|e| (e.confidence, e.right)).collect();
        let promise = |level: f64| match guaranteed(&rows, level, SURE) {
            Ok(found) => {
                json!({ "wrong_at_most": level, "sure": SURE, "threshold": found.threshold, "kept": found.kept,
                "rows": rows.len() })
            }
            Err(why) => json!({ "wrong_at_most": level, "sure": SURE, "error": why.to_string() }),
        };
        json!({ "data": set.name, "data_sha256": set.sha256, "answers": set.answers.len(),
            "right": set.answers.iter().filter(|a| a.right).count(),
            "calibration_error": calibration_error(&self.verdicts, BINS), "brier": brier(&self.verdicts),
            "cloud_measured": set.answers.iter().all(|a| a.cloud.is_some()),
            "signals": self.routers(set).into_iter().map(signal).collect::<Vec<_>>(),
            "promises": LEVELS.map(promise) })
    }
}

fn fit(set: &Set, prior: Option<&Calibration>, used: impl Fn(usize) -> bool) -> Result<Calibration, String> {
    let row = |(index, answer): (usize, &Answer)| {
        let (features, number) = (answer.features?, answer.answer);
        let labelled = Labelled { features, right: answer.right, weight: 1.0, answer: number };
        used(index).then_some(labelled)
    };
    let rows: Vec<Labelled> = set.answers.iter().enumerate().filter_map(row).collect();
    Calibration::learn(&rows, prior).map_err(|e| e.to_string())
}

fn confidence(calibration: &Calibration, answer: &Answer) -> f64 {
    answer.features.map_or(0.0, |f| calibration.confidence_of(&f, answer.answer).get())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_core::early::Trail;
    use tidegate_core::features::{FEATURES, Features};

    fn set(count: usize, right: impl Fn(usize) -> bool) -> Set {
        let answer = |index: usize| {
            let mut values = [0.0; FEATURES];
            values[0] = (index % 17) as f64 / 4.0 - 2.0;
            Answer {
                features: Features::from_values(values),
                singles: vec![("product", values[0])],
                trail: Trail::flat(-0.2),
                answer: 1 + index as u64 % 7,
                right: right(index),
                cloud: Some(!index.is_multiple_of(9)),
            }
        };
        Set { name: "d".to_owned(), sha256: "00".to_owned(), answers: (0..count).map(answer).collect() }
    }

    #[test]
    fn labels_of_one_kind_and_too_few_are_refused() {
        assert!(Study::of(&set(50, |i| i % 2 == 0), None).unwrap_err().contains("50 labelled answers, 100"));
        assert!(Study::of(&set(500, |_| true), None).unwrap_err().contains("0 wrong"));
        assert!(Study::of(&set(500, |_| false), None).unwrap_err().contains("0 right"));
    }

    #[test]
    fn a_study_reports_and_its_entry_is_read_back() {
        let set = set(1_000, |i| i % 17 > 4 || i % 3 == 0);
        let study = Study::of(&set, None).unwrap();
        let report = study.report(&set);
        for part in ["1000 labelled answers", "combined", "product", "wrong_at_most = 0.05", "cloud measured"] {
            assert!(report.contains(part), "{part} is not in\n{report}");
        }
        let told = study.json(&set);
        assert_eq!((&told["answers"], told["promises"].as_array().map(Vec::len)), (&json!(1_000), Some(3)), "{told}");
        assert!(told["signals"][0]["signal"] == "combined" && told["brier"].is_number(), "{told}");
        let entry = study.entry(&set);
        assert_eq!((entry.rows, entry.evidence.len(), entry.evidence[0].len()), (1_000, 400, 10));
        assert_eq!(entry.score.map(|line| line.answers.len()), Some(7));
        let again = Study::of(&set, Some(&study.calibration)).unwrap();
        assert_ne!(again.calibration, study.calibration, "drawn to what was known before");
        assert!(entry.gain.is_some());
    }
}
