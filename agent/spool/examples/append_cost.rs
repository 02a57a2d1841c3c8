//! Durable pushes per second by group size, beside a bare append + fdatasync loop in the same directory.
//!
//! `cargo run --release -p tidegate-spool --example append_cost -- [DIR [SECONDS]]`
#![allow(clippy::print_stdout)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use tidegate_schemas::{DeviceId, Encoding, JobId, Prompt, Reply};
use tidegate_spool::{Change, Limits, PromptRecord, Room, Spool, Stamp};

/// Text of each prompt, in bytes: a sentence or two.
const TEXT_BYTES: usize = 300;
/// Bytes that the bare loop appends: what one prompt of that text takes as a record.
const RECORD_BYTES: usize = 560;
/// Longest wait for one group.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What one measurement found.
struct Rate {
    pushes_per_s: f64,
    p50_us: u128,
    p99_us: u128,
    file_bytes: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = args.next().map_or(Ok(3), |s| s.parse())?;
    let dir = dir.join(format!("append-cost-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    println!("group  spool/s  p50 us  p99 us  bare/s  p50 us  p99 us  spool/bare  file bytes/push");
    for group in [1, 8, 32, 128] {
        let (spool, pushes) = spool(&dir.join(format!("spool-{group}")), group, Duration::from_secs(seconds))?;
        let (bare, _) = bare(&dir.join("bare"), group, Duration::from_secs(seconds))?;
        println!(
            "{group:5}  {:7.0}  {:6}  {:6}  {:6.0}  {:6}  {:6}  {:10.2}  {:15.0}",
            spool.pushes_per_s,
            spool.p50_us,
            spool.p99_us,
            bare.pushes_per_s,
            bare.p50_us,
            bare.p99_us,
            spool.pushes_per_s / bare.pushes_per_s,
            spool.file_bytes as f64 / pushes as f64,
        );
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn rate(times: &mut [Duration], group: usize, file_bytes: u64) -> (Rate, usize) {
    times.sort_unstable();
    let total: Duration = times.iter().sum();
    let pushes = times.len() * group;
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_micros();
    let pushes_per_s = pushes as f64 / total.as_secs_f64();
    (Rate { pushes_per_s, p50_us: at(50), p99_us: at(99), file_bytes }, pushes)
}

fn spool(dir: &Path, group: usize, time: Duration) -> Result<(Rate, usize), Box<dyn std::error::Error>> {
    let many = 100_000_000;
    let limits = Limits {
        inbox_entries_max: many,
        inbox_bytes_max: u64::MAX / 2,
        inbox_device: Room { entries_max: many, bytes_max: u64::MAX / 2 },
        outcomes_entries_max: many,
        outcomes_bytes_max: u64::MAX / 2,
        outcomes_device: Room { entries_max: many, bytes_max: u64::MAX / 2 },
        group_commit_max: group,
        free_bytes_min: 0,
        // What the disk can do; a gateway holds its syncs to a pace.
        sync_every_ms: 0,
        ..Limits::default()
    };
    let (spool, recovered) = Spool::open(dir, limits)?;
    let mut job = recovered.next_job.0;
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let begun = Instant::now();
        let (done, all) = sync_channel(group);
        for _ in 0..group {
            let done = done.clone();
            spool.submit(Change::Keep(prompt(job)?), move |result| drop(done.try_send(result)));
            job += 1;
        }
        for _ in 0..group {
            all.recv_timeout(WAIT_MAX)??;
        }
        times.push(begun.elapsed());
    }
    let (counted, counts) = sync_channel(1);
    spool.counts(move |counts| drop(counted.try_send(Box::new(counts))));
    let file_bytes = counts.recv_timeout(WAIT_MAX)?.file_bytes;
    spool.close();
    Ok(rate(&mut times, group, file_bytes))
}

fn prompt(job: u64) -> Result<PromptRecord, tidegate_schemas::IdError> {
    let device: DeviceId = "press-4".parse()?;
    Ok(PromptRecord {
        job: JobId(job),
        device,
        prompt: Prompt { id: Some(format!("b3f1-{job}").parse()?), ..Prompt::bare(&"x".repeat(TEXT_BYTES)) },
        encoding: Encoding::Cbor,
        bytes: TEXT_BYTES as u32,
        stamp: Stamp::now(),
        attempts: 0,
        reply: Reply::default(),
    })
}

fn bare(path: &Path, group: usize, time: Duration) -> io::Result<(Rate, usize)> {
    let mut file = File::create(path)?;
    let record = [7; RECORD_BYTES];
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let begun = Instant::now();
        for _ in 0..group {
            file.write_all(&record)?;
        }
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    let file_bytes = file.metadata()?.len();
    Ok(rate(&mut times, group, file_bytes))
}
