//! Opens the store in every state that a power cut may leave of a recorded run, and holds it to its word.
//!
//! - *Boundaries*: before every sync, with all that was pending lost, and with all of it there.
//! - *Cuts*: at random operations, with random parts of what was pending, reordered and torn.
//! - *Second cuts*: the opening after a cut is recorded itself, and cut likewise; for some of them the database was
//!   damaged first, so that the opening is a salvage.

use super::disk::{Disk, Ino, Kind, Loss, Op, ROOT, mix};
use super::history::{History, Step, read, submit};
use super::recording::{Lives, Recording, Stage, limits};
use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tidegate_spool::Spool;

/// Of the boundaries before the dense part, each of these counts.
const SPARSE: usize = 24;
/// Most operations that a cut loses from the end.
const LAST_MAX: u64 = 12;
/// Of the states, each of these is opened a second time: a store must be whole after it was opened.
const TWICE: u64 = 8;
/// Random cuts of one recorded opening.
const SECOND_CUTS: u64 = 24;
/// Of the second cuts, each of these follows a damaged database.
const SALVAGE: u64 = 3;

/// What to try of a recording.
pub(crate) struct Plan {
    /// Of the boundaries, each of these.
    pub(crate) every: usize,
    /// Random cuts.
    pub(crate) cuts: u64,
    /// Their randomness.
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Findings {
    /// Sync boundaries.
    pub(crate) boundaries: u64,
    /// Random cuts.
    pub(crate) cuts: u64,
    /// States that were opened.
    pub(crate) states: u64,
    /// Openings that had to salvage.
    pub(crate) salvages: u64,
    /// The longest opening, in milliseconds.
    pub(crate) slowest_ms: f64,
    /// States that did not open.
    pub(crate) unopened: u64,
    /// States in which a word was broken.
    pub(crate) broken: u64,
    /// The first breaches, in words.
    pub(crate) told: Vec<String>,
}

/// Breaches that are told in words.
const TOLD_MAX: usize = 20;

/// Tries states.
pub(crate) struct Explorer<'a> {
    /// Where states are written: memory will do, nothing is cut there.
    pub(crate) scratch: &'a Path,
    /// Where states that break a word are kept.
    pub(crate) keep: Option<&'a Path>,
    /// What was found so far.
    pub(crate) findings: Findings,
}

/// One state: after so many operations, with this loss.
type Point = (usize, Loss);

impl Explorer<'_> {
    /// Opens the states of a recording.
    pub(crate) fn explore(&mut self, recording: &Recording, plan: &Plan) -> anyhow::Result<()> {
        let points = self.points(recording, plan);
        let (mut disk, mut applied) = (recording.start.clone(), 0);
        let begin = Instant::now();
        for (number, (at, loss)) in points.iter().enumerate() {
            recording.ops[applied..*at].iter().for_each(|op| disk.apply(op));
            applied = *at;
            let label = format!("{}, after {at} of {} operations, {loss:?}", recording.name, recording.ops.len());
            self.state(&disk.image(*loss), (&recording.history, *at as u64), &label)?;
            progress(&recording.name, (number + 1, points.len()), begin);
        }
        Ok(())
    }

    fn points(&mut self, recording: &Recording, plan: &Plan) -> Vec<Point> {
        let mut chance = StdRng::seed_from_u64(plan.seed);
        let len = recording.ops.len();
        let syncs = recording.ops.iter().enumerate().filter(|(_, op)| matches!(op, Op::Sync { .. })).map(|(at, _)| at);
        let chosen = |index: usize, at: usize| {
            index.is_multiple_of(if at >= recording.dense_from { plan.every } else { plan.every * SPARSE })
        };
        let boundaries = syncs.enumerate().filter(|(index, at)| chosen(*index, *at)).map(|(_, at)| at);
        let boundaries: Vec<usize> = boundaries.chain([len]).collect();
        self.findings.boundaries += boundaries.len() as u64;
        self.findings.cuts += plan.cuts;
        let mut points: Vec<Point> =
            boundaries.into_iter().flat_map(|at| [(at, Loss::All), (at, Loss::Nothing)]).collect();
        for _ in 0..plan.cuts {
            points.push((chance.random_range(recording.dense_from..=len), random_loss(&mut chance)));
        }
        points.sort_by_key(|(at, _)| *at);
        points
    }

    /// Opens one state and holds the store to its word.
    fn state(&mut self, image: &Disk, told: (&History, u64), label: &str) -> anyhow::Result<()> {
        let (history, moment) = told;
        let dir = self.scratch.join("state");
        lay_out(image, &dir)?;
        let store = dir.join("store");
        self.findings.states += 1;
        let mut breaches = Vec::new();
        match self.open(&store, history, moment) {
            Ok(found) => breaches.extend(found),
            Err(error) => {
                self.findings.unopened += 1;
                breaches.push(format!("the store does not open: {error:#}"));
            }
        }
        if breaches.is_empty() && self.findings.states.is_multiple_of(TWICE) {
            breaches.extend(self.open(&store, history, moment)?.into_iter().map(|what| format!("again: {what}")));
        }
        if !breaches.is_empty() {
            self.tell(image, label, &breaches)?;
        }
        std::fs::remove_dir_all(&dir).context("cannot clear a state")
    }

    fn open(&mut self, store: &Path, history: &History, moment: u64) -> anyhow::Result<Vec<String>> {
        let begin = Instant::now();
        let (spool, found) = Spool::open(store, limits())?;
        self.findings.slowest_ms = self.findings.slowest_ms.max(begin.elapsed().as_secs_f64() * 1e3);
        self.findings.salvages += u64::from(found.quarantined.is_some());
        let mut breaches = history.breaches(moment, &spool, &found);
        let job = found.next_job.0;
        // The gateway that opens it goes on with it. The job is forgotten again, so that a second opening finds the same.
        for step in [Step::Keep, Step::Conclude] {
            if let Err(error) = submit(&spool, history.sizes.change(job, step)) {
                breaches.push(format!("the store refuses to go on: {error:#}"));
            }
        }
        if read(&spool, job).is_none() {
            breaches.push("what is stored after the opening cannot be read".to_owned());
        }
        for step in [Step::Release, Step::Forget] {
            submit(&spool, history.sizes.change(job, step)).unwrap_or_else(|error| breaches.push(format!("{error:#}")));
        }
        spool.close();
        Ok(breaches)
    }

    fn tell(&mut self, image: &Disk, label: &str, breaches: &[String]) -> anyhow::Result<()> {
        self.findings.broken += 1;
        if let Some(keep) = self.keep {
            let dir = keep.join(format!("state-{}", self.findings.broken));
            lay_out(image, &dir)?;
            std::fs::write(dir.join("why"), format!("{label}\n{}\n", breaches.join("\n")))?;
        }
        for breach in breaches {
            if self.findings.told.len() < TOLD_MAX {
                self.findings.told.push(format!("{label}: {breach}"));
            }
        }
        Ok(())
    }

    /// Cuts a recording, records the opening that follows, and cuts that.
    pub(crate) fn twice(&mut self, recording: &Recording, times: u64, seed: u64) -> anyhow::Result<()> {
        for round in 0..times {
            let mut chance = StdRng::seed_from_u64(mix(seed, round));
            let at = chance.random_range(1..=recording.ops.len());
            let loss = random_loss(&mut chance);
            let mut disk = recording.start.clone();
            recording.ops[..at].iter().for_each(|op| disk.apply(op));
            let mut image = disk.image(loss);
            let damaged = round % SALVAGE == 0 && damage_configuration(&mut image);
            let after = if damaged { "a salvage" } else { "the opening" };
            let name = format!("{after} after {at} operations of {}, {loss:?}", recording.name);
            let history = recording.history.until(at as u64);
            match reopened(self.scratch, &image, history, &name, mix(seed, round)) {
                Ok(second) => {
                    let plan = Plan { every: 1, cuts: SECOND_CUTS, seed: mix(seed, round + 1000) };
                    self.explore(&second, &plan)?;
                }
                Err(error) => self.tell(&image, &name, &[format!("{error:#}")])?,
            }
        }
        Ok(())
    }
}

