//! Calibrations: what a model's signals mean, measured on labelled answers; a versioned JSON file beside the model file.
//!
//! Version 3 holds a fitted score with the records of the answers, its isotonic map, what the cloud is worth, and the
//! labelled answers that back a promise (numbers, no text). Version 2 had no records and knew of each labelled answer the
//! whole sum only; version 1 held a map from the product of probabilities. Both are still read. Invariant: a file for
//! another model, or with numbers that cannot be, is refused whole, with the reason.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tidegate_core::early::{STEPS, Trail};
use tidegate_core::features::{FEATURE_NAMES, FEATURES};
use tidegate_core::fitted::Fitted;
use tidegate_core::gain::Gain;
use tidegate_core::knowledge::{EVIDENCE_MAX, Evidence, Knowledge};
use tidegate_core::logistic::{Logistic, ROWS_PER_OUTCOME_MIN};
use tidegate_core::records::Records;
use tidegate_core::{Calibration, Score};
use tidegate_schemas::TaskName;
use tracing::warn;

/// Version of the file that is written.
pub(crate) const VERSION: u32 = 3;
/// Largest file, in bytes: the evidence of some tasks and room.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Fewest labelled answers of a task: fewer say nothing that a threshold could rest on.
pub(crate) const ROWS_MIN: usize = 100;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct File {
    /// Version.
    pub(crate) v: u32,
    /// SHA-256 of the model file, hexadecimal.
    pub(crate) model_sha256: String,
    /// The day it was made, as YYYY-MM-DD.
    #[serde(default)]
    pub(crate) made: String,
    /// By task.
    pub(crate) tasks: BTreeMap<TaskName, Entry>,
}

/// What is known of one task.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Where the labels came from.
    #[serde(default)]
    pub(crate) data: String,
    /// SHA-256 of that file, hexadecimal.
    #[serde(default)]
    pub(crate) data_sha256: String,
    /// Labelled answers.
    #[serde(default)]
    pub(crate) rows: usize,
    /// The fitted score; none: the product of probabilities.
    #[serde(default)]
    pub(crate) score: Option<Line>,
    /// The isotonic map.
    pub(crate) knots: Vec<(f64, f64)>,
    /// What the cloud is worth, where it was measured.
    #[serde(default)]
    pub(crate) gain: Option<Worth>,
    /// Labelled answers that the score was not fitted on: confidence, right (1 or 0), and the sums of their
    /// log-probabilities after each of the first tokens; in version 2 the least log-probability and the whole sum.
    #[serde(default)]
    pub(crate) evidence: Vec<Vec<f64>>,
}

/// A logistic score.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Names of the features, in order.
    pub(crate) features: Vec<String>,
    /// Their centres.
    pub(crate) centre: Vec<f64>,
    /// Their scales.
    pub(crate) scale: Vec<f64>,
    /// Their weights, the intercept last.
    pub(crate) weights: Vec<f64>,
    /// Records of answers, by number, in log-odds.
    #[serde(default)]
    pub(crate) answers: Vec<(u64, f64)>,
}

/// What the cloud is worth: (yes, all) of what it mended and of what it broke.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Worth {
    /// Wrong answers of ours that the cloud had right.
    pub(crate) mends: (f64, f64),
    /// Right answers of ours that the cloud had wrong.
    pub(crate) breaks: (f64, f64),
}

impl From<Gain> for Worth {
    fn from(gain: Gain) -> Self {
        let (mends, breaks) = gain.parts();
        Self { mends, breaks }
    }
}

impl Entry {
    /// The entry of a calibration.
    pub(crate) fn of(calibration: &Calibration) -> Self {
        let score = match calibration.score() {
            Score::Product => None,
            Score::Fitted(model) => {
                let (centre, scale, weights) = model.line().parts();
                Some(Line {
                    features: FEATURE_NAMES.map(str::to_owned).to_vec(),
                    centre: centre.to_vec(),
                    scale: scale.to_vec(),
                    weights: weights.to_vec(),
                    answers: model.records().parts().map(|(answer, offset)| (answer, rounded(offset))).collect(),
                })
            }
        };
        let knots = calibration.knots().to_vec();
        let (data, data_sha256) = (String::new(), String::new());
        Self { data, data_sha256, rows: 0, score, knots, gain: None, evidence: Vec::new() }
    }

