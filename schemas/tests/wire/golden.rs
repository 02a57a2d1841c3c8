//! The committed payloads: today's encoder writes exactly these bytes, today's decoder reads them.
//! `GOLDEN=write` writes them anew; a changed file in the diff is a changed wire.

use crate::samples::{self, Golden};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, path::PathBuf};
use tidegate_schemas::{
    Card, Event, Frame, Health, Load, cbor, decode_control, decode_escalation, decode_prompt, decode_resolution, encode,
};

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn index(all: &[Golden]) -> String {
    all.iter().map(|g| format!("{} {}\n", g.file, g.kind)).collect()
}

#[test]
fn the_encoder_writes_the_committed_bytes() {
    let all = samples::all();
    if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") {
        fs::create_dir_all(folder()).unwrap();
        all.iter().for_each(|g| fs::write(folder().join(&g.file), &g.bytes).unwrap());
        fs::write(folder().join("index.txt"), index(&all)).unwrap();
    }
    for golden in &all {
        let committed = fs::read(folder().join(&golden.file)).unwrap_or_else(|e| panic!("{}: {e}", golden.file));
        assert!(committed == golden.bytes, "{} differs from what is written now", golden.file);
    }
    assert_eq!(fs::read_to_string(folder().join("index.txt")).unwrap(), index(&all));
}

#[test]
fn every_committed_payload_is_in_the_index() {
    let known: Vec<String> = samples::all().into_iter().map(|g| g.file).collect();
    for entry in fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(file == "index.txt" || known.contains(&file), "{file} is not in golden/index.txt");
    }
}

/// Decodes and encodes again, in the encoding that the file's name tells.
fn again<T: Serialize + DeserializeOwned>(file: &str, bytes: &[u8]) -> Vec<u8> {
    if file.ends_with(".cbor") {
        cbor::to_vec(&cbor::from_slice::<T>(bytes, 4096).unwrap())
    } else {
        serde_json::to_vec(&serde_json::from_slice::<T>(bytes).unwrap()).unwrap()
    }
}

#[test]
fn the_decoder_reads_the_committed_bytes() {
    let words = "turn off the lights in the packing hall";
    for Golden { file, kind, bytes } in samples::all() {
        let encoding = file.rsplit('.').next().unwrap().to_owned();
        let same = match kind {
            "prompt" if file.starts_with("prompt-min") => {
                let (prompt, found) = decode_prompt(&bytes).unwrap();
                assert_eq!(prompt, tidegate_schemas::Prompt::bare(words), "{file}");
                assert_eq!(serde_json::to_value(found).unwrap(), encoding.replace("txt", "text"));
                continue;
            }
            "prompt" if file == "prompt-device.cbor" => {
                let expected = tidegate_schemas::Prompt { priority: Default::default(), ..samples::full_prompt() };
                assert_eq!(decode_prompt(&bytes).unwrap().0, expected);
                continue;
            }
            "prompt" => {
                decode_prompt(&bytes).unwrap();
                again::<tidegate_schemas::Prompt>(&file, &bytes)
            }
            "control" => {
                decode_control(&bytes).unwrap();
                again::<tidegate_schemas::Control>(&file, &bytes)
            }
            "frame" => again::<Frame>(&file, &bytes),
            "line" => String::from_utf8(bytes.clone()).unwrap().into_bytes(),
            "escalation" => encode(&decode_escalation(&bytes).unwrap()),
            "resolution" => encode(&decode_resolution(&bytes).unwrap()),
            "health" => again::<Health>(&file, &bytes),
            "card" => again::<Card>(&file, &bytes),
            "load" => again::<Load>(&file, &bytes),
            "event" => again::<Event>(&file, &bytes),
            other => panic!("{file} is of the unknown kind {other}"),
        };
        assert!(same == bytes, "{file} is not the same after a round trip");
    }
}
