//! Stores of formats 1 to 3, whose records stand in sled and nowhere else.
#![allow(clippy::unwrap_used)]

use crate::envelope::{Class, Envelope, Form, Key};
use crate::generation::{FORMAT, format_of};
use crate::limits::Limits;
use crate::places::Places;
use crate::record::{Change, OutcomeRecord, PromptRecord, Reach};
use crate::spool::Spool;
use crate::stamp::Stamp;
use std::fs;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use tidegate_schemas::{ContentHash, Encoding, JobId, Prompt, Reply, cbor};

fn prompt(job: u64) -> PromptRecord {
    PromptRecord {
        job: JobId(job),
        device: "dev-1".parse().unwrap(),
        prompt: Prompt::bare("turn on the light"),
        encoding: Encoding::Json,
        bytes: 17,
        stamp: Stamp::default(),
        attempts: 0,
        reply: Reply::default(),
    }
}

fn outcome(job: u64) -> OutcomeRecord {
    OutcomeRecord {
        job: JobId(job),
        device: "dev-1".parse().unwrap(),
        id: Some(format!("id-{job}").parse().unwrap()),
        hash: ContentHash([job as u8; 16]),
        encoding: Encoding::Json,
        frame: format!("frame {job}").into_bytes(),
        notice: None,
        released: false,
        stamp: Stamp::now(),
        reply: Reply::default(),
        reach: Reach::Host,
    }
}

/// Jobs 1 to 20 have outcomes, 21 to 40 are open.
fn old(dir: &Path, version: u32) {
    fs::create_dir_all(dir.join("gen-1")).unwrap();
    let places = Places::open(&dir.join("gen-1")).unwrap();
    let put = |class, job, body: Vec<u8>| {
        let key = Key::new(class, JobId(job));
        places.put_record(&key.bytes(), Envelope { key, form: Form::Inline, seq: job, body: &body }.encode());
    };
    (1..=20).for_each(|job| put(Class::Outcome, job, cbor::to_vec(&outcome(job))));
    (21..=40).for_each(|job| put(Class::Prompt, job, cbor::to_vec(&prompt(job))));
    places.close();
    let head = format!("tidegate-spool {version}\ngen-1\n");
    fs::write(dir.join("CURRENT"), format!("{head}{:08x}\n", crc32c::crc32c(head.as_bytes()))).unwrap();
}

fn submit(spool: &Spool, change: Change) {
    let (done, answer) = sync_channel(1);
    spool.submit(change, move |result| done.send(result).unwrap());
    answer.recv().unwrap().unwrap();
}

fn frame(spool: &Spool, job: u64) -> Option<Vec<u8>> {
    let (done, answer) = sync_channel(1);
    spool.outcome(JobId(job), move |found| done.send(found).unwrap());
    answer.recv().unwrap().map(|found| found.frame)
}

fn limits(behind_max: usize) -> Limits {
    Limits { free_bytes_min: 0, behind_max, ..Limits::default() }
}

/// Whether the table takes in what is new at once, or knows nothing of it when the store is opened again.
#[test]
fn what_an_older_version_stored_is_there_and_goes_on() {
    for (version, behind_max) in [(1, 1), (2, 7), (3, 1024)] {
        let dir = tempfile::tempdir().unwrap();
        old(dir.path(), version);
        let (spool, found) = Spool::open(dir.path(), limits(behind_max)).unwrap();
        assert_eq!((format_of(dir.path()), found.quarantined), (Some(FORMAT), None));
        assert_eq!(found.prompts, (21..=40).map(prompt).collect::<Vec<_>>());
        assert_eq!(found.seen.len(), 20);
        (21..=30).for_each(|job| submit(&spool, Change::Conclude(outcome(job))));
        (1..=5).for_each(|job| submit(&spool, Change::Release { job: JobId(job) }));
        (1..=5).for_each(|job| submit(&spool, Change::Forget { job: JobId(job) }));
        (41..=50).for_each(|job| submit(&spool, Change::Keep(prompt(job))));
        spool.close();
        let (spool, found) = Spool::open(dir.path(), limits(behind_max)).unwrap();
        assert_eq!((found.quarantined, found.unreadable), (None, 0));
        assert_eq!(found.prompts, (31..=50).map(prompt).collect::<Vec<_>>());
        let frames = |job| frame(&spool, job);
        assert!((1..=5).all(|job| frames(job).is_none()));
        assert!((6..=30).all(|job| frames(job) == Some(outcome(job).frame)));
        spool.close();
    }
}

#[test]
fn an_older_store_that_does_not_open_is_salvaged() {
    for begun in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        old(dir.path(), 3);
        if begun {
            let (spool, _) = Spool::open(dir.path(), limits(3)).unwrap();
            submit(&spool, Change::Conclude(outcome(21)));
            spool.close();
        }
        fs::write(dir.path().join("gen-1/conf"), "what is this").unwrap();
        let (spool, found) = Spool::open(dir.path(), limits(1024)).unwrap();
        assert!(found.quarantined.is_some());
        let first = if begun { 22 } else { 21 };
        assert_eq!(found.prompts, (first..=40).map(prompt).collect::<Vec<_>>());
        assert!((1..first).all(|job| frame(&spool, job) == Some(outcome(job).frame)));
        spool.close();
    }
}
