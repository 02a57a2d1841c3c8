//! The rig `disk-full`: the file system of the store is filled to its last byte under load, and freed again. What was
//! accepted is answered while it is full, a gateway that dies meanwhile starts, and goes on once there is room.

use super::loopback::{Loopback, missing};
use super::skip;
use super::states::progress;
use super::town::{SETTINGS, Town};
use crate::models::shipped_model;
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish};
use crate::world::{Central, Gateway, Setup, data_dir};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_schemas::Origin;

/// Size of the file system, in MiB: room for the store, its ballast and a copy of its log.
const DISK_MIB: u64 = 128;
/// Longest wait for the outcomes of what was accepted, on a full disk.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Longest wait for the store to put its ballast back: it looks every 20 s.
const BALLAST_MAX: Duration = Duration::from_secs(40);
/// Longest wait for a prompt to be accepted once there is room: the gateway tries again every second.
const RECOVER_MAX: Duration = Duration::from_secs(20);
/// Longest wait until everything is settled at the end.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How often the disk is filled [default: 40, short 4].
    #[arg(long, value_name = "N")]
    cycles: Option<u32>,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// What went wrong, by kind.
#[derive(Debug, Default, serde::Serialize)]
struct Faults {
    /// Accepted prompts without outcome after the wait, summed over the cycles.
    unanswered: u32,
    /// Times that nothing was accepted again after the disk was freed.
    unrecovered: u32,
    /// Gateways that did not start on a full disk though there was ballast.
    unstarted: u32,
    /// Gateways that did not start on a full disk whose ballast had been given up before: they start once there is room.
    waited: u32,
    /// Gateways that ended by themselves; systemd starts them again, and so does the rig.
    ended: u32,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(reason) = missing() {
        return Ok(skip("disk-full", &reason));
    }
    let model = options.model.clone().map_or_else(|| shipped_model("tide-edge.gguf"), Ok)?;
    let cycles = options.cycles.unwrap_or(if options.common.short { 4 } else { 40 });
    let dir = disk_dir("disk-full")?;
    let disk = Loopback::new(&data_dir(dir.path()), DISK_MIB)?;
    let central = Central::start(dir.path())?;
    let origin = Origin { site: "demo".parse()?, gateway: "quay".parse()? };
    let town = Town::new(&origin, Some(central.address))?;
    // The floor for new prompts stands well above the ballast: what that frees is for the outcomes.
    let settings = SETTINGS.replace("free_mib_min = 1", "free_mib_min = 16");
    let setup = Setup { model: Some(&model), bridge: Some(central.address), more: &settings };
    let mut chance = StdRng::seed_from_u64(options.seed);
    let mut rig = Filler { dir: dir.path(), disk: &disk, setup, town: &town, gateway: None, faults: Faults::default() };
    let begin = Instant::now();
    for cycle in 0..cycles {
        rig.cycle(&mut chance)?;
        progress("full disks", (cycle as usize + 1, cycles as usize), begin);
    }
    rig.alive()?;
    let wrong = town.audit(SETTLE_MAX);
    rig.gateway = None;
    let faults = rig.faults;
    wrong.iter().take(20).for_each(|wrong| println!("{wrong}"));
    println!(
        "{cycles} times full; {} gateways ended by themselves and were started again, {} could start only with room",
        faults.ended, faults.waited
    );
    let mut checks = vec![
        Check::at_most("accepted prompts unanswered while full", faults.unanswered.into(), 0.0, "prompts"),
        Check::at_most("did not start on a full disk", faults.unstarted.into(), 0.0, "starts"),
        Check::at_most("did not go on with room", faults.unrecovered.into(), 0.0, "times"),
    ];
    checks.extend(town.checks(cycles));
    let more = json!({ "seed": options.seed, "faults": faults, "sums": town.sums(), "wrong": wrong });
    finish("disk-full", &options.common, &checks, &more)
}

struct Filler<'a> {
    dir: &'a Path,
    disk: &'a Loopback,
    setup: Setup<'a>,
    town: &'a Town,
    gateway: Option<Gateway>,
    faults: Faults,
}

impl Filler<'_> {
    /// Starts a gateway unless one lives.
    fn alive(&mut self) -> anyhow::Result<()> {
        if let Some(gateway) = &mut self.gateway {
            if gateway.process.check_alive().is_ok() {
                return Ok(());
            }
            self.faults.ended += 1;
        }
        self.town.gateway_at(None);
        self.gateway = None;
        let gateway = Gateway::start(self.dir, &self.setup)?;
        self.town.gateway_at(Some(gateway.door.address));
        self.gateway = Some(gateway);
        Ok(())
    }

    fn cycle(&mut self, chance: &mut StdRng) -> anyhow::Result<()> {
        self.alive()?;
        std::thread::sleep(Duration::from_millis(chance.random_range(100..1_500)));
        // A store that was full a moment ago has no ballast yet; in some cycles the disk fills again before it has.
        let ballast = chance.random_ratio(3, 4) && self.wait_for_ballast();
        self.disk.fill()?;
        if chance.random_ratio(1, 3) && !self.die_and_start() {
            self.disk.free()?;
            return self.recover();
        }
        // In some cycles somebody takes what the gateway frees for itself, too.
        let greedy = chance.random_ratio(1, 4);
        if greedy {
            std::thread::sleep(Duration::from_millis(chance.random_range(100..1_000)));
            self.disk.fill()?;
            std::thread::sleep(Duration::from_millis(chance.random_range(100..2_000)));
        }
        // The room behind the end of the log is the store's alone: nobody takes that.
        if ballast {
            self.town.wait(ANSWER_MAX, |book| book.sums().open == 0);
            self.faults.unanswered += self.town.sums().open;
        }
        self.disk.free()?;
        self.recover()
    }

    fn ballast(&self) -> PathBuf {
        data_dir(self.dir).join("ballast")
    }

    fn wait_for_ballast(&self) -> bool {
        let begin = Instant::now();
        while !self.ballast().exists() && begin.elapsed() < BALLAST_MAX {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.ballast().exists()
    }

    /// Kills the gateway and starts one on the full disk; says whether it started.
    fn die_and_start(&mut self) -> bool {
        if let Some(mut gateway) = self.gateway.take() {
            gateway.process.kill();
        }
        let ballast = self.ballast().exists();
        let started = self.alive();
        match &started {
            Ok(()) => {}
            Err(error) if ballast => {
                println!("on a full disk, with ballast: {error:#}");
                self.faults.unstarted += 1;
            }
            Err(_) => self.faults.waited += 1,
        }
        started.is_ok()
    }

    fn recover(&mut self) -> anyhow::Result<()> {
        self.alive()?;
        let before = self.town.sums().acknowledged;
        if !self.town.wait(RECOVER_MAX, |book| book.sums().acknowledged > before) {
            self.faults.unrecovered += 1;
        }
        Ok(())
    }
}
