//! Damage of every kind: the store opens, keeps what can be read, and says what it did.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{copy, counts, escalation, limits, outcome, prompt, read, submit};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tidegate_schemas::JobId;
use tidegate_spool::{Change, Limits, Recovered, Spool};

/// Jobs 1 to 40 have outcomes, odd ones released; 41 to 80 are open prompts, every fourth escalated. Every tenth
/// record is large.
fn filled() -> (TempDir, PathBuf) {
    filled_with(limits())
}

fn filled_with(limits: Limits) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let (spool, _) = Spool::open(&dir, limits).unwrap();
    let len = |job: u64| if job.is_multiple_of(10) { 20_000 } else { 300 };
    for job in 1..=80 {
        submit(&spool, Change::Keep(prompt(job, len(job)))).unwrap();
        if job.is_multiple_of(4) {
            submit(&spool, Change::Escalate(escalation(job, len(job)))).unwrap();
        }
    }
    for job in 1..=40 {
        submit(&spool, Change::Conclude(outcome(job, len(job)))).unwrap();
        if job % 2 == 1 {
            submit(&spool, Change::Release { job: JobId(job) }).unwrap();
        }
    }
    spool.close();
    (root, dir)
}

fn generation(dir: &Path) -> PathBuf {
    let mut found = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    found.find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("gen-")).unwrap()
}

/// Everything is there.
fn check_whole(spool: &Spool, found: &Recovered) {
    assert_eq!(found.prompts, (41..=80).map(|j| prompt(j, if j % 10 == 0 { 20_000 } else { 300 })).collect::<Vec<_>>());
    assert_eq!(found.escalations.len(), 10);
    assert_eq!(found.seen.len(), 40);
    assert_eq!(found.pending.iter().map(|(_, j)| j.0).collect::<Vec<_>>(), (2..=40).step_by(2).collect::<Vec<_>>());
    for job in 1..=40 {
        let stored = read(spool, job).unwrap();
        assert_eq!(stored.frame, outcome(job, if job % 10 == 0 { 20_000 } else { 300 }).frame);
    }
}

/// The store takes new work and keeps it.
fn check_alive(spool: Spool, dir: &Path, next: u64) {
    submit(&spool, Change::Keep(prompt(next, 100))).unwrap();
    submit(&spool, Change::Conclude(outcome(next, 100))).unwrap();
    spool.close();
    let (spool, found) = Spool::open(dir, limits()).unwrap();
    assert_eq!((found.quarantined, found.salvaged), (None, 0), "the second opening finds a whole store");
    assert_eq!(read(&spool, next).unwrap().frame, outcome(next, 100).frame);
    spool.close();
}

#[test]
fn garbage_in_place_of_the_configuration_loses_nothing() {
    let (_root, dir) = filled();
    fs::write(generation(&dir).join("conf"), "what is this").unwrap();
    let (spool, found) = Spool::open(&dir, limits()).unwrap();
    assert!(found.quarantined.as_ref().unwrap().starts_with(&dir));
    check_whole(&spool, &found);
    check_alive(spool, &dir, found.next_job.0);
}

#[test]
fn a_truncated_snapshot_loses_nothing() {
    let (_root, dir) = filled();
    Spool::open(&dir, limits()).unwrap().0.close();
    let snapshots = fs::read_dir(generation(&dir)).unwrap().map(|e| e.unwrap().path());
    let snapshots: Vec<_> =
        snapshots.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("snap.")).collect();
    assert!(!snapshots.is_empty(), "an opening leaves a snapshot");
    for path in snapshots {
        let len = fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(len / 2).unwrap();
    }
    let (spool, found) = Spool::open(&dir, limits()).unwrap();
    check_whole(&spool, &found);
    check_alive(spool, &dir, found.next_job.0);
}

#[test]
fn leftovers_of_interrupted_work_are_cleared() {
    let (_root, dir) = filled();
    fs::write(generation(&dir).join("snap.00000.generating"), "half").unwrap();
    fs::create_dir(dir.join("gen-9.building")).unwrap();
    fs::create_dir(dir.join("gen-7")).unwrap();
    fs::write(dir.join("large/p-3.tmp"), "half").unwrap();
    fs::write(dir.join("large/p-3"), "an orphan").unwrap();
    fs::write(dir.join("CURRENT.tmp"), "half").unwrap();
    let (spool, found) = Spool::open(&dir, limits()).unwrap();
    assert_eq!(found.quarantined, None);
    check_whole(&spool, &found);
    for gone in ["gen-9.building", "gen-7", "large/p-3.tmp", "large/p-3", "CURRENT.tmp"] {
        assert!(!dir.join(gone).exists(), "{gone}");
    }
    check_alive(spool, &dir, found.next_job.0);
}

#[test]
fn a_lost_pointer_to_the_generation_loses_nothing() {
    for content in [None, Some(&b""[..]), Some(&b"tidegate-spool 1\ngen-77\n00000000\n"[..])] {
        let (_root, dir) = filled();
        match content {
            None => fs::remove_file(dir.join("CURRENT")).unwrap(),
            Some(bytes) => fs::write(dir.join("CURRENT"), bytes).unwrap(),
        }
        let (spool, found) = Spool::open(&dir, limits()).unwrap();
        assert_eq!(found.quarantined, None);
        check_whole(&spool, &found);
        spool.close();
    }
}

