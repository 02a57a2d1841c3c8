//! Model files that are not what they should be.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use common::Model;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::path::Path;
use tidegate_engine::model_file::{ModelFile, inspect};
use tidegate_engine::tiny::Shape;

/// What `inspect` says about these bytes.
fn look(bytes: &[u8]) -> Result<ModelFile, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    inspect(&path).map_err(|e| {
        let message = e.to_string();
        let name = format!("model {}: ", path.display());
        message.strip_prefix(&name).unwrap_or_else(|| panic!("no name in: {message}")).to_owned()
    })
}

fn tiny() -> Vec<u8> {
    std::fs::read(Model::tiny().path()).unwrap()
}

/// A head with these counts and metadata bytes.
fn head(version: u32, tensors: u64, entries: u64, rest: &[u8]) -> Vec<u8> {
    [b"GGUF", &version.to_le_bytes()[..], &tensors.to_le_bytes(), &entries.to_le_bytes(), rest].concat()
}

/// One metadata entry with key `k`.
fn entry(kind: u32, value: &[u8]) -> Vec<u8> {
    head(3, 0, 1, &[&1_u64.to_le_bytes()[..], b"k", &kind.to_le_bytes(), value].concat())
}

fn array(kind: u32, len: u64) -> Vec<u8> {
    entry(9, &[&kind.to_le_bytes()[..], &len.to_le_bytes()].concat())
}

#[test]
fn a_whole_model_is_described() {
    let bytes = tiny();
    let file = look(&bytes).unwrap();
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let expect = ModelFile {
        sha256,
        architecture: "llama".to_owned(),
        name: "tiny".to_owned(),
        context_length: 512,
        bytes: bytes.len() as u64,
    };
    assert_eq!(file, expect);
    let named = Model::of(&Shape { name: "My Model (v2)".to_owned(), ..Shape::tiny() });
    assert_eq!(inspect(&named.path()).unwrap().name, "My-Model--v2-");
}

#[test]
fn absurd_heads_are_refused_with_value_and_limit() {
    let long = u64::MAX.to_le_bytes();
    for (bytes, expect) in [
        (b"PK\x03\x04 whatever".to_vec(), "it is not a GGUF file: it begins with [50, 4b, 03, 04] instead of \"GGUF\""),
        (Vec::new(), "it ends within its metadata, after 0 bytes"),
        (head(1, 0, 0, b""), "its GGUF version is 1, this engine reads 2 and 3"),
        (head(3 << 24, 0, 0, b""), "its GGUF version is 50331648, this engine reads 2 and 3"),
        (head(3, u64::MAX, 0, b""), "number of tensors is 18446744073709551615, limit is 65536"),
        (head(3, 0, 1 << 40, b""), "number of metadata entries is 1099511627776, limit is 4096"),
        (head(3, 0, 1, &long), "metadata key is 18446744073709551615, limit is 1024"),
        (entry(8, &long), "length of a string is 18446744073709551615, limit is 1048576"),
        (entry(99, b""), "type of a metadata value is 99, which GGUF does not know"),
        (array(4, u64::MAX), "length of an array is 18446744073709551615, limit is 4194304"),
        (array(9, 1), "type of an array's elements is 9, which GGUF does not know"),
        (array(77, 4_000), "type of an array's elements is 77, which GGUF does not know"),
        (array(8, 4_000_000), "it ends within its metadata, after 49 bytes"),
        (head(3, 0, 0, b""), "its metadata has no general.architecture"),
        (
            head(3, 1, 0, &[&1_u64.to_le_bytes()[..], b"t", &9_u32.to_le_bytes()].concat()),
            "dimensions is 9, limit is 4",
        ),
    ] {
        let message = look(&bytes).unwrap_err();
        assert!(message.contains(expect), "{message}\n{expect}");
    }
}

#[test]
fn a_cut_file_is_seen_wherever_it_is_cut() {
    let bytes = tiny();
    let whole = bytes.len();
    for left in [5, 23, 24, 100, 2_000, whole / 2, whole - 32] {
        let message = look(&bytes[..left]).unwrap_err();
        let expect =
            if left < 12_000 { "it ends within its metadata, after" } else { "it is truncated: tensor blk.1." };
        assert!(message.starts_with(expect), "{left}: {message}");
    }
    let message = look(&bytes[..whole - 32]).unwrap_err();
    assert!(message.ends_with(&format!("ends at byte {whole}, the file has {}", whole - 32)), "{message}");
}

#[test]
fn what_is_no_file_is_named() {
    for path in ["/nonexistent/model.gguf", "/dev/null", "/"] {
        let message = inspect(Path::new(path)).unwrap_err().to_string();
        assert!(message.starts_with(&format!("model {path}: ")), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a head says, there is an answer or a sentence.
    #[test]
    fn mutated_heads_are_survived(changes in prop::collection::vec((0_usize..9_000, any::<u8>()), 1..6)) {
        let mut bytes = tiny();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Err(message) = look(&bytes) {
            prop_assert!(message.len() < 1_500, "{}", message.len());
        }
    }
}
