//! The rig `power-cut`: nothing that was acknowledged is lost when the power goes.
//!
//! Two parts. *Recorded*: the file operations of a store are recorded, and the store is opened in the states that a
//! cut may leave, at every sync and between. *Gateway*: the real daemon on a file system that forgets, reorders and
//! tears, cut at random operations under load, started again, and held to its word by its devices.

use super::disk::{Disk, Loss};
use super::mount::{Mounted, Shared, lock, missing};
use super::recording::{renewal, work};
use super::states::{Explorer, Findings, Plan, progress};
use super::town::{SETTINGS, Town};
use super::{memory_dir, skip};
use crate::models::shipped_model;
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish};
use crate::world::{Central, Gateway, Setup, data_dir};
use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_schemas::Origin;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Power cuts of the gateway; 0 leaves that part out [default: 300, short 15].
    #[arg(long, value_name = "N")]
    cycles: Option<u32>,
    /// Random cuts of the recorded store; 0 leaves that part out [default: 2000, short 120].
    #[arg(long, value_name = "N")]
    cuts: Option<u64>,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep states that break a word in this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(reason) = missing() {
        return Ok(skip("power-cut", &reason));
    }
    let short = options.common.short;
    let cuts = options.cuts.unwrap_or(if short { 120 } else { 2_000 });
    let cycles = options.cycles.unwrap_or(if short { 15 } else { 300 });
    let (mut checks, mut more) = (Vec::new(), json!({ "seed": options.seed }));
    if cuts > 0 {
        let findings = recorded(options, cuts)?;
        more["recorded"] = json!({ "states": findings.states, "salvages": findings.salvages,
            "slowest_opening_ms": findings.slowest_ms, "breaches": findings.told });
        checks.extend(recorded_checks(&findings, cuts));
    }
    if cycles > 0 {
        let cycled = cycled(options, cycles)?;
        more["gateway"] = json!({ "sums": cycled.sums, "cuts_while_opening": cycled.opening,
            "salvages": cycled.salvages, "wrong": cycled.wrong });
        cycled.tell(cycles);
        checks.extend(cycled.checks);
    }
    finish("power-cut", &options.common, &checks, &more)
}

fn recorded(options: &Options, cuts: u64) -> anyhow::Result<Findings> {
    let short = options.common.short;
    let scratch = memory_dir("power-cut")?;
    let mut explorer =
        Explorer { scratch: scratch.path(), keep: options.keep.as_deref(), findings: Findings::default() };
    let seed = options.seed;
    let recording = work(scratch.path(), seed, if short { 40 } else { 300 })?;
    let every = if short { 8 } else { 1 };
    explorer.explore(&recording, &Plan { every, cuts: cuts * 3 / 4, seed })?;
    explorer.twice(&recording, if short { 2 } else { 24 }, seed)?;
    // The states of a worn store are tens of megabytes each: the short version looks at the switch itself only.
    let recording = renewal(scratch.path(), seed)?;
    explorer.explore(&recording, &Plan { every, cuts: cuts - cuts * 3 / 4, seed })?;
    let findings = explorer.findings;
    findings.told.iter().for_each(|breach| println!("{breach}"));
    println!(
        "recorded store: {} states opened, {} of them by a salvage, {} at {} sync boundaries, {} at random cuts, \
         slowest opening {:.0} ms",
        findings.states,
        findings.salvages,
        2 * findings.boundaries,
        findings.boundaries,
        findings.cuts,
        findings.slowest_ms
    );
    Ok(findings)
}

fn recorded_checks(findings: &Findings, cuts: u64) -> [Check; 3] {
    [
        Check::at_least("recorded store: states opened", findings.states as f64, cuts as f64, "states"),
        Check::at_most("recorded store: states that do not open", findings.unopened as f64, 0.0, "states"),
        Check::at_most("recorded store: states that break its word", findings.broken as f64, 0.0, "states"),
    ]
}

/// What came of the power cuts of a gateway.
struct Cycled {
    sums: super::book::Sums,
    wrong: Vec<String>,
    /// Cuts that came while the gateway started.
    opening: u32,
    /// Starts after which the log told of a salvage.
    salvages: u32,
    checks: Vec<Check>,
}

impl Cycled {
    fn tell(&self, cycles: u32) {
        let sums = &self.sums;
        println!(
            "gateway: {cycles} cuts, {} of them while it started, {} salvages; {} prompts acknowledged, {} answered, {} \
             of them by the cloud, {} outcomes came again",
            self.opening, self.salvages, sums.acknowledged, sums.answered, sums.cloud, sums.repeats
        );
        self.wrong.iter().take(20).for_each(|wrong| println!("gateway: {wrong}"));
    }
}

