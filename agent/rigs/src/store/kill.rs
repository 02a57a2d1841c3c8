//! The rig `kill`: daemon and engine die at random moments, also while they start; nothing that was acknowledged is
//! lost, nothing is answered twice.

use super::states::progress;
use super::town::{SETTINGS, Town};
use crate::models::shipped_model;
use crate::probe::disk_dir;
use crate::process::leashed;
use crate::report::{Check, Common, finish};
use crate::world::{Central, Gateway, Setup};
use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_schemas::Origin;

/// Longest pause between two deaths, in milliseconds.
const LIFE_MS_MAX: u64 = 500;
/// Longest life of a gateway that dies while it starts, in milliseconds.
const START_MS_MAX: u64 = 120;
/// Longest wait until everything is settled at the end.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Deaths [default: 500, short 30].
    #[arg(long, value_name = "N")]
    cycles: Option<u32>,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// Who died how often.
#[derive(Debug, Default, serde::Serialize)]
struct Deaths {
    gateway: u32,
    starting: u32,
    engine: u32,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let model = options.model.clone().map_or_else(|| shipped_model("tide-edge.gguf"), Ok)?;
    let cycles = options.cycles.unwrap_or(if options.common.short { 30 } else { 500 });
    let dir = disk_dir("kill")?;
    let central = Central::start(dir.path())?;
    let origin = Origin { site: "demo".parse()?, gateway: "quay".parse()? };
    let town = Town::new(&origin, Some(central.address))?;
    let setup = Setup { model: Some(&model), bridge: Some(central.address), more: SETTINGS };
    let mut chance = StdRng::seed_from_u64(options.seed);
    let mut deaths = Deaths::default();
    let mut alive = None;
    let begin = Instant::now();
    for cycle in 0..cycles {
        let gateway = alive.take().map_or_else(|| start(dir.path(), &setup, &town), Ok)?;
        alive = one(gateway, &town, &mut chance, &mut deaths)?;
        if alive.is_none() && chance.random_ratio(1, 5) {
            let (mut process, _) = Gateway::launch(dir.path(), &setup, leashed)?;
            std::thread::sleep(Duration::from_millis(chance.random_range(0..START_MS_MAX)));
            process.kill();
            deaths.starting += 1;
        }
        progress("deaths", (cycle as usize + 1, cycles as usize), begin);
    }
    let gateway = alive.take().map_or_else(|| start(dir.path(), &setup, &town), Ok)?;
    let wrong = town.audit(SETTLE_MAX);
    drop(gateway);
    wrong.iter().take(20).for_each(|wrong| println!("{wrong}"));
    let sums = town.sums();
    println!(
        "{} gateways killed, {} more while they started, {} engines; {} prompts acknowledged, {} answered, {} of them by \
         the cloud, {} outcomes came again",
        deaths.gateway, deaths.starting, deaths.engine, sums.acknowledged, sums.answered, sums.cloud, sums.repeats
    );
    let mut checks = vec![Check::at_least("answered by the cloud", sums.cloud.into(), 1.0, "prompts")];
    checks.extend(town.checks(cycles));
    let more = json!({ "seed": options.seed, "deaths": deaths, "sums": sums, "wrong": wrong });
    finish("kill", &options.common, &checks, &more)
}

fn start(dir: &Path, setup: &Setup<'_>, town: &Town) -> anyhow::Result<Gateway> {
    let gateway = Gateway::start(dir, setup)?;
    town.gateway_at(Some(gateway.door.address));
    Ok(gateway)
}

/// One death; gives the gateway back if it was its engine that died.
fn one(mut gateway: Gateway, town: &Town, chance: &mut StdRng, deaths: &mut Deaths) -> anyhow::Result<Option<Gateway>> {
    std::thread::sleep(Duration::from_millis(chance.random_range(5..LIFE_MS_MAX)));
    gateway.process.check_alive()?;
    if chance.random_ratio(2, 5) {
        // An engine that is just being started again is dead already.
        for engine in children(gateway.process.pid())? {
            if kill_process(engine, Signal::KILL).is_ok() {
                deaths.engine += 1;
            }
        }
        return Ok(Some(gateway));
    }
    gateway.process.kill();
    town.gateway_at(None);
    deaths.gateway += 1;
    Ok(None)
}

/// The processes that a process started.
pub(crate) fn children(parent: u32) -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else { continue };
        // One that ended meanwhile has no status any more.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if parent_in(&stat) == Some(parent) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

/// The parent in a line of `/proc/PID/stat`; the name before it may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_whatever_its_name() {
        assert_eq!(parent_in("77 (a) b) S 1) S 42 77 77 0"), Some(42));
        assert_eq!(parent_in(""), None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = children(std::process::id()).unwrap();
        assert!(found.iter().any(|pid| u32::try_from(pid.as_raw_nonzero().get()).unwrap() == child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
