//! Whose directory it is, who has it open, and what is answered when it is closed.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{counts, limits, outcome, prompt, read, submit};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tidegate_schemas::JobId;
use tidegate_spool::{Bound, Change, Limits, OpenError, Spool, SpoolError};

#[test]
fn a_new_store_is_empty_private_and_starts_at_job_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("deep/store");
    let (spool, recovered) = Spool::open(&dir, limits()).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!((recovered.next_job, recovered.prompts.len()), (JobId(1), 0));
    assert_eq!(counts(&spool).prompts.entries, 0);
    assert_eq!(read(&spool, 1), None);
    spool.close();
}

#[test]
fn a_second_opening_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), limits()).unwrap();
    let error = Spool::open(dir.path(), limits()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { path } if path == dir.path()), "{error}");
    spool.close();
    Spool::open(dir.path(), limits()).unwrap().0.close();
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ours = fs::metadata(dir.path()).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap();
    let foreign = if std::os::unix::fs::chown(dir.path(), Some(ours + 1), None).is_ok() {
        dir.path().to_owned()
    } else {
        // Only root may give a directory away; everybody else sees root's own.
        Path::new("/").to_owned()
    };
    let owner = fs::metadata(&foreign).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap();
    let error = Spool::open(&foreign, limits()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Owner { .. }), "{text}");
    assert!(text.contains(&format!("uid {owner}")) && text.contains(&format!("uid {ours}")), "{text}");
    assert!(!foreign.join("lock").exists());
}

#[test]
fn a_file_in_the_place_of_the_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(Spool::open(&file, limits()), Err(OpenError::NotADirectory { path }) if path == file));
}

#[test]
fn a_newer_format_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    Spool::open(dir.path(), limits()).unwrap().0.close();
    let head = "tidegate-spool 99\ngen-1\n";
    let text = format!("{head}{:08x}\n", crc32c::crc32c(head.as_bytes()));
    fs::write(dir.path().join("CURRENT"), text).unwrap();
    let error = Spool::open(dir.path(), limits()).unwrap_err();
    assert!(error.to_string().contains("format 99"), "{error}");
}

#[test]
fn what_is_submitted_after_the_end_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), limits()).unwrap();
    let other = spool.clone();
    assert_eq!(submit(&spool, Change::Keep(prompt(1, 10))), Ok(()));
    spool.close();
    assert_eq!(submit(&other, Change::Keep(prompt(2, 10))), Err(SpoolError::Stopped));
    assert_eq!(read(&other, 1), None);
    other.close();
    let (spool, recovered) = Spool::open(dir.path(), limits()).unwrap();
    assert_eq!(recovered.prompts, [prompt(1, 10)]);
    spool.close();
}

#[test]
fn answers_come_in_order_and_a_full_queue_refuses_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Limits { queue_max: 4, group_commit_max: 2, ..limits() };
    let (spool, _) = Spool::open(dir.path(), bounds).unwrap();
    let (hold, held) = sync_channel::<()>(0);
    let (done, answers) = sync_channel(64);
    // The storage thread stands in this callback until it is let go.
    spool.counts(move |_| held.recv_timeout(Duration::from_secs(60)).unwrap());
    for job in 1..=6 {
        let done = done.clone();
        spool.submit(Change::Keep(prompt(job, 10)), move |result| done.send((job, result)).unwrap());
    }
    let full = |would| Err(SpoolError::Full { what: Bound::Queue, would, max: 4 });
    assert_eq!(answers.recv().unwrap(), (5, full(5)));
    assert_eq!(answers.recv().unwrap(), (6, full(5)));
    hold.send(()).unwrap();
    for job in 1..=4 {
        assert_eq!(answers.recv_timeout(Duration::from_secs(60)).unwrap(), (job, Ok(())));
    }
    assert_eq!(submit(&spool, Change::Conclude(outcome(1, 10))), Ok(()));
    spool.close();
}

#[test]
fn a_callback_that_panics_harms_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), limits()).unwrap();
    spool.submit(Change::Keep(prompt(1, 10)), |_| panic!("on purpose"));
    assert_eq!(submit(&spool, Change::Keep(prompt(2, 10))), Ok(()));
    assert_eq!(counts(&spool).prompts.entries, 2);
    spool.close();
}
