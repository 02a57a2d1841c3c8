//! The golden payloads of `schemas/` are read and written byte for byte; what is cut or strange is refused, never a panic.

use std::fs;
use std::path::PathBuf;
use tidegate_device::{
    Ask, Body, Clock, Control, Frame, Line, Prompt, Settings, Stream, cbor_to_json, decode, item_len, json_to_cbor,
};

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

fn check_cbor(name: &str, bytes: &[u8]) {
    let tokens: Vec<_> = minicbor::decode::Tokenizer::new(bytes).collect::<Result<_, _>>().unwrap();
    let mut again = minicbor::Encoder::new(Vec::new());
    again.tokens(&tokens).unwrap();
    assert_eq!(again.into_writer(), bytes, "{name}");
    assert_eq!(item_len(bytes), Some(bytes.len()), "{name}");
    for cut in 0..bytes.len() {
        assert_eq!(item_len(&bytes[..cut]), None, "{name} cut at {cut}");
        assert!(decode(&bytes[..cut]).is_none());
        assert!(cbor_to_json(&bytes[..cut], &mut [0; 4096]).is_none());
    }
    let mut json = [0; 4096];
    let len = cbor_to_json(bytes, &mut json).unwrap();
    // The same payload in JSON, where there is one.
    if let Ok(twin) = fs::read(folder().join(name.replace(".cbor", ".json"))) {
        assert_eq!(json[..len], twin, "{name}");
    }
}

fn check_json(name: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    let (mut cbor, mut json) = ([0; 4096], [0; 4096]);
    let len = json_to_cbor(text, &mut cbor).unwrap_or_else(|| panic!("{name}"));
    let again = cbor_to_json(&cbor[..len], &mut json).unwrap();
    assert_eq!(json[..again], *bytes, "{name}");
    assert!((0..len).all(|cap| json_to_cbor(text, &mut cbor[..cap]).is_none()), "{name}");
    assert!((0..again).all(|cap| cbor_to_json(&cbor[..len], &mut json[..cap]).is_none()) || len == 0, "{name}");
    assert!(text.char_indices().all(|(cut, _)| json_to_cbor(&text[..cut], &mut [0; 4096]).is_none()), "{name}");
    if name.starts_with("answer") || name.starts_with("error") || name.starts_with("token") {
        assert_eq!(decode(&cbor[..len]).unwrap().0, Some("b3f1-7"), "{name}");
    }
}

/// No time: nothing here waits.
struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        0
    }

    async fn sleep_ms(&self, _: u32) {}
}

/// A bare prompt is its text, and nothing else.
fn check_bare_prompt(name: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    let ask = Ask::new(Settings { text, bare: true, ..Settings::default() }, "b3f1-7", Still, |_| ());
    assert_eq!(ask.payload(&mut []), Some(bytes), "{name}");
}

/// A line is read byte for byte, and says what the same frame says in CBOR.
fn check_line(name: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut json = [0; 4096];
    let cbor = golden(&name.replace(".txt", ".cbor"));
    match decode(&cbor).unwrap().1 {
        Frame::Answer { body: Body::Text(body), .. } => assert!(body == *text, "{name}"),
        Frame::Answer { body: Body::Json(item), .. } => {
            let len = cbor_to_json(item, &mut json).unwrap();
            assert_eq!(json[..len], *bytes, "{name}");
        }
        Frame::Error { code, message, .. } => assert_eq!(format!("!{code}: {message}"), text, "{name}"),
        _ => panic!("{name} has no line"),
    }
    let line = Line::read(bytes).unwrap();
    assert_eq!(line, if name == "error.txt" { Line::Refusal(text) } else { Line::Answer(text) });
    let shown = line.said().to_string();
    let start = if name == "error.txt" { "error " } else { "answer - " };
    assert_eq!(shown.strip_prefix(start).unwrap().as_bytes(), bytes, "{name}");
    assert_eq!(Line::read(&cbor), None, "{name}: a frame is no line");
}

/// Every payload of the index comes out as it went in: CBOR token by token, JSON by way of CBOR.
#[test]
fn all_are_decoded_and_encoded() {
    let index = String::from_utf8(golden("index.txt")).unwrap();
    for (name, kind) in index.lines().filter_map(|line| line.split_once(' ')) {
        let bytes = golden(name);
        match name.rsplit('.').next() {
            Some("cbor") => check_cbor(name, &bytes),
            Some("json") => check_json(name, &bytes),
            Some("txt") if kind == "prompt" => check_bare_prompt(name, &bytes),
            Some("txt") => check_line(name, &bytes),
            _ => panic!("nothing here knows {name}"),
        }
    }
    assert!(index.lines().count() > 30);
}

/// What is no JSON, or a part of none.
const NO_JSON: &[&str] = &[
    "",
    " ",
    "{",
    "[",
    "]",
    "{]",
    "[}",
    r#"{"a"}"#,
    r#"{"a":}"#,
    r#"{"a":1,}"#,
    "[1,]",
    "{1:2}",
    "01",
    "1.",
    ".5",
    "+1",
    "-",
    "1e",
    "tru",
    "nul",
    "\"",
    r#""\x""#,
    r#""\ud800""#,
    r#""\udc00""#,
    r#""\u12g4""#,
    "\"\n\"",
    "1 2",
    "{} {}",
];

#[test]
fn json_of_every_shape() {
    let through = |json: &str| {
        let (mut cbor, mut again) = ([0; 256], [0; 256]);
        let len = json_to_cbor(json, &mut cbor)?;
        let len = cbor_to_json(&cbor[..len], &mut again)?;
        Some(String::from_utf8(again[..len].to_vec()).unwrap())
    };
    for same in [
        "{}",
        "[]",
        "[[],{}]",
        "0",
        "-1",
        "18446744073709551615",
        "-18446744073709551615",
        "1.5",
        "-0.0",
        "1e-7",
        "5e-324",
        "true",
        "false",
        "null",
        "\"\"",
        r#""\u0001\n\"\\""#,
        "\"é\"",
        r#"{"a":[1,{"b":null}],"c":""}"#,
    ] {
        assert_eq!(through(same).as_deref(), Some(same));
    }
    for (other, same) in [
        (" { \"a\" : [ 1 , 2 ] } ", r#"{"a":[1,2]}"#),
        (r#""\u00e9\ud83d\ude00\/""#, "\"é😀/\""),
        ("1E3", "1000.0"),
        ("1e999", "null"),
    ] {
        assert_eq!(through(other).as_deref(), Some(same));
    }
    for none in NO_JSON {
        assert_eq!(through(none), None, "{none}");
    }
    assert_eq!(through(&("[".repeat(33) + &"]".repeat(33))), None);
    assert_eq!(cbor_to_json(&[0x42, 1, 2], &mut [0; 64]), None);
    assert_eq!(cbor_to_json(&[0xa1, 1, 2], &mut [0; 64]), None);
}

#[test]
fn prompts_and_control_are_written() {
    let mut out = [0; 512];
    let least = Prompt { input: "turn off the lights in the packing hall", ..Prompt::default() };
    let len = least.encode(&mut out).unwrap();
    assert_eq!(out[..len], golden("prompt-min.cbor"));
    let mut json = [0; 512];
    let json_len = cbor_to_json(&out[..len], &mut json).unwrap();
    assert_eq!(json[..json_len], golden("prompt-min.json"));
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
