//! Calibrations: measured maps from a model's raw confidence to the share of right answers, beside the model file.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tidegate_core::Calibration;
use tidegate_schemas::TaskName;
use tracing::warn;

/// Version of the file that is read.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct File {
    v: u32,
    model_sha256: String,
    tasks: BTreeMap<TaskName, Knots>,
}

#[derive(Deserialize)]
struct Knots {
    knots: Vec<(f64, f64)>,
}

/// Where the calibration of a model lies.
pub(crate) fn path_of(model: &Path) -> PathBuf {
    let name = model.file_stem().unwrap_or_default();
    let mut file = Path::new("calibration").join(name).into_os_string();
    file.push(".json");
    model.parent().unwrap_or(Path::new(".")).join(file)
}

/// The calibrations of a model. What cannot be used is told, and raw confidence is taken as it is.
pub(crate) fn load(model: &Path, sha256: &str) -> BTreeMap<TaskName, Calibration> {
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
pub(crate) fn read(path: &Path, sha256: &str) -> Result<BTreeMap<TaskName, Calibration>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let file: File = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    if file.v != VERSION {
        return Err(format!("version is {}, this program reads {VERSION}", file.v));
    }
    if file.model_sha256 != sha256 {
        return Err(format!("made for a model with sha256 {}, this one has {sha256}", file.model_sha256));
    }
    let mut found = BTreeMap::new();
    for (task, Knots { knots }) in file.tasks {
        let calibration = Calibration::new(knots).map_err(|e| format!("task {task}: {e}"))?;
        found.insert(task, calibration);
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calibration_of_this_very_model_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m.gguf");
        let path = path_of(&model);
        assert_eq!(path, folder.path().join("calibration/m.json"));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let text = r#"{"v":1,"model_sha256":"aa","tasks":{"intent":{"knots":[[0.0,0.1],[1.0,0.9]]}}}"#;
        std::fs::write(&path, text).unwrap();
        let found = read(&path, "aa").unwrap();
        let confidence = found[&"intent".parse().unwrap()].apply(0.5).get();
        assert!((confidence - 0.5).abs() < 1e-9, "{confidence}");
        assert!(read(&path, "bb").unwrap_err().contains("sha256 aa"));
        assert!(load(&model, "bb").is_empty());
        std::fs::write(&path, text.replace("0.9", "1.9")).unwrap();
        assert!(read(&path, "aa").unwrap_err().contains("task intent"));
    }
}
