//! What a gateway has learned while it ran: a versioned JSON file in the data directory, replaced whole and synced. It
//! holds numbers only: the corrected line of each task, what the cloud is worth, and the labels that the cloud's answers
//! gave, for `calibrate --from-escalations`. Invariants: each model has a file of its own; one that cannot be true is set
//! aside with the reason and learning starts anew; at most [`LABELS_MAX`] labels per task are held, the newest.

use crate::calibration::Worth;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tidegate_core::Signals;
use tidegate_core::early::{STEPS, Trail};
use tidegate_core::features::{FEATURES, Features};
use tidegate_core::gain::Gain;
use tidegate_core::knowledge::Knowledge;
use tidegate_core::learn::Learner;
use tidegate_schemas::TaskName;
use tracing::warn;

/// Name of the file in the data directory.
pub(crate) const NAME: &str = "learned.json";
/// Version of the file.
const VERSION: u32 = 1;
/// Most labels of a task: a fit from so many is as good as from more, and they cost half a KiB each.
const LABELS_MAX: usize = 2_000;
/// Largest file, in bytes: as many labels of some dozens of tasks.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    v: u32,
    model_sha256: String,
    tasks: BTreeMap<TaskName, Entry>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Entry {
    line: Option<([f64; 6], u64)>,
    gain: Option<Worth>,
    labels: VecDeque<Label>,
}

/// An answer of ours that the cloud answered too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Label {
    /// Its features, in the core's order.
    pub(crate) features: Vec<f64>,
    /// Least and summed log-probability.
    pub(crate) logprobs: (f64, f64),
    /// Whether the cloud said the same.
    pub(crate) agree: bool,
    /// Stands for our answer; 0 in files of before.
    #[serde(default)]
    pub(crate) answer: u64,
    /// How the sum fell while it was written; none in files of before.
    #[serde(default)]
    trail: Option<[f64; STEPS]>,
}

impl Label {
    /// The features, if they are this program's.
    pub(crate) fn features(&self) -> Option<Features> {
        Features::from_values(<[f64; FEATURES]>::try_from(self.features.clone()).ok()?)
    }

    /// How the sum fell; where only the end is known, as if at once.
    pub(crate) fn trail(&self) -> Trail {
        self.trail.and_then(Trail::from_parts).unwrap_or(Trail::flat(self.logprobs.1))
    }
}

/// What is learned, and where it is kept.
#[derive(Debug)]
pub(crate) struct Learned {
    path: PathBuf,
    model_sha256: String,
    tasks: BTreeMap<TaskName, Entry>,
    changed: bool,
}

impl Learned {
    /// What was learned in this data directory about this model; nothing where there is none or it cannot be used.
    pub(crate) fn open(data_dir: &Path, model_sha256: &str) -> Self {
        let path = place(data_dir, model_sha256);
        let tasks = match read(&path) {
            Ok((sha256, tasks)) if sha256 == model_sha256 => tasks,
            Ok(_) => BTreeMap::new(),
            Err(why) => {
                let aside = path.with_extension("broken");
                if path.exists() {
                    warn!(file = %path.display(), %why, "what was learned cannot be used, learning starts anew");
                    let _ = fs::rename(&path, aside);
                }
                BTreeMap::new()
            }
        };
        Self { path, model_sha256: model_sha256.to_owned(), tasks, changed: false }
    }

    /// Puts what was learned on what the calibration says.
    pub(crate) fn apply(&self, known: &mut BTreeMap<TaskName, Knowledge>) {
        for (task, entry) in &self.tasks {
            let learner = entry.line.and_then(|(parts, labels)| Learner::from_parts(parts, labels));
            let gain = entry.gain.and_then(|worth| Gain::from_parts(worth.mends, worth.breaks));
            if let (Some(learner), Some(gain), Some(of_task)) = (learner, gain, known.remove(task)) {
                known.insert(task.clone(), of_task.with_learned(learner, gain));
            }
        }
    }

    /// The cloud answered too. Broken signals teach nothing.
    pub(crate) fn label(&mut self, task: &TaskName, signals: &Signals, agree: bool) {
        let Some(features) = Features::of(signals) else { return };
        let labels = &mut self.tasks.entry(task.clone()).or_default().labels;
        if labels.len() == LABELS_MAX {
            labels.pop_front();
        }
        let logprobs = (signals.min_logprob, signals.sum_logprob);
        let trail = signals.trail.map(|trail| *trail.get());
        labels.push_back(Label { features: features.get().to_vec(), logprobs, agree, answer: signals.answer, trail });
        self.changed = true;
    }

    /// The bytes to write, where anything changed since the last call.
    pub(crate) fn snapshot(&mut self, learned: BTreeMap<TaskName, (Learner, Gain)>) -> Option<(PathBuf, Vec<u8>)> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        for (task, (learner, gain)) in learned {
            if let Some(entry) = self.tasks.get_mut(&task) {
                (entry.line, entry.gain) = (Some(learner.parts()), Some(gain.into()));
            }
        }
        let file = File { v: VERSION, model_sha256: self.model_sha256.clone(), tasks: std::mem::take(&mut self.tasks) };
        let written = serde_json::to_vec(&file);
        self.tasks = file.tasks;
        match written {
            Ok(bytes) => Some((self.path.clone(), bytes)),
            Err(error) => {
                warn!(file = %self.path.display(), %error, "what was learned cannot be written as JSON, it is not saved");
                None
            }
        }
    }
}