/// One in this many cuts comes while the gateway starts.
const OPENING_CUTS: u32 = 6;
/// Operations of a start, about.
const OPENING_OPS: u64 = 90;
/// Most operations of a running gateway until its cut.
const CUT_OPS_MAX: u64 = 400;
/// Longest life of a gateway: a quiet one may not reach its operation.
const LIFE_MAX: Duration = Duration::from_secs(4);
/// Longest wait until everything is settled at the end.
const SETTLE_MAX: Duration = Duration::from_secs(120);

fn cycled(options: &Options, cycles: u32) -> anyhow::Result<Cycled> {
    let model = options.model.clone().map_or_else(|| shipped_model("tide-edge.gguf"), Ok)?;
    let dir = disk_dir("power-cut")?;
    let central = Central::start(dir.path())?;
    let origin = Origin { site: "demo".parse()?, gateway: "quay".parse()? };
    let town = Town::new(&origin, Some(central.address))?;
    let setup = Setup { model: Some(&model), bridge: Some(central.address), more: SETTINGS };
    let mut chance = StdRng::seed_from_u64(options.seed);
    let mut rig = Cutter { dir: dir.path(), setup, town: &town, disk: Disk::default(), opening: 0, salvages: 0 };
    let begin = Instant::now();
    for cycle in 0..cycles {
        rig.cycle(&mut chance).with_context(|| format!("cycle {cycle} of seed {}", options.seed))?;
        progress("power cuts", (cycle as usize + 1, cycles as usize), begin);
    }
    let wrong = rig.last()?;
    let mut checks = town.checks(cycles);
    checks.insert(0, Check::at_least("answered by the cloud", town.sums().cloud.into(), 1.0, "prompts"));
    Ok(Cycled { sums: town.sums(), wrong, opening: rig.opening, salvages: rig.salvages, checks })
}

/// Starts gateways and takes their power.
struct Cutter<'a> {
    dir: &'a Path,
    setup: Setup<'a>,
    town: &'a Town,
    disk: Disk,
    opening: u32,
    salvages: u32,
}

impl Cutter<'_> {
    fn mount(&mut self, dark_at: Option<u64>) -> anyhow::Result<Mounted> {
        let disk = std::mem::take(&mut self.disk);
        Mounted::new(&data_dir(self.dir), Shared { disk, dark_at, ..Shared::default() })
    }

    fn cycle(&mut self, chance: &mut StdRng) -> anyhow::Result<()> {
        let while_opening = chance.random_ratio(1, OPENING_CUTS);
        let mounted = self.mount(while_opening.then(|| chance.random_range(1..OPENING_OPS)))?;
        match Gateway::start(self.dir, &self.setup) {
            Ok(mut gateway) => {
                self.town.gateway_at(Some(gateway.door.address));
                live(&mounted, chance);
                gateway.process.kill();
            }
            // A gateway may say so and end when its disk does not answer.
            Err(_) if lock(&mounted.shared).dark => self.opening += 1,
            Err(error) => return Err(error.context("a gateway did not start")),
        }
        self.town.gateway_at(None);
        self.salvages += u32::from(self.log_tells_of_a_salvage());
        let left = mounted.unmount()?;
        let salt = chance.random();
        let loss = match chance.random_range(0..4) {
            0 => Loss::All,
            1 => Loss::Last { operations: chance.random_range(0..16), salt },
            2 => Loss::Reordered { salt },
            _ => Loss::Scattered { salt },
        };
        self.disk = left.disk.image(loss);
        Ok(())
    }

    fn log_tells_of_a_salvage(&self) -> bool {
        let log = std::fs::read_to_string(self.dir.join("gateway.log")).unwrap_or_default();
        log.contains("the store was damaged")
    }

    /// The last life, without a cut: everything must come to its end.
    fn last(&mut self) -> anyhow::Result<Vec<String>> {
        let mounted = self.mount(None)?;
        let gateway = Gateway::start(self.dir, &self.setup).context("the last gateway did not start")?;
        self.town.gateway_at(Some(gateway.door.address));
        let wrong = self.town.audit(SETTLE_MAX);
        self.town.gateway_at(None);
        drop(gateway);
        mounted.unmount()?;
        Ok(wrong)
    }
}

/// Lets a gateway live until the power goes at a random operation, and a little longer: what it says in the dark counts.
fn live(mounted: &Mounted, chance: &mut StdRng) {
    let begin = Instant::now();
    {
        let mut shared = lock(&mounted.shared);
        shared.dark_at = Some(shared.done + chance.random_range(1..CUT_OPS_MAX));
    }
    while !lock(&mounted.shared).dark && begin.elapsed() < LIFE_MAX {
        std::thread::sleep(Duration::from_millis(2));
    }
    lock(&mounted.shared).dark = true;
    std::thread::sleep(Duration::from_millis(chance.random_range(0..40)));
}