#[test]
fn a_damaged_large_file_costs_its_own_record() {
    let (_root, dir) = filled();
    fs::write(dir.join("large/p-50"), "short").unwrap();
    fs::remove_file(dir.join("large/r-20")).unwrap();
    let (spool, found) = Spool::open(&dir, limits()).unwrap();
    assert_eq!((found.quarantined.as_ref(), found.unreadable), (None, 2));
    assert_eq!(found.prompts.len(), 39);
    assert_eq!(found.seen.len(), 39);
    check_alive(spool, &dir, found.next_job.0);
}

#[test]
fn a_store_without_its_journal_keeps_its_large_records() {
    let (_root, dir) = filled();
    let log = generation(&dir).join("journal");
    let len = fs::metadata(&log).unwrap().len();
    fs::write(&log, vec![0xff; len as usize]).unwrap();
    let (spool, found) = Spool::open(&dir, limits()).unwrap();
    assert!(found.quarantined.is_some());
    let prompts: Vec<u64> = found.prompts.iter().map(|p| p.job.0).collect();
    assert_eq!(prompts, [50, 60, 70, 80]);
    assert_eq!(found.seen.iter().map(|s| s.job.0).collect::<Vec<_>>(), [10, 20, 30, 40]);
    assert!(found.next_job.0 > 80);
    check_alive(spool, &dir, found.next_job.0);
}

/// What sled holds follows from the journal.
#[test]
fn whatever_becomes_of_sled_s_files_loses_nothing() {
    for behind_max in [1, 40, 1024] {
        for damage in [&[][..], &[0; 64], &[0xff; 700_000]] {
            let (_root, dir) = filled_with(Limits { behind_max, ..limits() });
            Spool::open(&dir, limits()).unwrap().0.close();
            fs::write(generation(&dir).join("db"), damage).unwrap();
            let (spool, found) = Spool::open(&dir, limits()).unwrap();
            assert_eq!(found.unreadable, 0);
            check_whole(&spool, &found);
            check_alive(spool, &dir, found.next_job.0);
        }
    }
}

/// Every key that an opening reports.
fn keys(found: &Recovered) -> BTreeSet<(char, u64)> {
    let prompts = found.prompts.iter().map(|p| ('p', p.job.0));
    let escalations = found.escalations.iter().map(|e| ('o', e.job.0));
    prompts.chain(escalations).chain(found.seen.iter().map(|s| ('r', s.job.0))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The records of a page of 4 KiB may go; nine in ten of all stay, and no prompt with an outcome comes back.
    #[test]
    fn one_flipped_bit_anywhere_in_the_log(at: u64, bit in 0..8_u32, known: bool, snapshot: bool, of_sled: bool) {
        let (_root, dir) = filled_with(Limits { behind_max: if known { 40 } else { 1024 }, ..limits() });
        if snapshot {
            Spool::open(&dir, limits()).unwrap().0.close();
        }
        let name = if of_sled { "db" } else { "journal" };
        let log = File::options().read(true).write(true).open(generation(&dir).join(name)).unwrap();
        let at = at % log.metadata().unwrap().len();
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
        let (spool, found) = Spool::open(&dir, limits()).unwrap();
        let keys = keys(&found);
        prop_assert!(keys.len() >= if of_sled { 90 } else { 81 }, "{} of 90 records, {} salvaged", keys.len(), found.salvaged);
        let twice = keys.iter().filter(|(class, job)| *class == 'p' && *job <= 40 && keys.contains(&('r', *job)));
        prop_assert_eq!(twice.count(), 0);
        check_alive(spool, &dir, found.next_job.0);
    }

    /// A tail that never reached the disk takes what is in it, not the store.
    #[test]
    fn the_log_cut_anywhere(part in 0.0..1.0_f64, known: bool, of_sled: bool) {
        let (_root, dir) = filled_with(Limits { behind_max: if known { 40 } else { 1024 }, ..limits() });
        let name = if of_sled { "db" } else { "journal" };
        let log = File::options().write(true).open(generation(&dir).join(name)).unwrap();
        let len = log.metadata().unwrap().len();
        log.set_len((len as f64 * part) as u64).unwrap();
        let (spool, found) = Spool::open(&dir, limits()).unwrap();
        prop_assert!(found.next_job.0 >= 1);
        check_alive(spool, &dir, found.next_job.0);
    }
}

#[test]
fn old_quarantines_make_room_for_new_ones() {
    let (root, dir) = filled();
    let whole = root.path().join("whole");
    copy(&generation(&dir), &whole);
    for _ in 0..5 {
        fs::write(generation(&dir).join("conf"), "what is this").unwrap();
        let (spool, found) = Spool::open(&dir, limits()).unwrap();
        assert!(found.quarantined.is_some());
        assert_eq!(counts(&spool).prompts.entries, 40);
        spool.close();
    }
    let kept = fs::read_dir(&dir)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("corrupt-"));
    assert_eq!(kept.count(), 3);
}
