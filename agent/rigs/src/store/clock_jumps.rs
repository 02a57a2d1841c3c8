//! The rig `clock`: the gateway lives through reboots and jumps of the wall clock, boots in 1970 among them, and is
//! killed on the way. Nothing that was acknowledged is lost or answered twice.
//!
//! A reboot is a life with another boot id and a young `CLOCK_BOOTTIME` (a time namespace); the wall clock is
//! libfaketime's, and can be moved while the gateway runs. Nothing else on the machine sees any of it.

use super::skip;
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
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use tidegate_schemas::Origin;

/// Where the wall clock goes: years before this build, hours and days away, and into the first year of all.
const WALLS: [&str; 7] = ["+0", "+1d", "+10d", "-3h", "-2d", "-4y", "-56y"];
/// Longest life without an event, in milliseconds.
const LIFE_MS_MAX: u64 = 1_500;
/// Age of a machine that has just booted, in seconds.
const YOUNG_S: f64 = 20.0;
/// Longest wait until everything is settled at the end.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// Binds a boot id over the kernel's, then becomes the program.
const SCRIPT: &str = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id && shift && exec env \"$@\"";
/// Beside the settings of every town: keep times beyond the longest jump, so that nothing may end by age.
const KEEP: &str = "\nanswer_keep_ms = 31536000000\n";

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Lives of the gateway [default: 100, short 10].
    #[arg(long, value_name = "N")]
    cycles: Option<u32>,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// What happened.
#[derive(Debug, Default, serde::Serialize)]
struct Events {
    reboots: u32,
    restarts: u32,
    jumps: u32,
    in_1970: u32,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let dir = disk_dir("clock")?;
    let mut machine = Machine::new(dir.path());
    if let Err(error) = machine.check() {
        return Ok(skip("clock", &format!("{error:#}")));
    }
    let model = options.model.clone().map_or_else(|| shipped_model("tide-edge.gguf"), Ok)?;
    let cycles = options.cycles.unwrap_or(if options.common.short { 10 } else { 100 });
    let central = Central::start(dir.path())?;
    let origin = Origin { site: "demo".parse()?, gateway: "quay".parse()? };
    let town = Town::new(&origin, Some(central.address))?;
    let settings = SETTINGS.replace("cloud_wait_ms", "seen_keep_ms = 2592000000\ncloud_wait_ms") + KEEP;
    let setup = Setup { model: Some(&model), bridge: Some(central.address), more: &settings };
    let mut chance = StdRng::seed_from_u64(options.seed);
    let begin = Instant::now();
    for cycle in 0..cycles {
        machine.between(&mut chance)?;
        let mut gateway = machine.start(&setup, &town)?;
        for _ in 0..chance.random_range(1..4) {
            std::thread::sleep(Duration::from_millis(chance.random_range(20..LIFE_MS_MAX)));
            machine.jump(&mut chance)?;
        }
        gateway.process.check_alive()?;
        town.gateway_at(None);
        gateway.process.kill();
        progress("lives", (cycle as usize + 1, cycles as usize), begin);
    }
    let gateway = machine.start(&setup, &town)?;
    let wrong = town.audit(SETTLE_MAX);
    drop(gateway);
    wrong.iter().take(20).for_each(|wrong| println!("{wrong}"));
    let (sums, events) = (town.sums(), &machine.events);
    println!(
        "{} reboots, {} restarts, {} jumps of the wall clock, {} of them to 1970; {} prompts acknowledged, {} answered",
        events.reboots, events.restarts, events.jumps, events.in_1970, sums.acknowledged, sums.answered
    );
    let mut checks = vec![Check::at_least("jumps", events.jumps.into(), cycles.into(), "jumps")];
    checks.extend(town.checks(cycles));
    let more = json!({ "seed": options.seed, "events": events, "sums": sums, "wrong": wrong });
    finish("clock", &options.common, &checks, &more)
}

/// A machine whose clocks can be moved.
struct Machine {
    dir: PathBuf,
    boots: u32,
    /// What is added to the kernel's time since boot, in seconds.
    boottime_s: i64,
    events: Events,
}

impl Machine {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), boots: 1, boottime_s: 0, events: Events::default() }
    }

    fn boot_id(&self) -> PathBuf {
        self.dir.join("boot_id")
    }

    fn wall(&self) -> PathBuf {
        self.dir.join("wall")
    }

    /// Whether all that is needed is there, shown by a program that tells its clocks.
    fn check(&self) -> anyhow::Result<()> {
        self.set_boot_id()?;
        self.set_wall("-56y")?;
        let mut command = self.command(Path::new("sh"))?;
        command.args(["-c", "cat /proc/sys/kernel/random/boot_id; date +%Y"]);
        let output = command.output().context("cannot run unshare")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let year: Option<u32> = said.lines().nth(1).and_then(|year| year.parse().ok());
        let id = std::fs::read_to_string(self.boot_id())?;
        anyhow::ensure!(
            output.status.success() && said.starts_with(id.trim()) && year.is_some_and(|year| year < 1980),
            "clocks cannot be moved here: {} {}",
            said.trim().replace('\n', ", "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        self.set_wall("+0")
    }

    /// A command that runs a program with this machine's clocks.
    fn command(&self, program: &Path) -> anyhow::Result<Command> {
        let library = faketime().context("libfaketime is not installed")?;
        let offset = self.boottime_s.to_string();
        let mut command = leashed(Path::new("unshare"))?;
        command.args(["--mount", "--time", "--boottime", &offset, "--monotonic", &offset, "sh", "-c", SCRIPT, "sh"]);
        command.arg(self.boot_id());
        command.arg(format!("LD_PRELOAD={}", library.display()));
        command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.wall().display()));
        command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1"]);
        command.arg(program);
        Ok(command)
    }

    fn start(&self, setup: &Setup<'_>, town: &Town) -> anyhow::Result<Gateway> {
        let gateway = Gateway::start_as(&self.dir, setup, |program| self.command(program))?;
        town.gateway_at(Some(gateway.door.address));
        Ok(gateway)
    }

    /// What happens while the gateway is dead: a reboot or none, and the wall clock somewhere.
    fn between(&mut self, chance: &mut StdRng) -> anyhow::Result<()> {
        if chance.random_ratio(1, 2) {
            self.boots += 1;
            self.events.reboots += 1;
            self.boottime_s = YOUNG_S as i64 - uptime_s()? as i64;
            self.set_boot_id()?;
        } else {
            self.events.restarts += 1;
        }
        self.jump(chance)
    }

    fn jump(&mut self, chance: &mut StdRng) -> anyhow::Result<()> {
        let wall = WALLS[chance.random_range(0..WALLS.len())];
        self.events.jumps += 1;
        self.events.in_1970 += u32::from(wall == "-56y");
        self.set_wall(wall)
    }

    /// A file that is read at any moment is replaced, not written.
    fn set_wall(&self, wall: &str) -> anyhow::Result<()> {
        let aside = self.wall().with_extension("new");
        std::fs::write(&aside, format!("{wall}\n"))?;
        std::fs::rename(aside, self.wall()).context("cannot move the clock")
    }

    fn set_boot_id(&self) -> anyhow::Result<()> {
        let id = format!("{:08x}-0000-4000-8000-000000000000\n", self.boots);
        std::fs::write(self.boot_id(), id).context("cannot write a boot id")
    }
}

fn uptime_s() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    text.split_whitespace().next().and_then(|first| first.parse().ok()).context("no uptime")
}

/// Debian's place of the library, below the machine's own triplet.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file())
}
