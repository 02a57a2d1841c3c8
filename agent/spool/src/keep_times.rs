//! Tests of what happens with time and room: pruning, reservation, generations. They drive the store without its
//! thread, because no test waits for a day.
#![allow(clippy::unwrap_used)]

use crate::envelope::Class;
use crate::limits::Limits;
use crate::open::open;
use crate::record::{Change, OutcomeRecord, PromptRecord, Reach};
use crate::staged::Staged;
use crate::stamp::Stamp;
use crate::store::Store;
use crate::{Bound, QueueClass, SpoolError};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tidegate_schemas::{ContentHash, Encoding, JobId, Prompt, Reply};

const DAY: u64 = 24 * 3600 * 1000;

fn stamp(boot_ms: u64) -> Stamp {
    Stamp { boot_ms, boot_id: [1; 16], wall_ms: 0, wall_trusted: false }
}

fn prompt(job: u64) -> Change {
    let device = "dev-1".parse().unwrap();
    let (prompt, encoding, stamp) = (Prompt::bare("hello"), Encoding::Text, stamp(0));
    let (bytes, attempts, reply) = (5, 0, Reply::default());
    Change::Keep(PromptRecord { job: JobId(job), device, prompt, encoding, bytes, stamp, attempts, reply })
}

fn outcome(job: u64, len: usize, boot_ms: u64) -> Change {
    Change::Conclude(OutcomeRecord {
        job: JobId(job),
        device: "dev-1".parse().unwrap(),
        id: None,
        hash: ContentHash([0; 16]),
        encoding: Encoding::Text,
        frame: vec![b'x'; len],
        notice: None,
        released: false,
        reach: Reach::Cloud,
        stamp: stamp(boot_ms),
        reply: Reply::default(),
    })
}

fn store(dir: &Path, limits: Limits) -> Store {
    open(dir, Limits { free_bytes_min: 0, ..limits }).unwrap().0
}

fn apply(store: &mut Store, changes: impl IntoIterator<Item = Change>) -> Vec<Result<(), SpoolError>> {
    let mut staged = Staged::default();
    let results = changes.into_iter().map(|c| store.stage(c, &mut staged)).collect();
    store.commit(staged).unwrap();
    results
}

fn prune(store: &mut Store, now: u64) -> bool {
    let mut staged = Staged::default();
    let more = store.prune(&stamp(now), &mut staged);
    store.commit(staged).unwrap();
    more
}

#[test]
fn outcomes_go_when_their_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), Limits::default());
    for job in 1..=3 {
        apply(&mut store, [prompt(job), outcome(job, 10_000, 1000)]);
    }
    apply(&mut store, [Change::Release { job: JobId(2) }]);
    assert!(!prune(&mut store, 1000 + DAY));
    assert_eq!(store.counts().outcomes.entries, 3, "at the limit all are there");
    prune(&mut store, 1001 + DAY);
    assert_eq!(store.index.outcomes.numbers(0).collect::<Vec<_>>(), [1, 3], "the released one is over seen_keep");
    prune(&mut store, 1001 + 7 * DAY);
    let counts = store.counts();
    assert_eq!((counts.outcomes.entries, counts.outcomes.bytes), (0, 0));
    assert_eq!((counts.pruned, counts.dropped), (1, 2));
    assert_eq!(store.large.keys().unwrap(), []);
    drop(store);
    let (_store, recovered) = open(dir.path(), Limits::default()).unwrap();
    assert_eq!(recovered.next_job, JobId(4), "numbers are not used again when all is pruned");
}

#[test]
fn pruning_takes_a_round_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), Limits::default());
    apply(
        &mut store,
        (1..=300).flat_map(|job| [prompt(job), outcome(job, 10, 0), Change::Release { job: JobId(job) }]),
    );
    assert!(prune(&mut store, 2 * DAY));
    assert_eq!(store.counts().outcomes.entries, 44);
    assert!(!prune(&mut store, 2 * DAY));
    assert_eq!(store.counts().outcomes.entries, 0);
}

#[test]
fn an_admitted_prompt_holds_room_for_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), Limits { outcomes_entries_max: 3, ..Limits::default() });
    let kept = apply(&mut store, (1..=4).map(prompt));
    let full = Err(SpoolError::Full { what: Bound::Entries(QueueClass::Outcomes), would: 4, max: 3 });
    assert_eq!(kept, [Ok(()), Ok(()), Ok(()), full.clone()]);
    assert_eq!(apply(&mut store, (1..=3).map(|job| outcome(job, 10, 0))), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(apply(&mut store, [prompt(5)]), [full], "what nobody took yet is not pruned for new prompts");
    apply(&mut store, [3, 2].map(|job| Change::Release { job: JobId(job) }));
    assert_eq!(apply(&mut store, [prompt(6)]), [Ok(())]);
    assert_eq!(store.index.outcomes.numbers(0).collect::<Vec<_>>(), [1, 3], "the oldest released one went");
}

#[test]
fn room_is_held_in_bytes_too() {
    let dir = tempfile::tempdir().unwrap();
    let max = 2 * crate::index::RESERVED_BYTES;
    let mut store = store(dir.path(), Limits { outcomes_bytes_max: max, ..Limits::default() });
    let kept = apply(&mut store, (1..=3).map(prompt));
    let would = 3 * crate::index::RESERVED_BYTES;
    assert_eq!(kept, [Ok(()), Ok(()), Err(SpoolError::Full { what: Bound::Bytes(QueueClass::Outcomes), would, max })]);
}

