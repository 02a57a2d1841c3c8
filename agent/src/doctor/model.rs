//! Model files: whole, as their cards say, calibrated, and not larger than the memory.

use super::finding::Finding;
use crate::config::{Config, find_model};
use crate::terminal::Progress;
use crate::up::engine_start;
use crate::{calibration, chosen, room};
use std::fs;
use std::path::{Path, PathBuf};
use tidegate_engine::fit::{memory_needed, settings_within};
use tidegate_engine::model_file::{inspect, inspect_watched};

const PART: &str = "model";
const MEMORY: &str = "memory";
/// The gateway's model and the worker's.
const SHIPPED: [&str; 2] = ["tide-edge.gguf", "tide-cloud.gguf"];
const MIB: u64 = 1024 * 1024;

/// Adds what is found; gives the model that the gateway takes, if it can be used.
pub(super) fn all(config: &Config, findings: &mut Vec<Finding>) -> Option<PathBuf> {
    const NEXT: &str = "install the models, or name a GGUF file with engine.model";
    if let Some(choice) = chosen(config, findings) {
        findings.push(fit(config, &choice));
        return Some(choice);
    }
    let used = match chosen::configured(config) {
        Ok((path, _)) => path,
        Err(failure) => {
            findings.push(Finding::fault(PART, failure.sentence(), NEXT));
            return None;
        }
    };
    let found = file(&used, NEXT);
    let usable = found.level != super::Level::Fault;
    findings.push(found);
    findings.push(fit(config, &used));
    // The others matter to who starts a worker, or takes the configured model away.
    let others = SHIPPED.iter().filter(|name| !used.ends_with(name)).filter_map(|name| find_model(name).ok());
    findings.extend(others.map(|path| file(&path, "install the models again")));
    usable.then_some(used)
}

/// The model that `tidegate model use` chose, if that holds and the file is the one that was tried.
fn chosen(config: &Config, findings: &mut Vec<Finding>) -> Option<PathBuf> {
    const NEXT: &str = "choose again with `tidegate model use FILE`, or `tidegate model use --configured`";
    let choice = match chosen::choice(config) {
        Ok(choice) => choice?,
        Err(why) => {
            findings.push(Finding::warning(PART, format!("what `tidegate model use` chose is not known: {why}"), NEXT));
            return None;
        }
    };
    let found = file(&choice.path, NEXT);
    let named = choice.path.display();
    match inspect(&choice.path).map(|file| file.sha256) {
        Ok(sha256) if sha256 == choice.sha256 => {
            let of_file =
                config.engine.model.as_ref().map_or("the shipped one".to_owned(), |m| m.display().to_string());
            let what = format!("{named} serves, chosen with `tidegate model use`; the configuration names {of_file}");
            findings.extend([Finding::ok(PART, what), found]);
            Some(choice.path)
        }
        Ok(_) => {
            let what = format!("{named}, chosen with `tidegate model use`, is another file now and is passed over");
            findings.push(Finding::warning(PART, what, NEXT));
            None
        }
        Err(error) => {
            let what = format!("{named}, chosen with `tidegate model use`, is passed over: {error}");
            findings.push(Finding::warning(PART, what, NEXT));
            None
        }
    }
}

fn file(path: &Path, next: &str) -> Finding {
    let mut progress = Progress::new(format!("reading {}", path.display()));
    let file = match inspect_watched(path, &mut |done, all| progress.done(done, all)) {
        Ok(file) => file,
        Err(error) => return Finding::fault(PART, error.to_string(), next),
    };
    drop(progress);
    let what = format!("{} ({})", file.name, path.display());
    match card_hash(path) {
        Some(hash) if hash != file.sha256 => {
            let what = format!("{what} has sha256 {}, its card says {hash}", file.sha256);
            Finding::fault(PART, what, "copy the model file again")
        }
        None => {
            let next = "put its card (.md with a line sha256: ...) beside it, or compare the hash by hand";
            Finding::warning(PART, format!("{what} has sha256 {} and no card that confirms it", file.sha256), next)
        }
        Some(_) => match calibration::read(&calibration::path_of(path), &file.sha256) {
            Ok(_) => Finding::ok(PART, format!("{what} has the sha256 of its card, and a calibration")),
            Err(why) => {
                let next = "put its calibration file in place; until then confidence is raw and thresholds mean little";
                Finding::warning(PART, format!("{what} has no calibration that can be used: {why}"), next)
            }
        },
    }
}

/// The line `sha256: …` of the card beside the model.
fn card_hash(model: &Path) -> Option<String> {
    let text = fs::read_to_string(model.with_extension("md")).ok()?;
    let line = text.lines().find_map(|line| line.split_once("sha256:"))?.1;
    let hash: String = line.chars().filter(char::is_ascii_hexdigit).collect();
    (hash.len() == 64).then_some(hash)
}

/// Predicted need against the limit and what is available.
fn fit(config: &Config, model: &Path) -> Finding {
    let start = engine_start(config, model.to_owned());
    match memory_needed(&start) {
        Ok(need) => judged(need.total, config.engine.memory_bytes_max, room::available(), &|max| {
            settings_within(&start, max).unwrap_or_else(|_| "a smaller model needs less".to_owned())
        }),
        Err(error) => Finding::fault(MEMORY, error.to_string(), "name another GGUF file with engine.model"),
    }
}

fn judged(need: u64, max: Option<u64>, available: Option<u64>, less: &dyn Fn(u64) -> String) -> Finding {
    let mib = |bytes: u64| bytes.div_ceil(MIB);
    if let Some(max) = max.filter(|max| need > *max) {
        let what = format!("the model takes about {} MiB, engine.memory_mib_max is {}", mib(need), mib(max));
        return Finding::fault(MEMORY, what, less(max));
    }
    match available {
        Some(free) if need > free => {
            let what = format!("the model takes about {} MiB, {} MiB are available", mib(need), mib(free));
            Finding::fault(MEMORY, what, less(free))
        }
        Some(free) if need > free / 4 * 3 => {
            let what = format!("the model takes about {} of the {} MiB that are available", mib(need), mib(free));
            Finding::warning(MEMORY, what, less(free / 4 * 3))
        }
        Some(free) => {
            Finding::ok(MEMORY, format!("the model takes about {} MiB, {} MiB are available", mib(need), mib(free)))
        }
        None => Finding::ok(MEMORY, format!("the model takes about {} MiB", mib(need))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_model_that_is_too_large_is_a_fault() {
        for (need, max, free, expect) in [
            (100, None, Some(1_000), Level::Ok),
            (800, None, Some(1_000), Level::Warning),
            (1_001, None, Some(1_000), Level::Fault),
            (100, Some(99), Some(1_000), Level::Fault),
            (100, None, None, Level::Ok),
        ] {
            assert_eq!(judged(need, max, free, &|max| format!("{max} bytes")).level, expect, "{need} {max:?} {free:?}");
        }
    }
}
