//! `tidegate calibrate`: learns from labelled answers what a model's signals mean for one task, shows how well, and
//! writes it down. Invariants: the answers that back promises are never fitted on; too few labels, or labels of one
//! kind, write nothing and say why; the file that is written is read back before it replaces another.

mod labels;
mod page;
mod study;

pub(crate) use labels::same;

use crate::calibration::{self, Entry, File, VERSION};
use crate::chosen;
use crate::cli::CalibrateArgs;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::learned::write_synced;
use crate::terminal::print;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use study::Study;
use tidegate_core::Calibration;
use tidegate_engine::model_file::inspect;
use tidegate_schemas::TaskName;

/// Runs the command.
pub(crate) fn run(args: &CalibrateArgs) -> Result<(), Failure> {
    let source = args.config.clone().map_or(config::Source::Default, config::Source::File);
    let config = config::load(&source)?;
    let task: TaskName = args.task.parse().map_err(|e| Failure::config(format!("--task: {e}")))?;
    let model = model(args, &config)?;
    let sha256 = inspect(&model).map_err(Failure::other)?.sha256;
    let set = labels::gather(args, &config, &task, (&model, &sha256))?;
    let prior = prior(&model, &sha256, &task, &set.sha256);
    let study = Study::of(&set, prior.as_ref())
        .map_err(|why| Failure::other(format!("task {task}: {why}; nothing was written")))?;
    if !args.json {
        print(&study.report(&set))?;
    }
    if let Some(page) = &args.page {
        let text = page::html(&task, &set, &study);
        write_synced(page, text.as_bytes()).map_err(|e| Failure::other(format!("{}: {e}", page.display())))?;
    }
    let out = args.out.clone().unwrap_or_else(|| calibration::path_of(&model));
    save(&out, &sha256, task.clone(), study.entry(&set))?;
    print(&match args.json {
        true => {
            format!("{}\n", json!({ "task": task, "model_sha256": sha256, "written": out, "study": study.json(&set) }))
        }
        false => format!("written to {}\n", out.display()),
    })
}

fn model(args: &CalibrateArgs, config: &Config) -> Result<PathBuf, Failure> {
    let chosen = || chosen::choice(config).ok().flatten().map(|choice| choice.path);
    match args.model.clone().or_else(chosen) {
        Some(path) => Ok(path),
        None => Ok(chosen::configured(config)?.0),
    }
}

/// What is already known of the task: few labels then correct it instead of replacing it. Not where it was made from the
/// same labels, which would count twice.
fn prior(model: &Path, sha256: &str, task: &TaskName, data_sha256: &str) -> Option<Calibration> {
    let path = calibration::path_of(model);
    let same =
        calibration::read_file(&path).ok()?.tasks.get(task).is_some_and(|entry| entry.data_sha256 == data_sha256);
    let known = calibration::read(&path, sha256).ok()?.remove(task)?;
    (!same || data_sha256.is_empty()).then(|| known.calibration().clone())
}

/// Puts the task's entry beside those of the other tasks of this model.
fn save(out: &Path, sha256: &str, task: TaskName, entry: Entry) -> Result<(), Failure> {
    let failed = |why: String| Failure::other(format!("{}: {why}", out.display()));
    let mut tasks = BTreeMap::new();
    // Entries of the first version have no count of rows, and cannot stand in a file of the second.
    if let Ok(old) = calibration::read_file(out)
        && old.model_sha256 == sha256
    {
        tasks = old.tasks;
        tasks.retain(|_, entry| entry.rows >= calibration::ROWS_MIN);
    }
    tasks.insert(task, entry);
    let file = File { v: VERSION, model_sha256: sha256.to_owned(), made: today(), tasks };
    let mut text = serde_json::to_vec(&file).map_err(|e| failed(e.to_string()))?;
    text.push(b'\n');
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
    }
    let trial = out.with_extension("trial");
    write_synced(&trial, &text).map_err(|e| failed(e.to_string()))?;
    let checked = calibration::read(&trial, sha256);
    let _ = std::fs::remove_file(&trial);
    checked.map_err(failed)?;
    write_synced(out, &text).map_err(|e| failed(e.to_string()))
}

/// The day in UTC, as YYYY-MM-DD (Hinnant's `civil_from_days`).
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    date(i64::try_from(seconds / 86_400).unwrap_or(0))
}

fn date(days: i64) -> String {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}", doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_are_dates() {
        for (days, expect) in [(0, "1970-01-01"), (19_782, "2024-02-29"), (20_778, "2026-11-21"), (-1, "1969-12-31")] {
            assert_eq!(date(days), expect);
        }
    }
}
