//! The journal alone: what counts after a cut, what is damage, and what no device can forge.
#![allow(clippy::unwrap_used)]

use crate::database::Op;
use crate::envelope::{Class, Envelope, Form, Key};
use crate::journal::{Journal, Mark, NAME, Said};
use proptest::prelude::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tidegate_schemas::JobId;

fn key(job: u64) -> Key {
    Key::new(Class::Prompt, JobId(job))
}

fn put(job: u64, seq: u64, body: &[u8]) -> Op {
    Op { key: key(job), record: Some(Envelope { key: key(job), form: Form::Inline, seq, body }.encode()) }
}

fn remove(job: u64) -> Op {
    Op { key: key(job), record: None }
}

fn open(dir: &Path, from: Option<Mark>) -> (Result<Journal, String>, Vec<Said>) {
    let mut said = Vec::new();
    let journal = Journal::open(dir, from, |one| said.push(one));
    (journal, said)
}

/// Groups of one prompt each, and the marks before, between and behind them.
fn written(dir: &Path, groups: u64) -> Vec<Mark> {
    let mut journal = open(dir, None).0.unwrap();
    let mut marks = vec![journal.end()];
    for job in 1..=groups {
        journal.append(&[put(job, job, &[job as u8; 100]), remove(job + 100)]).unwrap();
        marks.push(journal.end());
    }
    journal.sync().unwrap();
    marks
}

fn jobs(said: &[Said]) -> Vec<u64> {
    said.iter().filter(|(_, place)| place.is_some()).map(|(key, _)| key.job.0).collect()
}

#[test]
fn what_was_written_is_told_from_any_mark_and_read_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let marks = written(dir.path(), 5);
    for (at, mark) in marks.iter().enumerate() {
        let (journal, said) = open(dir.path(), Some(*mark));
        let journal = journal.unwrap();
        assert_eq!(journal.end(), marks[5]);
        assert_eq!(jobs(&said), (at as u64 + 1..=5).collect::<Vec<_>>());
        for (key, place) in said {
            match place {
                Some(place) => {
                    let record = journal.read(place).unwrap();
                    assert_eq!(Envelope::decode(&record).unwrap().key, key);
                }
                None => assert!(key.job.0 > 100),
            }
        }
    }
}

#[test]
fn the_last_word_of_a_group_counts_and_its_seq_is_the_largest_of_all_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), None).0.unwrap();
    journal.append(&[put(1, 7, b"a"), put(2, 8, b"b"), put(1, 9, b"c"), remove(2)]).unwrap();
    assert_eq!(journal.end().seq, 9);
    journal.append(&[put(3, 10, b"d"), remove(3)]).unwrap();
    let (journal, said) = open(dir.path(), None);
    let journal = journal.unwrap();
    assert_eq!((journal.end().seq, jobs(&said)), (10, vec![1]));
    let record = journal.read(said[0].1.unwrap()).unwrap();
    assert_eq!(Envelope::decode(&record).unwrap().body, b"c");
}

#[test]
fn a_file_that_was_just_made_is_empty_and_one_with_a_damaged_head_is_not() {
    for len in [0, 5, 12] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), vec![0; len]).unwrap();
        assert_eq!(open(dir.path(), None).0.unwrap().end(), Mark::START);
        assert_eq!(open(dir.path(), None).0.unwrap().end(), Mark::START);
    }
    let dir = tempfile::tempdir().unwrap();
    let marks = written(dir.path(), 2);
    File::options().write(true).open(dir.path().join(NAME)).unwrap().write_all_at(&[9], 5).unwrap();
    assert!(open(dir.path(), None).0.is_err());
    assert!(open(dir.path(), Some(marks[1])).0.is_err());
}

#[test]
fn a_journal_that_ends_before_a_mark_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let marks = written(dir.path(), 3);
    File::options().write(true).open(dir.path().join(NAME)).unwrap().set_len(marks[2].offset - 1).unwrap();
    assert!(open(dir.path(), Some(marks[2])).0.is_err());
    assert_eq!(jobs(&open(dir.path(), None).1), [1]);
}

#[test]
fn nothing_that_a_device_sends_is_taken_for_a_group() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // What a device might forge, had it the file of another gateway: groups with numbers to come.
    written(other.path(), 9);
    let forged = fs::read(other.path().join(NAME)).unwrap();
    let mut journal = open(dir.path(), None).0.unwrap();
    journal.append(&[put(1, 1, b"first")]).unwrap();
    let end = journal.end();
    journal.append(&[put(2, 2, &forged)]).unwrap();
    // The head of the group never reached the disk; what the device sent did.
    let file = File::options().write(true).open(dir.path().join(NAME)).unwrap();
    file.write_all_at(&[0; 32], end.offset).unwrap();
    let (journal, said) = open(dir.path(), None);
    assert_eq!((journal.unwrap().end(), jobs(&said)), (end, vec![1]));
}

