//! The golden payloads of `schemas/` are read and written byte for byte; what is cut or strange is refused, never a panic.

use std::fs;
use std::path::PathBuf;
use tidegate_device::{Body, Control, Frame, Prompt, Stream, decode, item_len};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../schemas/golden")
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn frame(name: &str, check: impl FnOnce(Frame<'_>)) {
    let bytes = golden(name);
    let (id, frame) = decode(&bytes).unwrap_or_else(|| panic!("{name} is no frame"));
    assert_eq!(id, Some("b3f1-7"), "{name}");
    check(frame);
}

/// Every CBOR payload, token by token, comes out as it went in.
#[test]
fn all_are_decoded_and_encoded() {
    let mut seen = 0;
    for entry in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_none_or(|end| end != "cbor") {
            continue;
        }
        let bytes = fs::read(&entry).unwrap();
        let tokens: Vec<_> = minicbor::decode::Tokenizer::new(&bytes).collect::<Result<_, _>>().unwrap();
        let mut again = minicbor::Encoder::new(Vec::new());
        again.tokens(&tokens).unwrap();
        assert_eq!(again.into_writer(), bytes, "{}", entry.display());
        assert_eq!(item_len(&bytes), Some(bytes.len()), "{}", entry.display());
        for cut in 0..bytes.len() {
            assert_eq!(item_len(&bytes[..cut]), None, "{} cut at {cut}", entry.display());
            assert!(decode(&bytes[..cut]).is_none());
        }
        seen += 1;
    }
    assert!(seen >= 14, "only {seen} payloads");
}

#[test]
fn prompts_and_control_are_written() {
    let mut out = [0; 512];
    let least = Prompt { input: "turn off the lights in the packing hall", ..Prompt::default() };
    let len = least.encode(&mut out).unwrap();
    assert_eq!(out[..len], golden("prompt-min.cbor"));
    let full = Prompt {
        id: Some("b3f1-7"),
        task: Some("action"),
        max_tokens: 64,
        max_bytes: 1024,
        deadline_ms: 30_000,
        stream: true,
        local: true,
        ..least
    };
    let len = full.encode(&mut out).unwrap();
    assert_eq!(out[..len], golden("prompt-device.cbor"));
    assert!((0..len).all(|cap| full.encode(&mut out[..cap]).is_none()));
    for (control, name) in [(Control::Cancel, "control-cancel.cbor"), (Control::Fetch, "control-fetch.cbor")] {
        let len = control.encode("b3f1-7", &mut out).unwrap();
        assert_eq!(out[..len], golden(name));
    }
}

#[test]
fn frames_are_read() {
    frame("accepted.cbor", |frame| assert!(matches!(frame, Frame::Accepted { position: 2, eta_ms: 1850 })));
    frame("token.cbor", |frame| assert!(matches!(frame, Frame::Token { .. })));
    frame("answer-text.cbor", |frame| {
        let Frame::Answer { body: Body::Text(text), route: "local", provisional: false } = frame else { panic!() };
        assert!(text == *"The lights in the packing hall are off.");
    });
    frame("answer-json.cbor", |frame| assert!(matches!(frame, Frame::Answer { body: Body::Json(_), .. })));
    frame("answer-provisional.cbor", |frame| assert!(matches!(frame, Frame::Answer { provisional: true, .. })));
    frame("error.cbor", |frame| {
        assert!(matches!(frame, Frame::Error { code: "busy", retry_after_ms: Some(5000), .. }));
    });
}

#[test]
fn damaged_frames_are_refused_or_read_but_never_a_panic() {
    let mut dice = 20_261_121u32;
    let mut roll = || {
        dice ^= dice << 13;
        dice ^= dice >> 17;
        dice ^= dice << 5;
        dice as usize
    };
    for name in ["token.cbor", "answer-text.cbor", "answer-json.cbor", "error.cbor"] {
        let whole = golden(name);
        for _ in 0..20_000 {
            let mut bad = whole[..1 + roll() % whole.len()].to_vec();
            let place = roll() % bad.len();
            bad[place] = roll() as u8;
            let _ = decode(&bad);
        }
    }
    assert_eq!(item_len(&[0x81; 64]), None);
    assert_eq!(item_len(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"), None);
}

fn token(seq: u8, text: &str) -> Vec<u8> {
    let mut e = minicbor::Encoder::new(Vec::new());
    e.map(4).unwrap().str("kind").unwrap().str("token").unwrap().str("attempt").unwrap().u8(1).unwrap();
    e.str("seq").unwrap().u8(seq).unwrap().str("text").unwrap().str(text).unwrap();
    e.into_writer()
}

#[test]
fn pieces_are_put_together_until_one_is_lost() {
    let mut stream = Stream::default();
    for (seq, piece, grew, shown) in [
        (0, "ab", true, "ab"),
        (1, "cd", true, "abcd"),
        (1, "cd", false, "abcd"),
        (3, "gh", false, "abcd"),
        (2, "ef", false, "abcd"),
    ] {
        let bytes = token(seq, piece);
        let Some((None, Frame::Token { attempt, seq, text })) = decode(&bytes) else { panic!() };
        assert_eq!((stream.add(attempt, seq, text), stream.text()), (grew, shown));
    }
}