/// The file of a model: the first model to learn here has [`NAME`], each other one a file of its own, so that a model that
/// is tried takes nothing from the one before.
fn place(data_dir: &Path, model_sha256: &str) -> PathBuf {
    let first = data_dir.join(NAME);
    match read(&first) {
        Ok((sha256, _)) if sha256 != model_sha256 => {
            data_dir.join(format!("learned-{}.json", &model_sha256[..model_sha256.len().min(16)]))
        }
        Ok(_) | Err(_) => first,
    }
}

/// The labels of a task that a model learned from; without any, those of the first model that learned here. Gives the
/// model's hash with them.
pub(crate) fn labels(data_dir: &Path, model_sha256: &str, task: &TaskName) -> Result<(String, Vec<Label>), String> {
    let (sha256, mut tasks) = read(&place(data_dir, model_sha256)).or_else(|_| read(&data_dir.join(NAME)))?;
    Ok((sha256, tasks.remove(task).map(|entry| entry.labels.into()).unwrap_or_default()))
}

fn read(path: &Path) -> Result<(String, BTreeMap<TaskName, Entry>), String> {
    let bytes = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if bytes > BYTES_MAX {
        return Err(format!("{bytes} bytes, limit is {BYTES_MAX}"));
    }
    let file: File = serde_json::from_slice(&fs::read(path).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    if file.v != VERSION {
        return Err(format!("version is {}, this program reads {VERSION}", file.v));
    }
    for (task, entry) in &file.tasks {
        if entry.line.is_some_and(|(parts, labels)| Learner::from_parts(parts, labels).is_none()) {
            return Err(format!("task {task}: its line cannot be"));
        }
        if entry.labels.len() > LABELS_MAX || entry.labels.iter().any(|label| label.features().is_none()) {
            return Err(format!("task {task}: its labels cannot be"));
        }
    }
    Ok((file.model_sha256, file.tasks))
}

/// Replaces a file whole: written beside it, synced, renamed, and the directory synced.
///
/// # Errors
/// What the disk says; the old file stands then.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    // The folder of a bare name is the empty path, which cannot be opened.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_core::{Calibration, Confidence};

    fn signals() -> Signals {
        Signals { sum_logprob: -0.5, min_logprob: -0.4, mean_logprob: -0.1, tokens: 5, ..Signals::default() }
    }

    fn task() -> TaskName {
        "intent".parse().unwrap()
    }

    fn written(folder: &Path) -> Learner {
        let mut learned = Learned::open(folder, "aa");
        let mut learner = Learner::default();
        for _ in 0..200 {
            learned.label(&task(), &signals(), false);
            learner.learn(Confidence::new(0.9), false, 1.0);
        }
        let (path, bytes) = learned.snapshot([(task(), (learner, Gain::default()))].into()).unwrap();
        write_synced(&path, &bytes).unwrap();
        assert!(learned.snapshot(BTreeMap::new()).is_none(), "nothing changed since");
        learner
    }

    #[test]
    fn what_was_learned_comes_back_for_the_same_model_only() {
        let folder = tempfile::tempdir().unwrap();
        let learner = written(folder.path());
        let known = || BTreeMap::from([(task(), Knowledge::from(Calibration::identity()))]);
        let mut same = known();
        Learned::open(folder.path(), "aa").apply(&mut same);
        let restored = same[&task()].learned().0;
        assert_eq!(restored.correct(Confidence::new(0.9)), learner.correct(Confidence::new(0.9)));
        let mut other = known();
        Learned::open(folder.path(), "bb").apply(&mut other);
        assert_eq!(other[&task()].learned().0, Learner::default());
        let (sha256, found) = labels(folder.path(), "bb", &task()).unwrap();
        assert_eq!((sha256.as_str(), found.len()), ("aa", 200), "there are none of the other model");
        let mut learned = Learned::open(folder.path(), "bb");
        learned.label(&task(), &signals(), true);
        let (path, bytes) = learned.snapshot(BTreeMap::new()).unwrap();
        write_synced(&path, &bytes).unwrap();
        assert_eq!(labels(folder.path(), "bb", &task()).unwrap().1.len(), 1);
        assert_eq!(labels(folder.path(), "aa", &task()).unwrap().1.len(), 200, "what the first learned is still there");
    }

    #[test]
    fn a_broken_file_is_set_aside_and_learning_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), "{\"v\":1,").unwrap();
        let mut known = BTreeMap::from([(task(), Knowledge::from(Calibration::identity()))]);
        Learned::open(folder.path(), "aa").apply(&mut known);
        assert_eq!(known[&task()].learned().0.labels(), 0);
        assert!(folder.path().join("learned.broken").exists() && !folder.path().join(NAME).exists());
    }

    #[test]
    fn labels_are_bounded_and_broken_signals_teach_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut learned = Learned::open(folder.path(), "aa");
        learned.label(&task(), &Signals { sum_logprob: f64::NAN, ..signals() }, true);
        assert!(learned.snapshot(BTreeMap::new()).is_none());
        (0..LABELS_MAX + 10).for_each(|_| learned.label(&task(), &signals(), true));
        assert_eq!(learned.tasks[&task()].labels.len(), LABELS_MAX);
    }
}
