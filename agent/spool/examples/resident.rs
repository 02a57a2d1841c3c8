//! Resident memory of a process that holds nothing but a store, fresh and after prompts that were answered.
//!
//! `cargo run --release -p tidegate-spool --example resident -- [DIR [PROMPTS]]`
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tidegate_schemas::{DeviceId, Encoding, JobId, Prompt, Reply};
use tidegate_spool::{Change, Counts, Limits, OutcomeRecord, PromptRecord, Spool, SpoolError, Stamp};

/// Prompts under way at once.
const WINDOW: u64 = 32;
/// Longest wait for one answer.
const WAIT_MAX: Duration = Duration::from_secs(30);

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    if dir == Path::new("--open") {
        return open(Path::new(&args.next().ok_or("--open needs a directory")?));
    }
    let prompts = args.next().map_or(Ok(20_000), |s| s.parse())?;
    let dir = dir.join(format!("resident-{}", std::process::id()));
    let (spool, _) = Spool::open(&dir, Limits::default())?;
    println!("fresh: {} KiB", resident_kib()?);
    let start = Instant::now();
    for first in (1..=prompts).step_by(WINDOW as usize) {
        let jobs = first..(first + WINDOW).min(prompts + 1);
        round(&spool, jobs.clone(), |job| Ok(Change::Keep(prompt(job)?)))?;
        round(&spool, jobs.clone(), |job| Ok(Change::MarkAttempt { job: JobId(job), attempts: 1 }))?;
        round(&spool, jobs.clone(), |job| Ok(Change::Conclude(outcome(job)?)))?;
        round(&spool, jobs, |job| Ok(Change::Release { job: JobId(job) }))?;
    }
    println!("after {prompts} prompts in {:.1} s: {} KiB", start.elapsed().as_secs_f64(), resident_kib()?);
    println!("{:?}", counts(&spool)?);
    spool.close();
    println!("closed: {} KiB", resident_kib()?);
    let again = std::process::Command::new(std::env::current_exe()?).arg("--open").arg(&dir).status()?;
    fs::remove_dir_all(&dir)?;
    again.success().then_some(()).ok_or("the second process failed")?;
    Ok(())
}

/// What a process sees that opens a store which is there.
fn open(dir: &Path) -> Result<(), Failed> {
    let start = Instant::now();
    let (spool, recovered) = Spool::open(dir, Limits::default())?;
    println!("opened in {} ms: {} KiB", start.elapsed().as_millis(), resident_kib()?);
    drop(recovered);
    println!("{:?}: {} KiB", counts(&spool)?, resident_kib()?);
    spool.close();
    Ok(())
}

fn round(
    spool: &Spool,
    jobs: std::ops::Range<u64>,
    change: impl Fn(u64) -> Result<Change, Failed>,
) -> Result<(), Failed> {
    let (done, all) = sync_channel(WINDOW as usize);
    for job in jobs.clone() {
        submit(spool, change(job)?, done.clone());
    }
    for _ in jobs {
        all.recv_timeout(WAIT_MAX)??;
    }
    Ok(())
}

fn submit(spool: &Spool, change: Change, done: SyncSender<Result<(), SpoolError>>) {
    spool.submit(change, move |result| drop(done.try_send(result)));
}

fn counts(spool: &Spool) -> Result<Counts, Failed> {
    let (done, counts) = sync_channel(1);
    spool.counts(move |counts| drop(done.try_send(Box::new(counts))));
    Ok(*counts.recv_timeout(WAIT_MAX)?)
}

fn prompt(job: u64) -> Result<PromptRecord, Failed> {
    let device: DeviceId = format!("press-{}", job % 8).parse()?;
    let prompt = Prompt { id: Some(format!("b3f1-{job}").parse()?), ..Prompt::bare(&"turn it off ".repeat(10)) };
    let (job, encoding, stamp, reply) = (JobId(job), Encoding::Cbor, Stamp::now(), Reply::default());
    Ok(PromptRecord { job, device, prompt, encoding, bytes: 160, stamp, attempts: 0, reply })
}

fn outcome(job: u64) -> Result<OutcomeRecord, Failed> {
    let PromptRecord { job, device, prompt, encoding, stamp, reply, .. } = prompt(job)?;
    let hash = prompt.content_hash();
    let frame = vec![b'x'; 350];
    let id = prompt.id;
    Ok(OutcomeRecord {
        job,
        device,
        id,
        hash,
        encoding,
        frame,
        notice: None,
        released: false,
        reach: tidegate_spool::Reach::Cloud,
        stamp,
        reply,
    })
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> Result<String, Failed> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").to_owned())
}
