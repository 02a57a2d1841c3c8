//! Durable pushes per second by group size, beside what the file system can do at best: an append and an `fdatasync` per
//! group. The directory is the build's own; `TIDEGATE_BENCH_DIR` names another, on the storage that is to be judged.
//!
//! `cargo bench -p tidegate-spool`
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate_schemas::Priority;
use tidegate_spool::{Change, ForwardId, ForwardProperties, ForwardRecord, Limits, Room, Spool, Stamp};

/// Pushes that share one sync.
const GROUPS: [u64; 5] = [1, 4, 16, 64, 128];
/// A meter's reading with its names.
const PAYLOAD_BYTES: usize = 256;
/// What a push of it writes at least: payload, header, and the CBOR of names and times.
const RECORD_BYTES: usize = 512;
const SAMPLES: usize = 10;
const TIME: Duration = Duration::from_secs(3);

fn room() -> TempDir {
    let dir = std::env::var_os("TIDEGATE_BENCH_DIR");
    tempfile::tempdir_in(dir.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)).unwrap()
}

fn reading() -> ForwardRecord {
    ForwardRecord {
        entry: ForwardId(0),
        source: "meter-1".parse().unwrap(),
        rule: "meters".to_owned(),
        topic: "plant/meter-1/reading".to_owned(),
        payload: vec![b'7'; PAYLOAD_BYTES],
        retain: false,
        priority: Priority::default(),
        ttl_ms: None,
        stamp: Stamp::now(),
        properties: ForwardProperties::default(),
    }
}

/// Submits all and waits for all; each is on disk then.
fn all(spool: &Spool, changes: impl Iterator<Item = Change>) {
    let (done, answers) = sync_channel(1024);
    let mut open = 0;
    for change in changes {
        let done = done.clone();
        spool.submit(change, move |result| done.send(result).unwrap());
        open += 1;
    }
    (0..open).for_each(|_| answers.recv().unwrap().unwrap());
}

/// Takes out what was pushed, so that every round meets the same store. Not timed.
fn empty(spool: &Spool) {
    let (done, taken) = sync_channel(1);
    spool.take_forwards(Room { entries_max: 4096, bytes_max: 1 << 30 }, move |due| done.send(due).unwrap());
    let taken = taken.recv().unwrap();
    all(spool, taken.into_iter().map(|due| Change::ForwardDone { entry: due.record.entry }));
}

fn spool(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable pushes");
    group.sample_size(SAMPLES).measurement_time(TIME).warm_up_time(Duration::from_millis(500));
    for size in GROUPS {
        let dir = room();
        let (store, _) =
            Spool::open(dir.path(), Limits { free_bytes_min: 0, sync_every_ms: 0, ..Limits::default() }).unwrap();
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::new("spool", size), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let start = Instant::now();
                    all(&store, (0..size).map(|_| Change::Forward(reading())));
                    spent += start.elapsed();
                    empty(&store);
                }
                spent
            });
        });
        store.close();
    }
    group.finish();
}

fn bare(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable pushes");
    group.sample_size(SAMPLES).measurement_time(TIME).warm_up_time(Duration::from_millis(500));
    for size in GROUPS {
        let dir = room();
        let mut file = File::create(dir.path().join("log")).unwrap();
        let record = vec![7; RECORD_BYTES * size as usize];
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::new("bare fdatasync", size), |b| {
            b.iter(|| {
                file.write_all(&record).unwrap();
                file.sync_data().unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, spool, bare);
criterion_main!(benches);
