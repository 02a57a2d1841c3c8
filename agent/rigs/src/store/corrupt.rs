//! The rig `corrupt`: bits flipped, pages overwritten and files cut short in every file of a store. It opens, gives
//! back what the damage did not touch, and says when something is missing.

use super::history::{History, Sizes, Step, settle, submit};
use super::recording::limits;
use super::states::progress;
use super::{memory_dir, records};
use crate::report::{Check, Common, finish, table};
use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tidegate_spool::{Recovered, Spool};

/// What a drive loses at once, in bytes.
const PAGE_BYTES: usize = 4096;
/// Bytes before and after the text of a record that belong to it: its envelope and fields, and a page's own framing.
const FRAMING_BYTES: usize = 300;
/// Share of the records outside the damaged pages that must be there, in percent.
const SALVAGED_PERCENT: f64 = 95.0;
/// Of the large files, one in this many is damaged in a round.
const LARGE: u32 = 40;
/// Jobs in the store.
const JOBS: u64 = 1_200;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Damages to each file [default: 40, short 3].
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How a file is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    /// One bit.
    Bit,
    /// Eight bits of one page.
    Bits,
    /// A page of zeros.
    Zeros,
    /// A page of noise.
    Noise,
    /// The end is gone.
    Cut,
    /// All of it is gone.
    Empty,
}

impl Damage {
    const ALL: [Self; 6] = [Self::Bit, Self::Bits, Self::Zeros, Self::Noise, Self::Cut, Self::Empty];

    /// Damages bytes; gives the pages that are touched, as a range of bytes.
    fn apply(self, bytes: &mut Vec<u8>, chance: &mut StdRng) -> Range<usize> {
        let len = bytes.len();
        let at = chance.random_range(0..len.max(1));
        let page = at / PAGE_BYTES * PAGE_BYTES..(at / PAGE_BYTES + 1) * PAGE_BYTES;
        let inside = page.start.min(len)..page.end.min(len);
        match self {
            Self::Bit => bytes[at] ^= 1_u8 << chance.random_range(0..8_u32),
            Self::Bits => {
                for _ in 0..8 {
                    let (at, bit) = (chance.random_range(inside.clone()), chance.random_range(0..8_u32));
                    bytes[at] ^= 1_u8 << bit;
                }
            }
            Self::Zeros => bytes[inside].fill(0),
            Self::Noise => bytes[inside].fill_with(|| chance.random()),
            Self::Cut => bytes.truncate(at),
            Self::Empty => bytes.clear(),
        }
        match self {
            Self::Bit | Self::Bits | Self::Zeros | Self::Noise => page,
            Self::Cut | Self::Empty => page.start * usize::from(self == Self::Cut)..usize::MAX,
        }
    }
}

/// What damages of one kind did.
#[derive(Debug, Clone, Default)]
struct Toll {
    rounds: u32,
    unopened: u32,
    /// Records outside the damaged pages, and how many of them are there.
    outside: u64,
    there: u64,
    /// The lowest share of any round, in percent.
    lowest: Option<f64>,
    /// Rounds in which something was missing and nothing was said.
    silent: u32,
    /// Records that are not what was stored, and prompts that are open beside their outcome.
    wrong: u32,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let rounds = options.rounds.unwrap_or(if options.common.short { 3 } else { 40 });
    let scratch = memory_dir("corrupt")?;
    let master = Master::new(scratch.path())?;
    let mut chance = StdRng::seed_from_u64(options.seed);
    let mut tolls: BTreeMap<(String, Damage), Toll> = BTreeMap::new();
    let (begin, mut done) = (Instant::now(), 0);
    for round in 0..rounds {
        for file in &master.files {
            // Of the many large files a few will do: they are all alike.
            if file.name.starts_with("large/") && !chance.random_ratio(1, LARGE) {
                continue;
            }
            let damage = Damage::ALL[chance.random_range(0..Damage::ALL.len())];
            let toll = tolls.entry((kind(&file.name), damage)).or_default();
            one(&master, file, (damage, toll), &mut chance)
                .with_context(|| format!("{damage:?} of {}, round {round} of seed {}", file.name, options.seed))?;
            done += 1;
        }
        progress("rounds of damage", (round as usize + 1, rounds as usize), begin);
    }
    println!("{} records in {} files of a store", master.records.len(), master.files.len());
    println!("{}", table(&["file and damage", "rounds", "there, %", "lowest, %", "wrong", "silent"], &rows(&tolls)));
    let sum = |of: fn(&Toll) -> u64| tolls.values().map(of).sum::<u64>() as f64;
    let lowest = tolls.values().filter_map(|t| t.lowest).fold(100.0, f64::min);
    let checks = [
        Check::at_least("damages", f64::from(done), f64::from(4 * rounds), "damages"),
        Check::at_most("stores that do not open", sum(|t| t.unopened.into()), 0.0, "stores"),
        Check::at_most("wrong records", sum(|t| t.wrong.into()), 0.0, "records"),
        Check::at_most("losses without a word", sum(|t| t.silent.into()), 0.0, "stores"),
        Check::at_least("there of what was not damaged, lowest", lowest, SALVAGED_PERCENT, "% of the records"),
    ];
    finish("corrupt", &options.common, &checks, &json!({ "seed": options.seed, "records": master.records.len() }))
}

