//! `tidegate model use`: asks the running gateway to let another model serve, and waits until it does or says why not.

use crate::cli::{ModelArgs, ModelCommand};
use crate::config::control_candidates;
use crate::failure::Failure;
use crate::status;
use crate::terminal::{Progress, print};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait: a model of some GiB from a slow card, and its canary prompts.
const PATIENCE_MAX: Duration = Duration::from_secs(900);

/// Runs the command.
pub(crate) fn run(args: &ModelArgs) -> Result<(), Failure> {
    let ModelCommand::Use { file, .. } = &args.command;
    let file = file.as_deref().map(named).transpose()?;
    let request = json!({ "op": "model", "file": file }).to_string();
    let place = place(args.control.as_deref())?;
    let mut progress = Progress::new("loading and trying the model");
    let told = status::ask_patiently(&place, &request, PATIENCE_MAX, &mut |deadline| progress.until(deadline));
    drop(progress);
    let told = told?;
    if let Some(why) = told["error"].as_str() {
        return Err(Failure::other(why).next("the model before serves on; mend that, or try another file"));
    }
    print(&if args.json { format!("{told}\n") } else { human(&told) })
}

/// The path as the gateway can read it, whatever its folder is.
fn named(file: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::other(format!("{}: {why}", file.display()));
    let path = std::path::absolute(file).map_err(|e| failed(&e))?;
    path.into_os_string().into_string().map_err(|_| failed(&"its path is not UTF-8"))
}

/// The socket of a gateway that runs.
fn place(control: Option<&Path>) -> Result<PathBuf, Failure> {
    let places = control.map_or_else(control_candidates, |path| vec![path.to_path_buf()]);
    let found = places.iter().find(|place| UnixStream::connect(place).is_ok()).cloned();
    found.ok_or_else(|| {
        let list = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ");
        Failure::other(format!("no gateway answers at its control socket ({list})"))
            .next("start it with `tidegate up`, or name its socket with --control")
    })
}

fn human(told: &Value) -> String {
    let word = |path: &str| status::word(status::at(told, path));
    let calibration = match told["calibrated"].as_bool() {
        Some(true) => "it has a calibration",
        _ => "it has no calibration that can be used: confidence is raw, and promises hold nothing",
    };
    format!(
        "{} serves in place of {} ({}; {} canary prompts; {calibration})\n",
        word("/model"),
        word("/before"),
        word("/file"),
        word("/canaries")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_serves_and_how_well_it_is_known() {
        let told = json!({ "model": "b", "before": "a", "file": "/m/b.gguf", "canaries": 2, "calibrated": false });
        let text = human(&told);
        assert!(text.starts_with("b serves in place of a (/m/b.gguf; 2 canary prompts; it has no"), "{text}");
    }
}
