//! What the engine is started with, and what it computes ahead: the templates of the tasks, kept in a folder of the data
//! directory for the next start.

use crate::config::Config;
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tidegate_engine::protocol::{PINNED_BYTES_MAX, PREFIXES_DEFAULT, SLOTS_MAX, Start};
use tidegate_schemas::PromptText;
use tracing::warn;

/// Name of the folder in the data directory.
const FOLDER: &str = "prefixes";

/// Makes the folder, for its owner alone. Without it the engine computes the templates at each start.
pub(super) fn make_folder(data_dir: &Path) {
    let folder = data_dir.join(FOLDER);
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
        warn!(folder = %folder.display(), %error, "templates are computed at each start");
    }
}

/// What the gateway's engine is started with. The default task's template stands first, for where there is no room for all.
pub(crate) fn engine_start(config: &Config, model_path: PathBuf) -> Start {
    let default = config.tasks.get(&config.default_task);
    let systems = default.into_iter().chain(config.tasks.values()).map(|task| task.spec.system.as_str());
    let pinned = within(systems);
    let folder = config.data_dir.join(FOLDER);
    let prefixes = PREFIXES_DEFAULT.saturating_add(u32::try_from(pinned.len()).unwrap_or(u32::MAX)).min(SLOTS_MAX);
    Start {
        context_tokens: config.engine.context_tokens,
        slots: config.engine.slots,
        threads: config.engine.threads,
        memory_bytes_max: config.engine.memory_bytes_max,
        cache: config.engine.cache,
        gpu_layers: config.engine.gpu_layers,
        prefixes,
        prefix_bytes_max: config.engine.prefix_bytes_max,
        prefix_dir: folder.is_dir().then_some(folder),
        pinned,
        ..Start::new(model_path)
    }
}

/// Distinct texts, as many as a start may carry; some sequences stay for prefixes that no task names.
fn within<'a>(systems: impl Iterator<Item = &'a str>) -> Vec<PromptText> {
    let (mut known, mut bytes) = (BTreeSet::new(), 0);
    let distinct = systems.filter(|system| known.insert(*system));
    let fitting = distinct.filter(|system| {
        let fits = bytes + system.len() <= PINNED_BYTES_MAX;
        bytes += if fits { system.len() } else { 0 };
        fits
    });
    fitting.take((SLOTS_MAX - PREFIXES_DEFAULT) as usize).map(PromptText::from).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_of_many_tasks_fit_a_start() {
        let texts = [String::from("a"), String::from("b"), String::from("a"), "x".repeat(PINNED_BYTES_MAX), "c".into()];
        let kept = within(texts.iter().map(String::as_str));
        assert_eq!(kept.iter().map(PromptText::reveal).collect::<Vec<_>>(), ["a", "b", "c"]);
        let many = (0..1_000).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(within(many.iter().map(String::as_str)).len(), (SLOTS_MAX - PREFIXES_DEFAULT) as usize);
    }

    #[test]
    fn the_folder_is_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            make_folder(dir.path());
            let mode = std::fs::metadata(dir.path().join(FOLDER)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }
}