fn rows(tolls: &BTreeMap<(String, Damage), Toll>) -> Vec<Vec<String>> {
    let row = |((name, damage), toll): (&(String, Damage), &Toll)| {
        let share = 100.0 * toll.there as f64 / toll.outside.max(1) as f64;
        let lowest = toll.lowest.unwrap_or(100.0);
        let (wrong, silent) = (toll.wrong + toll.unopened, toll.silent);
        let name = format!("{name}, {damage:?}");
        vec![
            name,
            toll.rounds.to_string(),
            format!("{share:.2}"),
            format!("{lowest:.2}"),
            wrong.to_string(),
            silent.to_string(),
        ]
    };
    tolls.iter().map(row).collect()
}

/// The kind of a file: its name without numbers.
fn kind(name: &str) -> String {
    let plain: String = name.chars().filter(|c| !c.is_ascii_digit()).collect();
    plain.trim_end_matches(['-', '.']).to_owned()
}

/// A record: whether it is an outcome, and of which job.
type Record = (Class, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Prompt,
    Escalation,
    Outcome,
}

/// A file of the store, and which records lie where in it.
struct StoredFile {
    name: String,
    bytes: Vec<u8>,
    texts: Vec<(u64, Range<usize>)>,
}

/// A store that is damaged again and again.
struct Master {
    scratch: PathBuf,
    files: Vec<StoredFile>,
    records: BTreeSet<Record>,
    history: History,
}

impl Master {
    fn new(scratch: &Path) -> anyhow::Result<Self> {
        let dir = scratch.join("master");
        let history = History { facts: Vec::new(), sizes: Sizes::Mixed };
        fill(&dir, history.sizes)?;
        // The second opening leaves a snapshot, which can be damaged as well.
        let (spool, found) = Spool::open(&dir, limits())?;
        spool.close();
        let mut files = Vec::new();
        read_files(&dir, "", &mut files)?;
        Ok(Self { scratch: scratch.to_owned(), files, records: recovered(&found), history })
    }

    /// Records of which some copy lies outside the damage. Prompt, escalation and outcome of a job share their text:
    /// where a copy cannot be told from another's, it counts for both.
    fn outside(&self, damaged: &str, pages: &Range<usize>) -> BTreeSet<Record> {
        let mut jobs = BTreeSet::new();
        for file in &self.files {
            let clear =
                |range: &Range<usize>| file.name != damaged || range.end <= pages.start || range.start >= pages.end;
            jobs.extend(file.texts.iter().filter(|(_, range)| clear(range)).map(|(job, _)| *job));
        }
        self.records.iter().filter(|(_, job)| jobs.contains(job)).copied().collect()
    }
}

/// One in two jobs has its outcome, one in two of those is released; one in four open ones is escalated.
fn fill(dir: &Path, sizes: Sizes) -> anyhow::Result<()> {
    let (spool, _) = Spool::open(dir, limits())?;
    for job in 1..=JOBS {
        let steps: &[Step] = match job % 8 {
            0 | 1 => &[Step::Keep, Step::Conclude],
            2 | 3 => &[Step::Keep, Step::Conclude, Step::Release],
            4 => &[Step::Keep, Step::Mark, Step::Escalate],
            _ => &[Step::Keep],
        };
        for step in steps {
            spool.submit(sizes.change(job, *step), |_| {});
        }
        if job % 32 == 0 {
            settle(&spool)?;
        }
    }
    settle(&spool)?;
    spool.close();
    Ok(())
}

fn recovered(found: &Recovered) -> BTreeSet<Record> {
    let prompts = found.prompts.iter().map(|p| (Class::Prompt, p.job.0));
    let escalations = found.escalations.iter().map(|e| (Class::Escalation, e.job.0));
    prompts.chain(escalations).chain(found.seen.iter().map(|s| (Class::Outcome, s.job.0))).collect()
}

/// All files but the lock, which holds nothing, and the ballast, which is read by nobody.
fn read_files(dir: &Path, prefix: &str, files: &mut Vec<StoredFile>) -> anyhow::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_files(&entry.path(), &format!("{name}/"), files)?;
        } else if !matches!(name.as_str(), "lock" | "ballast") {
            let bytes = std::fs::read(entry.path())?;
            let texts = texts(&bytes);
            files.push(StoredFile { name, bytes, texts });
        }
    }
    if prefix.is_empty() && !files.iter().any(|file| file.name.starts_with("large/")) {
        bail!("the store holds no large files");
    }
    Ok(())
}