/// Opens what a cut left, works a little, and closes: recorded.
fn reopened(scratch: &Path, image: &Disk, history: History, name: &str, seed: u64) -> anyhow::Result<Recording> {
    let (stage, found) = Stage::open(scratch, image.clone(), history)?;
    let mut lives = Lives::new(seed, found.next_job.0);
    for _ in 0..3 {
        lives.burst(&stage)?;
        stage.settle()?;
    }
    stage.end(name.to_owned(), image.clone())
}

fn random_loss(chance: &mut StdRng) -> Loss {
    let salt = chance.random();
    match chance.random_range(0..4) {
        0 => Loss::Last { operations: chance.random_range(0..=LAST_MAX), salt },
        1 => Loss::Reordered { salt },
        _ => Loss::Scattered { salt },
    }
}

/// Writes garbage into the database's configuration: the database does not open any more, and nothing in it is lost.
/// Says whether there was one.
fn damage_configuration(image: &mut Disk) -> bool {
    let Some(store) = image.find(ROOT, "store") else { return false };
    let generations: Vec<Ino> = image.names(store).filter(|(n, _)| n.starts_with("gen-")).map(|(_, ino)| ino).collect();
    let found = generations.into_iter().find_map(|generation| image.find(generation, "conf"));
    let Some(ino) = found else { return false };
    image.apply(&Op::Write { ino, at: 0, bytes: b"what is this".as_slice().into() });
    image.apply(&Op::Sync { ino });
    true
}

/// Writes a disk into a directory.
pub(crate) fn lay_out(image: &Disk, to: &Path) -> anyhow::Result<()> {
    lay_out_directory(image, ROOT, to.to_owned()).with_context(|| format!("cannot write a state to {}", to.display()))
}

fn lay_out_directory(image: &Disk, dir: Ino, to: PathBuf) -> std::io::Result<()> {
    std::fs::create_dir_all(&to)?;
    for (name, ino) in image.names(dir) {
        match image.kind(ino) {
            Some(Kind::Directory) => lay_out_directory(image, ino, to.join(name))?,
            // The ballast is looked at by its name only; a hole will do.
            Some(Kind::File) if name == "ballast" => {
                std::fs::File::create(to.join(name))?.set_len(image.content(ino).len() as u64)?;
            }
            Some(Kind::File) => std::fs::write(to.join(name), image.content(ino))?,
            None => {}
        }
    }
    Ok(())
}

/// Says how far it is, and how long it may still take.
pub(crate) fn progress(what: &str, done: (usize, usize), begin: Instant) {
    let (done, all) = done;
    let step = (all / 20).max(1);
    if done.is_multiple_of(step) || done == all {
        let left_s = begin.elapsed().as_secs_f64() / done as f64 * (all - done) as f64;
        eprintln!("{what}: {done} of {all}, {left_s:.0} s left");
    }
}
