//! Which model file serves. The configuration is the user's and stays as it is; what `tidegate model use` chose stands in
//! a file of the data directory.
//!
//! Invariants: the last word wins: a choice holds as long as `engine.model` (or `--model`) says what it said when it was
//! chosen; a choice whose file is gone or another is told and passed over, so that a gateway always starts with the
//! model that its configuration names.

use crate::config::{Config, find_model};
use crate::failure::Failure;
use crate::learned::write_synced;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The model that is shipped for gateways.
const SHIPPED_MODEL: &str = "tide-edge.gguf";
/// Name of the file in the data directory.
const NAME: &str = "model.json";
/// Version of the file.
const VERSION: u32 = 1;
/// Largest file, in bytes: two paths.
const BYTES_MAX: u64 = 16 * 1024;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    v: u32,
    /// The model file, absolute.
    pub(crate) path: PathBuf,
    /// SHA-256 of the file that was tried, hexadecimal.
    pub(crate) sha256: String,
    /// What the configuration named then; none: the shipped one.
    configured: Option<PathBuf>,
}

impl Choice {
    /// This file, in place of what the configuration names.
    pub(crate) fn new(path: PathBuf, sha256: String, config: &Config) -> Self {
        Self { v: VERSION, path, sha256, configured: config.engine.model.clone() }
    }
}

/// Who named the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NamedBy {
    /// `tidegate model use`.
    ModelUse,
    /// `engine.model`, or `--model`.
    Configuration,
    /// Nobody: it is the shipped one.
    Default,
}

/// The model that the configuration names, whatever was chosen.
///
/// # Errors
/// It names none and the shipped one is not there.
pub(crate) fn configured(config: &Config) -> Result<(PathBuf, NamedBy), Failure> {
    match &config.engine.model {
        Some(path) => Ok((path.clone(), NamedBy::Configuration)),
        None => Ok((find_model(SHIPPED_MODEL)?, NamedBy::Default)),
    }
}

/// The choice that holds; none where there is none, or where the configuration has spoken since.
///
/// # Errors
/// The file cannot be read; in one sentence.
pub(crate) fn choice(config: &Config) -> Result<Option<Choice>, String> {
    let found = read(&config.data_dir.join(NAME))?;
    Ok(found.filter(|choice| choice.configured == config.engine.model))
}

/// Keeps a choice over restarts, or none from now on.
///
/// # Errors
/// The disk refuses; what was kept before stands.
pub(crate) fn keep(data_dir: &Path, choice: Option<&Choice>) -> Result<(), String> {
    let path = data_dir.join(NAME);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    match choice {
        Some(choice) => {
            let bytes = serde_json::to_vec(choice).map_err(|e| failed(e.into()))?;
            write_synced(&path, &bytes).map_err(failed)
        }
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        },
    }
}

fn read(path: &Path) -> Result<Option<Choice>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
        Ok(meta) => meta.len(),
    };
    if bytes > BYTES_MAX {
        return Err(failed(&format!("{bytes} bytes, limit is {BYTES_MAX}")));
    }
    let text = fs::read(path).map_err(|e| failed(&e))?;
    let choice: Choice = serde_json::from_slice(&text).map_err(|e| failed(&e))?;
    match choice.v {
        VERSION => Ok(Some(choice)),
        other => Err(failed(&format!("version is {other}, this program reads {VERSION}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Source, load};

    fn config(folder: &Path, model: &str) -> Config {
        let file = folder.join("tidegate.toml");
        fs::write(&file, format!("data_dir = {folder:?}\n{model}")).unwrap();
        load(&Source::File(file)).unwrap()
    }

    #[test]
    fn a_choice_holds_until_the_configuration_names_another() {
        let folder = tempfile::tempdir().unwrap();
        let named = config(folder.path(), "[engine]\nmodel = \"/m/a.gguf\"\n");
        assert_eq!(choice(&named), Ok(None));
        let chosen = Choice::new("/m/b.gguf".into(), "bb".to_owned(), &named);
        keep(folder.path(), Some(&chosen)).unwrap();
        assert_eq!(choice(&named), Ok(Some(chosen)));
        assert_eq!(choice(&config(folder.path(), "[engine]\nmodel = \"/m/c.gguf\"\n")), Ok(None));
        assert_eq!(choice(&config(folder.path(), "")), Ok(None));
        keep(folder.path(), None).unwrap();
        keep(folder.path(), None).unwrap();
        assert_eq!(choice(&named), Ok(None));
    }

    #[test]
    fn a_file_that_cannot_be_true_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "");
        for (text, expect) in [
            (r#"{"v":9,"path":"/m","sha256":"","configured":null}"#, "version is 9"),
            ("{", "model.json: EOF"),
            (" ", "model.json"),
        ] {
            fs::write(folder.path().join(NAME), text).unwrap();
            let why = choice(&config).unwrap_err();
            assert!(why.contains(expect), "{why}");
        }
    }
}