/// Every text of a record in a file: its job, and the bytes that belong to it. A text begins with `JOB.0 JOB.1 `.
fn texts(bytes: &[u8]) -> Vec<(u64, Range<usize>)> {
    let mut found = Vec::new();
    for at in 0..bytes.len() {
        if at > 0 && bytes[at - 1].is_ascii_digit() {
            continue;
        }
        let digits = bytes[at..].iter().take(6).take_while(|b| b.is_ascii_digit()).count();
        let Some(job) = std::str::from_utf8(&bytes[at..at + digits]).ok().and_then(|d| d.parse::<u64>().ok()) else {
            continue;
        };
        if bytes[at..].starts_with(format!("{job}.0 {job}.1 ").as_bytes()) {
            let end = at + Sizes::Mixed.of(job) + FRAMING_BYTES;
            found.push((job, at.saturating_sub(FRAMING_BYTES)..end));
        }
    }
    found
}

/// Damages one file and opens the store.
fn one(master: &Master, file: &StoredFile, toll: (Damage, &mut Toll), chance: &mut StdRng) -> anyhow::Result<()> {
    let (damage, toll) = toll;
    toll.rounds += 1;
    let mut bytes = file.bytes.clone();
    if bytes.is_empty() {
        return Ok(());
    }
    let pages = damage.apply(&mut bytes, chance);
    let dir = master.scratch.join("damaged");
    for other in &master.files {
        let path = dir.join(&other.name);
        std::fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
        std::fs::write(path, if other.name == file.name { &bytes } else { &other.bytes })?;
    }
    match Spool::open(&dir, limits()) {
        Ok((spool, found)) => judge(master, (&file.name, &pages), (&spool, &found), toll),
        Err(error) => {
            println!("{damage:?} of {}: {error}", file.name);
            toll.unopened += 1;
        }
    }
    std::fs::remove_dir_all(&dir).context("cannot clear a store")
}

fn judge(master: &Master, damaged: (&str, &Range<usize>), opened: (&Spool, &Recovered), toll: &mut Toll) {
    let (spool, found) = opened;
    let there = recovered(found);
    let outside = master.outside(damaged.0, damaged.1);
    let kept = outside.intersection(&there).count() as u64;
    toll.outside += outside.len() as u64;
    toll.there += kept;
    let share = 100.0 * kept as f64 / outside.len().max(1) as f64;
    toll.lowest = Some(toll.lowest.map_or(share, |lowest| lowest.min(share)));
    let missing = master.records.difference(&there).count();
    let said = found.quarantined.is_some() || found.unreadable > 0;
    toll.silent += u32::from(missing > 0 && !said);
    toll.wrong += wrong(master, spool, found);
    let alive = submit(spool, master.history.sizes.change(found.next_job.0, Step::Keep));
    toll.unopened += u32::from(alive.is_err());
    spool.clone().close();
}

/// Records that differ from what was stored, and jobs that are open beside their outcome.
fn wrong(master: &Master, spool: &Spool, found: &Recovered) -> u32 {
    let sizes = master.history.sizes;
    let outcomes: BTreeSet<u64> = found.seen.iter().map(|s| s.job.0).collect();
    let prompts = found.prompts.iter().filter(|p| {
        let stored = records::prompt(p.job.0, sizes.of(p.job.0));
        outcomes.contains(&p.job.0) || **p != tidegate_spool::PromptRecord { attempts: p.attempts, ..stored }
    });
    let others = outcomes.iter().filter(|job| {
        super::history::read(spool, **job).is_none_or(|o| o.frame != records::outcome(**job, sizes.of(**job)).frame)
    });
    (prompts.count() + others.count()) as u32
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_records_are_found_where_they_lie() {
        let mut bytes = vec![0xff; 1000];
        let frame = records::outcome(12, 100).frame;
        bytes.extend_from_slice(&frame);
        bytes.push(0);
        bytes.extend_from_slice(&records::outcome(112, 100).frame);
        let jobs: Vec<(u64, usize)> = texts(&bytes).into_iter().map(|(job, range)| (job, range.start)).collect();
        assert_eq!(jobs, [(12, 700), (112, 801)]);
    }

    #[test]
    fn damage_stays_in_its_pages() {
        let mut chance = StdRng::seed_from_u64(5);
        for damage in Damage::ALL {
            let mut bytes = vec![7; 3 * PAGE_BYTES];
            let pages = damage.apply(&mut bytes, &mut chance);
            assert_ne!(bytes, vec![7; 3 * PAGE_BYTES], "{damage:?}");
            assert!(bytes[..pages.start].iter().all(|b| *b == 7), "{damage:?}");
            assert!(bytes.iter().skip(pages.end).all(|b| *b == 7), "{damage:?}");
        }
    }

    #[test]
    fn files_are_of_a_kind() {
        assert_eq!(kind("gen-1/snap.0000A"), "gen-/snap.A");
        assert_eq!(kind("large/p-12"), "large/p");
    }
}