    /// What it says, checked.
    fn knowledge(self, v: u32) -> Result<Knowledge, String> {
        if v >= 2 && self.rows < ROWS_MIN {
            return Err(format!("made from {} labelled answers, {ROWS_MIN} are needed", self.rows));
        }
        let score = self.score.map_or(Ok(Score::Product), |line| line.score())?;
        let calibration = Calibration::over(score, self.knots).map_err(|e| e.to_string())?;
        let gain = match self.gain {
            None => Gain::default(),
            Some(worth) => Gain::from_parts(worth.mends, worth.breaks)
                .ok_or_else(|| format!("gain {:?} and {:?} are no counts", worth.mends, worth.breaks))?,
        };
        let evidence = evidence(&self.evidence)?;
        Ok(Knowledge::new(calibration, evidence, gain))
    }
}

impl Line {
    fn score(self) -> Result<Score, String> {
        if self.features != FEATURE_NAMES {
            return Err(format!("its features are {}, this program has others", self.features.join(", ")));
        }
        let fixed = |values: Vec<f64>| <[f64; FEATURES]>::try_from(values).map_err(|v| count_of(v.len(), FEATURES));
        let weights = self.weights.try_into().map_err(|v: Vec<f64>| count_of(v.len(), FEATURES + 1))?;
        let line = Logistic::from_parts(fixed(self.centre)?, fixed(self.scale)?, weights).map_err(|e| e.to_string())?;
        let records = Records::from_parts(self.answers).ok_or("its records of answers are too many or out of range")?;
        Ok(Score::Fitted(Box::new(Fitted::new(line, records))))
    }
}

fn count_of(have: usize, want: usize) -> String {
    format!("{have} numbers where {want} belong")
}

/// A number as a file has it: what lies behind six places says nothing.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A row of the file: what backs a promise.
pub(crate) fn evidence_row(row: &Evidence) -> Vec<f64> {
    let first = [rounded(row.confidence), f64::from(u8::from(row.right))];
    first.into_iter().chain(row.trail.get().map(rounded)).collect()
}

fn evidence(rows: &[Vec<f64>]) -> Result<Vec<Evidence>, String> {
    if rows.len() > EVIDENCE_MAX {
        return Err(format!("{} rows of evidence, limit is {EVIDENCE_MAX}", rows.len()));
    }
    let row = |(index, row): (usize, &Vec<f64>)| {
        parsed(row).ok_or_else(|| format!("row {index} of its evidence is out of range"))
    };
    let rows: Vec<Evidence> = rows.iter().enumerate().map(row).collect::<Result<_, _>>()?;
    let right = rows.iter().filter(|row| row.right).count();
    if !rows.is_empty() && right.min(rows.len() - right) == 0 {
        return Err(format!(
            "its evidence is {right} right answers of {}: labels of one kind show nothing",
            rows.len()
        ));
    }
    Ok(rows)
}

fn parsed(row: &[f64]) -> Option<Evidence> {
    let (&[confidence, right], sums) = row.split_first_chunk::<2>()?;
    let trail = match sums {
        [least, sum] if *least <= 0.0 => Trail::from_parts([*sum; STEPS])?,
        sums => Trail::from_parts(<[f64; STEPS]>::try_from(sums).ok()?)?,
    };
    let sound = (0.0..=1.0).contains(&confidence) && (right == 0.0 || right == 1.0);
    sound.then_some(Evidence { confidence, right: right == 1.0, trail })
}

/// Where the calibration of a model lies.
pub(crate) fn path_of(model: &Path) -> PathBuf {
    let name = model.file_stem().unwrap_or_default();
    let mut file = Path::new("calibration").join(name).into_os_string();
    file.push(".json");
    model.parent().unwrap_or(Path::new(".")).join(file)
}

/// What is known of a model's tasks. What cannot be used is told, and raw confidence is taken as it is.
pub(crate) fn load(model: &Path, sha256: &str) -> BTreeMap<TaskName, Knowledge> {
    let path = path_of(model);
    match read(&path, sha256) {
        Ok(found) => found,
        Err(why) => {
            warn!(file = %path.display(), %why, "no calibration, raw confidence is taken as it is");
            BTreeMap::new()
        }
    }
}

/// Reads a calibration file for the model with that hash.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(path: &Path, sha256: &str) -> Result<BTreeMap<TaskName, Knowledge>, String> {
    let file = read_file(path)?;
    if file.model_sha256 != sha256 {
        return Err(format!("made for a model with sha256 {}, this one has {sha256}", file.model_sha256));
    }
    let known = |(task, entry): (TaskName, Entry)| {
        let knowledge = entry.knowledge(file.v).map_err(|e| format!("task {task}: {e}"))?;
        Ok((task, knowledge))
    };
    file.tasks.into_iter().map(known).collect()
}

