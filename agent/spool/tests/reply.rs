//! Where an outcome goes is kept with its prompt and with it; records of older versions have none and stay readable.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{limits, outcome, prompt, read, submit};
use tidegate_schemas::{JobId, Reply, cbor};
use tidegate_spool::{Change, OutcomeRecord, PromptRecord, Spool};

fn reply() -> Reply {
    Reply { topic: Some("replies/press-1".to_owned()), correlation: Some(vec![0, 0xff, 7]) }
}

#[test]
fn a_reply_survives_with_prompt_and_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), limits()).unwrap();
    let kept = PromptRecord { reply: reply(), ..prompt(1, 20) };
    submit(&spool, Change::Keep(kept.clone())).unwrap();
    submit(&spool, Change::Keep(PromptRecord { reply: Reply::default(), ..prompt(2, 20) })).unwrap();
    spool.close();
    let (spool, recovered) = Spool::open(dir.path(), limits()).unwrap();
    assert_eq!(recovered.prompts[0], kept);
    assert!(recovered.prompts[1].reply.is_plain());
    submit(&spool, Change::Conclude(OutcomeRecord { reply: reply(), ..outcome(1, 20) })).unwrap();
    spool.close();
    let (spool, _) = Spool::open(dir.path(), limits()).unwrap();
    assert_eq!(read(&spool, 1).unwrap().reply, reply());
    spool.close();
}

/// Version 1 of the records: the fields that they had before replies were kept.
#[test]
fn a_record_without_a_reply_is_one_of_an_older_version() {
    let record = PromptRecord { reply: Reply::default(), ..prompt(1, 20) };
    let bytes = cbor::to_vec(&record);
    assert!(!bytes.windows(5).any(|w| w == b"reply"), "what asks for nothing is written as it always was");
    assert_eq!(cbor::from_slice::<PromptRecord>(&bytes, bytes.len()).unwrap(), record);
    let record = OutcomeRecord { reply: Reply::default(), job: JobId(1), ..outcome(1, 20) };
    let bytes = cbor::to_vec(&record);
    assert!(!bytes.windows(5).any(|w| w == b"reply"));
    assert_eq!(cbor::from_slice::<OutcomeRecord>(&bytes, bytes.len()).unwrap(), record);
}
