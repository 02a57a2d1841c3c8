//! A sync that fails poisons: what was not on disk by then is refused, and so is all that follows, until the store is
//! opened anew; then all that was acknowledged is there.
#![allow(clippy::unwrap_used)]

use crate::error::SpoolError;
use crate::limits::Limits;
use crate::open;
use crate::record::{Change, PromptRecord};
use crate::spool::Spool;
use crate::stamp::Stamp;
use std::sync::mpsc::sync_channel;
use tidegate_schemas::{Encoding, JobId, Prompt, Reply};

fn prompt(job: u64) -> Change {
    Change::Keep(PromptRecord {
        job: JobId(job),
        device: "dev-1".parse().unwrap(),
        prompt: Prompt::bare("turn on the light"),
        encoding: Encoding::Json,
        bytes: 17,
        stamp: Stamp::default(),
        attempts: 0,
        reply: Reply::default(),
    })
}

fn submit(spool: &Spool, change: Change) -> Result<(), SpoolError> {
    let (done, answer) = sync_channel(1);
    spool.submit(change, move |result| done.send(result).unwrap());
    answer.recv().unwrap()
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_the_store_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { free_bytes_min: 0, ..Limits::default() };
    let (spool, _) = Spool::open(dir.path(), limits).unwrap();
    submit(&spool, prompt(1)).unwrap();
    spool.close();
    let (mut store, _) = open::open(dir.path(), limits).unwrap();
    store.database.as_mut().unwrap().breaks();
    let spool = Spool::start(store, limits).unwrap();
    for change in [prompt(2), prompt(3), Change::MarkAttempt { job: JobId(1), attempts: 1 }] {
        let refused = submit(&spool, change).unwrap_err();
        assert!(matches!(&refused, SpoolError::Poisoned(why) if why.contains("sync")), "{refused}");
    }
    spool.close();
    let (spool, found) = Spool::open(dir.path(), limits).unwrap();
    assert_eq!(found.prompts.iter().map(|p| p.job.0).collect::<Vec<_>>(), [1]);
    assert_eq!(submit(&spool, prompt(found.next_job.0)), Ok(()));
    spool.close();
}