/// Reads a file, whatever model it is for.
pub(crate) fn read_file(path: &Path) -> Result<File, String> {
    let bytes = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if bytes > BYTES_MAX {
        return Err(format!("{bytes} bytes, limit is {BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let file: File = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    if !(1..=VERSION).contains(&file.v) {
        return Err(format!("version is {}, this program reads 1 to {VERSION}", file.v));
    }
    Ok(file)
}

/// Why labels of these counts cannot make a calibration, if so.
pub(crate) fn too_few(right: usize, wrong: usize) -> Option<String> {
    if right + wrong < ROWS_MIN {
        return Some(format!("{} labelled answers, {ROWS_MIN} are needed", right + wrong));
    }
    let least = 3 * ROWS_PER_OUTCOME_MIN;
    (right.min(wrong) < least).then(|| {
        format!("{right} right and {wrong} wrong answers, {least} of each are needed: labels of one kind show nothing")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const V1: &str = r#"{"v":1,"model_sha256":"aa","tasks":{"intent":{"knots":[[0.0,0.1],[1.0,0.9]]}}}"#;

    fn checked(text: &str) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        std::fs::write(&path, text).unwrap();
        read(&path, "aa").map(|found| found.len())
    }

    #[test]
    fn only_the_calibration_of_this_very_model_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m.gguf");
        let path = path_of(&model);
        assert_eq!(path, folder.path().join("calibration/m.json"));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, V1).unwrap();
        assert_eq!(read(&path, "aa").unwrap().len(), 1);
        assert!(read(&path, "bb").unwrap_err().contains("sha256 aa"));
        assert!(load(&model, "bb").is_empty());
        std::fs::write(&path, V1.replace("0.9", "1.9")).unwrap();
        assert!(read(&path, "aa").unwrap_err().contains("task intent"));
    }

    #[test]
    fn a_file_that_cannot_be_true_is_refused_with_the_reason() {
        let v2 = |entry: &str| format!(r#"{{"v":2,"model_sha256":"aa","tasks":{{"intent":{{{entry}}}}}}}"#);
        let knots = r#""rows":500,"knots":[[0.0,0.1],[1.0,0.9]]"#;
        let check = |text: &str, expect: &str| {
            let why = checked(text).unwrap_err();
            assert!(why.contains(expect), "{text}: {why}");
        };
        assert_eq!(checked(&v2(knots)), Ok(1));
        check(&V1.replace("0.1", "NaN"), "expected value");
        check(&V1.replace(r#""v":1"#, r#""v":9"#), "version is 9");
        check(&v2(r#""rows":3,"knots":[[0.0,0.1]]"#), "made from 3 labelled answers, 100 are needed");
        check(&v2(&format!(r#"{knots},"evidence":[[0.5,1,-0.1,-0.2]]"#)), "1 right answers of 1");
        check(&v2(&format!(r#"{knots},"evidence":[[0.5,1,-0.1,-0.2],[1.5,0,0,0]]"#)), "row 1 of its evidence");
        check(&v2(&format!(r#"{knots},"gain":{{"mends":[2,1],"breaks":[0,1]}}"#)), "are no counts");
        let line = r#""score":{"features":["x"],"centre":[],"scale":[],"weights":[]}"#;
        check(&v2(&format!("{knots},{line}")), "its features are x");
        let falls = |row: &str| v2(&format!(r#"{knots},"evidence":[[0.5,1,-0.1,-0.2],{row}]"#));
        assert_eq!(checked(&falls("[0.5,0,-0.1,-0.2,-0.3,-0.3,-0.3,-0.3,-0.3,-0.3]")), Ok(1));
        check(&falls("[0.5,0,-0.1,-0.2,-0.3,-0.3,-0.3,-0.3,-0.3,-0.1]"), "row 1 of its evidence");
        check(&falls("[0.5,0,-0.1]"), "row 1 of its evidence");
        check(&falls("[0.5,2,-0.1,-0.2]"), "row 1 of its evidence");
    }

    #[test]
    fn labels_of_one_kind_are_too_few_however_many() {
        assert!(too_few(10, 10).unwrap().contains("20 labelled"));
        assert!(too_few(5_000, 0).unwrap().contains("0 wrong"));
        assert!(too_few(0, 5_000).unwrap().contains("0 right"));
        assert_eq!(too_few(400, 60), None);
    }

    #[test]
    fn the_shipped_files_are_read() {
        for name in ["tide-edge", "tide-cloud"] {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("models/calibration").join(name).with_extension("json");
            let file = read_file(&path).unwrap();
            let known = read(&path, &file.model_sha256).unwrap();
            assert_eq!(known.len(), 2, "{name}");
        }
    }
}
