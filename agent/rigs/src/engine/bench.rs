//! llama.cpp's own llama-bench.

use crate::engine::peers;
use crate::engine::side::{self, Rates, Ready};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program.
pub(crate) struct Bench {
    path: PathBuf,
    /// What it was built from.
    pub(crate) commit: String,
}

impl Bench {
    /// The one that is given, or the one in the cache; none where nobody built it.
    pub(crate) fn find(given: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let Some(path) = given.map_or_else(|| peers::find("llama-bench"), |path| Ok(Some(path.to_owned())))? else {
            return Ok(None);
        };
        if !path.is_file() {
            bail!("{} is not there", path.display());
        }
        Ok(Some(Self { commit: peers::version(&path)?, path }))
    }

    /// One warmed turn of it. Our answer follows the prompt, so its tokens stand behind those.
    pub(crate) fn rates(&self, asked: &side::Options, ready: &Ready) -> anyhow::Result<Rates> {
        let (prompt, depth) = (ready.prompt_tokens, ready.depth_tokens);
        Ok(Rates {
            prefill: self.rate(asked, ["-p", &prompt.to_string(), "-n", "0", "-d", &depth.to_string()])?,
            decode: self
                .rate(asked, ["-p", "0", "-n", &asked.answer.to_string(), "-d", &(depth + prompt).to_string()])?,
        })
    }

    fn rate(&self, asked: &side::Options, test: [&str; 6]) -> anyhow::Result<f64> {
        let mut command = Command::new(&self.path);
        command.arg("-m").arg(&asked.model).args(["-t", &asked.threads.to_string()]);
        command.args(["-ngl", &asked.gpu_layers.to_string(), "-r", "1", "-o", "json"]).args(test);
        let output = command.stdin(Stdio::null()).output().context("cannot start llama-bench")?;
        if !output.status.success() {
            bail!("llama-bench ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        rate_of(&output.stdout)
    }
}

/// Tokens per second of the one test in its report.
fn rate_of(report: &[u8]) -> anyhow::Result<f64> {
    let report: Value = serde_json::from_slice(report).context("llama-bench's report is not JSON")?;
    report[0]["avg_ts"].as_f64().filter(|rate| *rate > 0.0).context("llama-bench's report has no avg_ts")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_report() {
        assert_eq!(rate_of(br#"[{"n_prompt": 256, "avg_ts": 61.5, "stddev_ts": 0.0}]"#).unwrap(), 61.5);
        assert!(rate_of(b"[]").is_err());
        assert!(rate_of(br#"[{"avg_ts": 0.0}]"#).is_err());
        assert!(rate_of(b"error: no model").is_err());
    }
}
