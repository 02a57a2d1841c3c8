//! The rig `footprint`: memory of the gateway without its engine child, time until its door accepts, size on disk.

use crate::alone::resident_bytes;
use crate::link::Protocol;
use crate::models::shipped_model;
use crate::probe::{Probe, disk_dir};
use crate::process::tidegate_binary;
use crate::report::{Check, Common, finish};
use crate::world::{Door, Gateway, Setup, data_dir, status};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tidegate_schemas::{Encoding, Frame, JobId, Prompt};
use tidegate_spool::{Change, Limits, PromptRecord, Spool, SpoolError, Stamp};

/// Resident memory of a fresh gateway, in MB.
const FRESH_MB: f64 = 20.0;
/// Resident memory a minute after the last of many answers, in MB.
const USED_MB: f64 = 40.0;
/// Time until a fresh gateway's door accepts, in ms.
const START_MS: f64 = 300.0;
/// Time until the door accepts with [`QUEUED`] prompts in the store, in ms.
const LOADED_START_MS: f64 = 1_500.0;
/// Size of the release binary, in MB.
const BINARY_MB: f64 = 25.0;
/// Prompts in the store before the second start.
const QUEUED: u64 = 10_000;
/// Connections that ask.
const PROBES: usize = 8;
/// Prompts that each of them has on the way.
const WINDOW: usize = 8;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// What to measure. A busy machine changes times, but neither size nor memory.
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
}

/// What to measure.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Size, memory and times.
    All,
    /// Size of the binary and resident memory.
    Memory,
    /// Times until the door accepts.
    Time,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let model = options.model.clone().map_or_else(|| shipped_model("tide-edge.gguf"), Ok)?;
    let mut checks = Vec::new();
    if options.part != Part::Time {
        checks.extend(memory(&model, options.common.short)?);
    }
    if options.part != Part::Memory {
        checks.extend(times(&model)?);
    }
    finish("footprint", &options.common, &checks, &serde_json::Value::Null)
}

fn memory(model: &Path, short: bool) -> anyhow::Result<Vec<Check>> {
    let (count, rest) = if short { (1_000, Duration::from_secs(5)) } else { (20_000, Duration::from_secs(60)) };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let binary = std::fs::metadata(tidegate_binary()?).context("cannot look at the binary")?.len();
    let (fresh, used) = answered(model, count, rest)?;
    let what = format!("resident, {} s after {count} answers", rest.as_secs());
    Ok(vec![
        Check::at_most("release binary", megabytes(binary), BINARY_MB, "MB"),
        Check::at_most("resident, fresh", megabytes(fresh), FRESH_MB, "MB"),
        Check::at_most(what, megabytes(used), USED_MB, "MB"),
    ])
}

fn times(model: &Path) -> anyhow::Result<Vec<Check>> {
    let fresh = "fresh start until the door accepts";
    let loaded = format!("start with {QUEUED} prompts until the door accepts");
    Ok(vec![
        Check::at_most(fresh, millis(fresh_start(model)?), START_MS, "ms"),
        Check::at_most(loaded, millis(loaded_start(model)?), LOADED_START_MS, "ms"),
    ])
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Starts a gateway that finds nothing.
fn fresh_start(model: &Path) -> anyhow::Result<Duration> {
    let dir = disk_dir("footprint")?;
    Ok(Gateway::start(dir.path(), &Setup { model: Some(model), bridge: None, more: "" })?.started_in)
}

/// A fresh gateway that answers `count` prompts and then rests: its memory before and after.
fn answered(model: &Path, count: usize, rest: Duration) -> anyhow::Result<(u64, u64)> {
    let dir = disk_dir("footprint")?;
    let gateway = Gateway::start(dir.path(), &Setup { model: Some(model), bridge: None, more: "" })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    // One answer, so that the engine's start is over.
    runtime.block_on(ask_all(gateway.door.clone(), "first".to_owned(), 1))?;
    let fresh = resident_bytes(gateway.process.pid())?;
    let begin = Instant::now();
    runtime.block_on(async {
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..PROBES {
            asking.spawn(ask_all(gateway.door.clone(), format!("probe{number}"), count / PROBES));
        }
        while let Some(ended) = asking.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    })?;
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!("{count} prompts answered, {rate:.0} per second; resting {} s", rest.as_secs());
    // The bar is about a gateway that has been left alone for this long.
    std::thread::sleep(rest);
    Ok((fresh, resident_bytes(gateway.process.pid())?))
}

/// Asks `count` prompts with [`WINDOW`] on the way, and waits for every outcome.
async fn ask_all(door: Door, name: String, count: usize) -> anyhow::Result<()> {
    let mut probe = Probe::connect(&door, &format!("local-{name}"), Protocol::V4).await?;
    let (mut asked, mut settled) = (0, 0);
    while settled < count {
        while asked < count && asked - settled < WINDOW {
            let payload =
                probe.payload(&format!("{name}-{asked}").parse()?, &format!("how far is it to town {asked}"))?;
            probe.ask(payload).await?;
            asked += 1;
        }
        match probe.frame().await?.1 {
            Frame::Error(error) => bail!("a prompt got the error {}: {}", error.code, error.message),
            Frame::Answer(answer) if !answer.provisional => settled += 1,
            Frame::Answer(_) | Frame::Accepted(_) | Frame::Token(_) => {}
        }
    }
    Ok(())
}

/// Puts prompts into a store, as a gateway that was killed leaves them, and starts a gateway on it.
fn loaded_start(model: &Path) -> anyhow::Result<Duration> {
    let dir = disk_dir("footprint")?;
    fill(&data_dir(dir.path()))?;
    let gateway = Gateway::start(dir.path(), &Setup { model: Some(model), bridge: None, more: "" })?;
    // A gateway that had not found them would be quick, too.
    let found = status(&gateway.control)?["load"]["inbox"]["entries"].as_u64().context("status has no depth")?;
    if found < QUEUED / 2 {
        bail!("the gateway found {found} of {QUEUED} prompts in its store");
    }
    Ok(gateway.started_in)
}

fn fill(store: &Path) -> anyhow::Result<()> {
    /// Changes on the way to the storage thread at once.
    const BATCH: u64 = 200;
    let limits = Limits { inbox_entries_max: QUEUED, ..Limits::default() };
    let (spool, _) = Spool::open(store, limits)?;
    for first in (1..=QUEUED).step_by(BATCH as usize) {
        let (out, kept) = mpsc::channel::<Result<(), SpoolError>>();
        for job in first..(first + BATCH).min(QUEUED + 1) {
            let out = out.clone();
            spool.submit(Change::Keep(record(job)?), move |result| {
                // The receiver lives until all have come.
                let _ = out.send(result);
            });
        }
        drop(out);
        for result in kept {
            result.context("the store refused a prompt")?;
        }
    }
    spool.close();
    Ok(())
}

fn record(job: u64) -> anyhow::Result<PromptRecord> {
    let id = Some(format!("queued-{job}").parse()?);
    let prompt = Prompt { id, task: Some("intent".parse()?), ..Prompt::bare(&format!("is pump {job} running")) };
    Ok(PromptRecord {
        job: JobId(job),
        device: format!("local-{}", job % 8).parse()?,
        prompt,
        encoding: Encoding::Json,
        bytes: 80,
        stamp: Stamp::now(),
        attempts: 0,
        reply: tidegate_schemas::Reply::default(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_store_holds_every_prompt() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("data");
        fill(&store).unwrap();
        let (spool, recovered) = Spool::open(&store, Limits::default()).unwrap();
        assert_eq!(recovered.prompts.len() as u64, QUEUED);
        spool.close();
    }
}
