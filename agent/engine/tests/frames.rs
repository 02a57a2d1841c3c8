//! Frames from a peer that cannot be trusted.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::path::PathBuf;
use tidegate_engine::protocol::{
    Done, FRAME_BYTES_MAX, Fault, Floor, FrameError, FromEngine, LENGTH_BYTES, Run, Signals, Start, Stop, ToEngine,
    decode_frame, decode_length, encode_frame, read_frame, write_frame,
};
use tidegate_schemas::{JobId, MESSAGES_MAX, Message, PROMPT_BYTES_MAX, Role, TASK_BYTES_MAX};

fn asked() -> Vec<ToEngine> {
    let turn = |role, text: &str| Message { role, content: text.into() };
    let run = Run {
        job: JobId(u64::MAX),
        system: "be brief".to_owned(),
        messages: vec![turn(Role::User, "hello"), turn(Role::Assistant, "ärgh"), turn(Role::User, "")],
        schema: Some("{}".to_owned()),
        max_tokens: 12,
        stream: true,
        floor: Some(Floor { sums: [-0.5, -1.0, -1.5, -2.0, -2.5, -3.0, -7.0, f64::NEG_INFINITY] }),
    };
    let start = Start {
        memory_bytes_max: Some(1 << 40),
        pinned: vec!["be brief".into()],
        prefix_dir: Some("/prefixes/a b".into()),
        ..Start::new("/models/a b.gguf")
    };
    vec![ToEngine::Start(start), ToEngine::Run(run), ToEngine::Abort { job: JobId(0) }, ToEngine::Stop]
}

fn answered() -> Vec<FromEngine> {
    let signals =
        Signals { sum_logprob: -1.5, min_logprob: -0.75, mean_logprob: -0.5, tokens: 3, ..Signals::default() };
    let done = Done {
        job: JobId(5),
        text: "ok".into(),
        signals,
        logprobs: vec![-0.75, -0.5, -0.25],
        prompt_tokens: 7,
        reused_tokens: 2,
        completion_tokens: 3,
        prefill_ms: 1,
        decode_ms: 2,
        stop: Stop::End,
    };
    let failed = |fault| FromEngine::Failed { job: JobId(1), fault };
    vec![
        FromEngine::Ready { name: "tiny".to_owned(), sha256: "00".repeat(32), context_tokens: 512 },
        FromEngine::Beat,
        FromEngine::Speed { percent: 41 },
        FromEngine::Token { job: JobId(1), text: "to".into() },
        FromEngine::Done(Box::new(done)),
        failed(Fault::TooLong { tokens: 9, context_tokens: 8 }),
        failed(Fault::Schema("why".to_owned())),
        failed(Fault::Aborted),
        failed(Fault::Hopeless { tokens: 4 }),
        FromEngine::Fatal { message: "no".to_owned() },
    ]
}

#[test]
fn every_message_comes_through_in_order() {
    let mut pipe = Vec::new();
    asked().iter().for_each(|message| write_frame(&mut pipe, message).unwrap());
    let mut reader = pipe.as_slice();
    for message in asked() {
        assert_eq!(read_frame::<ToEngine>(&mut reader).unwrap(), Some(message));
    }
    assert_eq!(read_frame::<ToEngine>(&mut reader).unwrap(), None);
    for message in answered() {
        let frame = encode_frame(&message);
        let (head, body) = frame.split_first_chunk::<LENGTH_BYTES>().unwrap();
        assert_eq!(decode_length(*head).unwrap(), body.len());
        assert_eq!(decode_frame::<FromEngine>(body).unwrap(), message);
    }
}

#[test]
fn a_path_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(b"/m\xff\xfe.gguf"));
    let message = ToEngine::Start(Start::new(path));
    assert_eq!(read_frame::<ToEngine>(&mut encode_frame(&message).as_slice()).unwrap(), Some(message));
}

#[test]
fn the_largest_run_fits() {
    let content = "x".repeat(PROMPT_BYTES_MAX / MESSAGES_MAX);
    let messages = vec![Message { role: Role::Assistant, content: content.as_str().into() }; MESSAGES_MAX];
    let half = "y".repeat(TASK_BYTES_MAX / 2);
    let (schema, max_tokens) = (Some(half.clone()), u32::MAX);
    let run = Run { job: JobId(u64::MAX), system: half, messages, schema, max_tokens, stream: true, floor: None };
    let mut pipe = Vec::new();
    write_frame(&mut pipe, &ToEngine::Run(run)).unwrap();
}

#[test]
fn a_message_over_the_limit_is_not_written() {
    let message = FromEngine::Fatal { message: "z".repeat(FRAME_BYTES_MAX) };
    let mut pipe = Vec::new();
    assert_eq!(write_frame(&mut pipe, &message).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert!(pipe.is_empty());
}

#[test]
fn a_length_over_the_limit_reads_no_body() {
    for len in [FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut stream = len.to_le_bytes().to_vec();
        stream.extend([0; 100]);
        let mut reader = stream.as_slice();
        let error = read_frame::<ToEngine>(&mut reader).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { len: l } if l == len as usize));
        assert_eq!(reader.len(), 100);
    }
}

#[test]
fn every_cut_is_seen() {
    for message in asked() {
        let frame = encode_frame(&message);
        assert_eq!(read_frame::<ToEngine>(&mut &frame[..0]).unwrap(), None);
        for cut in 1..frame.len() {
            assert!(matches!(read_frame::<ToEngine>(&mut &frame[..cut]), Err(FrameError::Truncated)), "at {cut}");
        }
    }
}

#[test]
fn no_error_repeats_what_was_inside() {
    let body = tidegate_schemas::cbor::to_vec(&("secret words", 5));
    let error = decode_frame::<ToEngine>(&body).unwrap_err();
    assert_eq!(error.to_string(), format!("frame of {} bytes is no message of this protocol", body.len()));
    let shown = format!("{error:?} {:?}", asked()[1]);
    assert!(!shown.contains("secret") && !shown.contains("brief") && !shown.contains("hello"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever bytes come: an answer or an error, no panic, no more memory than the limit.
    #[test]
    fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_frame::<ToEngine>(&bytes);
        let _ = decode_frame::<FromEngine>(&bytes);
        let mut reader = bytes.as_slice();
        while let Ok(Some(_)) = read_frame::<ToEngine>(&mut reader) {}
    }

    /// A message with some bytes changed is refused, or is another message that encodes and decodes.
    #[test]
    fn mutations_are_survived(
        which in 0_usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut body = tidegate_schemas::cbor::to_vec(&asked()[which]);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(message) = decode_frame::<ToEngine>(&body) {
            // By their bytes: what is no number equals nothing, not even itself.
            let bytes = encode_frame(&message);
            let again = read_frame::<ToEngine>(&mut bytes.as_slice()).unwrap();
            prop_assert_eq!(again.map(|again| encode_frame(&again)), Some(bytes));
        }
    }
}