#[test]
fn a_full_disk_refuses_new_prompts_and_takes_outcomes() {
    let dir = tempfile::tempdir().unwrap();
    apply(&mut store(dir.path(), Limits::default()), [prompt(1), prompt(2)]);
    let (mut store, _) = open(dir.path(), Limits { free_bytes_min: u64::MAX, ..Limits::default() }).unwrap();
    let results = apply(&mut store, [prompt(3), outcome(1, 10, 0), Change::Release { job: JobId(1) }]);
    assert!(matches!(results[0], Err(SpoolError::DiskFull { min: u64::MAX, .. })));
    assert_eq!(results[1..], [Ok(()), Ok(())]);
}

#[test]
fn a_new_generation_holds_all_and_only_what_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), Limits::default());
    apply(&mut store, (1..=50).map(prompt));
    apply(&mut store, (1..=40).map(|job| outcome(job, if job % 7 == 0 { 9_000 } else { 90 }, 0)));
    apply(&mut store, (1..=20).map(|job| Change::Release { job: JobId(job) }));
    apply(&mut store, (1..=10).map(|job| Change::Forget { job: JobId(job) }));
    store.switch_generation().unwrap();
    assert_eq!((store.generation, store.counts().switches), (2, 1));
    assert!(!dir.path().join("gen-1").exists());
    apply(&mut store, [prompt(51), outcome(51, 10, 0)]);
    assert_eq!(store.outcome(JobId(14)).unwrap().frame.len(), 9_000);
    let before = store.counts();
    drop(store);
    let (store, recovered) = open(dir.path(), Limits::default()).unwrap();
    let after = store.counts();
    assert_eq!((after.prompts, after.outcomes, after.pending), (before.prompts, before.outcomes, before.pending));
    assert_eq!((recovered.next_job, recovered.quarantined), (JobId(52), None));
    assert_eq!(store.large.keys().unwrap().iter().filter(|k| k.class == Class::Outcome).count(), 4);
}

#[test]
fn a_burst_wears_a_generation_out_and_a_new_one_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), Limits::default());
    let jobs: Vec<u64> = (1..=10_240).collect();
    for some in jobs.chunks(128) {
        apply(&mut store, some.iter().flat_map(|j| [prompt(*j), outcome(*j, 3_500, 0)]));
    }
    assert!(!store.is_worn(), "{} bytes of file live", store.index.live_bytes());
    for some in jobs.chunks(512) {
        let gone = some.iter().map(|j| JobId(*j)).flat_map(|job| [Change::Release { job }, Change::Forget { job }]);
        apply(&mut store, gone);
    }
    assert!(store.is_worn(), "{} bytes of file", store.counts().file_bytes);
    store.switch_generation().unwrap();
    assert!(store.counts().file_bytes < 4 << 20, "{} bytes of file", store.counts().file_bytes);
    assert!(!store.is_worn());
}

/// What a power cut in the first opening of a new generation may leave: sled has wiped a segment, its snapshot is gone,
/// and what follows the gap it takes for torn. Here the header of any one segment stands for the gap.
#[test]
fn what_sled_forgets_of_a_new_generation_the_journal_knows() {
    const SEGMENT: u64 = 512 << 10;
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), Limits::default());
    for some in (1..=2_000).collect::<Vec<u64>>().chunks(64) {
        apply(&mut store, some.iter().flat_map(|j| [prompt(*j), outcome(*j, 3_500, 0)]));
    }
    apply(&mut store, [Change::Release { job: JobId(1) }, Change::Forget { job: JobId(1) }]);
    store.switch_generation().unwrap();
    drop(store);
    let generation = dir.path().join("gen-2");
    let segments = std::fs::metadata(generation.join("db")).unwrap().len().div_ceil(SEGMENT);
    for segment in 0..segments {
        let snapshots: Vec<_> = std::fs::read_dir(&generation).unwrap().map(|entry| entry.unwrap().path()).collect();
        let snapshots =
            snapshots.into_iter().filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("snap."));
        snapshots.for_each(|path| std::fs::remove_file(path).unwrap());
        let log = std::fs::File::options().write(true).open(generation.join("db")).unwrap();
        log.write_all_at(&[0; 20], segment * SEGMENT).unwrap();
        let (store, recovered) = open(dir.path(), Limits { free_bytes_min: 0, ..Limits::default() }).unwrap();
        assert_eq!(recovered.unreadable, 0);
        assert!((2..=2_000).all(|job| store.outcome(JobId(job)).is_some()));
        assert_eq!(store.counts().outcomes.entries, 1_999);
        drop(store);
        if recovered.quarantined.is_some() {
            break;
        }
    }
}

#[test]
fn a_new_generation_without_the_chunks_of_what_is_gone_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), Limits::default());
    apply(&mut store, (1..=40).flat_map(|job| [prompt(job), outcome(job, 90, 0), Change::Release { job: JobId(job) }]));
    // Out of order: the horizon does not say it all, and the chunk that does is the latest record.
    apply(&mut store, [30, 17].map(|job| Change::Forget { job: JobId(job) }));
    store.switch_generation().unwrap();
    drop(store);
    let (store, recovered) = open(dir.path(), Limits::default()).unwrap();
    assert_eq!((recovered.quarantined, recovered.salvaged, store.counts().outcomes.entries), (None, 0, 38));
}