proptest! {
    /// The rest of a group that nobody was told of goes before the next is written, whatever is left of it.
    #[test]
    fn a_torn_group_is_nothing(part in 0.0..1.0_f64, noise: bool, at_once: bool) {
        let dir = tempfile::tempdir().unwrap();
        let marks = written(dir.path(), 4);
        let file = File::options().write(true).open(dir.path().join(NAME)).unwrap();
        let len = marks[4].offset - marks[3].offset;
        let torn = marks[3].offset + (len as f64 * part) as u64;
        if noise {
            file.write_all_at(&vec![0x5a; (marks[4].offset - torn) as usize], torn).unwrap();
        } else {
            file.set_len(torn).unwrap();
        }
        let from = at_once.then_some(marks[2]);
        let (journal, _) = open(dir.path(), from);
        let mut journal = journal.unwrap();
        prop_assert_eq!(journal.end(), marks[3]);
        journal.append(&[put(50, 50, b"next")]).unwrap();
        let behind = fs::read(dir.path().join(NAME)).unwrap().split_off(journal.end().offset as usize);
        prop_assert!(behind.iter().all(|byte| *byte == 0));
        let (journal, said) = open(dir.path(), None);
        prop_assert_eq!((journal.unwrap().end().group, jobs(&said)), (5, vec![1, 2, 3, 50]));
    }

    /// A power cut leaves of each sector of 512 bytes what was there or what was written, and either length; of groups
    /// small and large, with zeros written ahead or without. All that was synced is there, the last group whole or not
    /// at all, and the next one stands behind it.
    #[test]
    fn a_cut_while_a_group_is_written_leaves_it_whole_or_not_at_all(
        sizes in proptest::collection::vec(prop_oneof![1..600_usize, 3_000..5_000_usize, 20_000..300_000_usize], 1..8),
        sectors: u64, old_length: bool, from_mark: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let mut journal = open(dir.path(), None).0.unwrap();
        let (mut before, mut mark) = (fs::read(&path).unwrap(), journal.end());
        for (at, size) in sizes.iter().enumerate() {
            let job = at as u64 + 1;
            let parts = size.div_ceil(4_000) as u64;
            let ops = (0..parts).map(|part| put(job * 1_000 + part, job, &vec![job as u8; size / parts as usize]));
            (before, mark) = (fs::read(&path).unwrap(), journal.end());
            journal.append(&ops.collect::<Vec<_>>()).unwrap();
        }
        let (after, end) = (fs::read(&path).unwrap(), journal.end());
        let length = if old_length { before.len() } else { after.len() };
        let mut cut = before.clone();
        cut.resize(length, 0);
        for (at, sector) in cut.chunks_mut(512).enumerate() {
            let new = &after[at * 512..at * 512 + sector.len()];
            if (sectors.rotate_left(at as u32 % 64) ^ at as u64).is_multiple_of(2) {
                sector.copy_from_slice(new);
            }
        }
        fs::write(&path, cut).unwrap();
        let (journal, said) = open(dir.path(), from_mark.then_some(mark));
        let mut journal = journal.unwrap();
        prop_assert!([mark, end].contains(&journal.end()), "{:?}", journal.end());
        let last = sizes.len() as u64;
        let there = said.iter().filter(|(key, _)| key.job.0 / 1_000 == last).count();
        let whole = sizes[sizes.len() - 1].div_ceil(4_000);
        prop_assert_eq!(there, if journal.end() == end { whole } else { 0 });
        journal.append(&[put(50, 50, b"next")]).unwrap();
        let (again, said) = open(dir.path(), None);
        prop_assert_eq!(again.unwrap().end(), journal.end());
        let numbers: std::collections::BTreeSet<u64> = jobs(&said).into_iter().map(|job| job / 1_000).collect();
        let kept = last - u64::from(there == 0);
        prop_assert_eq!(numbers.into_iter().filter(|number| *number > 0).collect::<Vec<_>>(), (1..=kept).collect::<Vec<_>>());
    }

    /// A flipped bit in a group before the last is damage, not an end.
    #[test]
    fn damage_before_the_last_group_is_told(at in 0.0..1.0_f64, bit in 0..8_u32) {
        let dir = tempfile::tempdir().unwrap();
        let marks = written(dir.path(), 6);
        let path = dir.path().join(NAME);
        let mut bytes = fs::read(&path).unwrap();
        let (first, last) = (marks[1].offset as f64, marks[5].offset as f64);
        bytes[(first + (last - first) * at) as usize] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        prop_assert!(open(dir.path(), Some(marks[1])).0.is_err());
    }
}
