//! The bytes that `firmware-examples/README.md` shows are MQTT 3.1.1 publishes of prompts that a gateway takes.

use std::{fs, path::PathBuf};
use tidegate_schemas::{DeviceTopic, Encoding, Origin, Prompt, Topic, decode_prompt};

/// The bytes of a block "```hex NAME"; what follows `#` on a line is a note.
fn block(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../firmware-examples/README.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (_, rest) = text.split_once(&format!("```hex {name}\n")).unwrap_or_else(|| panic!("no block {name}"));
    let (hex, _) = rest.split_once("```").unwrap();
    let lines = hex.lines().map(|line| line.split('#').next().unwrap());
    lines.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Topic, packet id and payload of a PUBLISH at QoS 1 (MQTT 3.1.1 §3.3) of less than 128 bytes.
fn publish(bytes: &[u8]) -> (Topic, u16, &[u8]) {
    assert_eq!((bytes[0], usize::from(bytes[1])), (0x32, bytes.len() - 2), "fixed header");
    let topic_end = 4 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let topic = Topic::parse(std::str::from_utf8(&bytes[4..topic_end]).unwrap()).unwrap();
    let id = u16::from_be_bytes([bytes[topic_end], bytes[topic_end + 1]]);
    (topic, id, &bytes[topic_end + 2..])
}

fn check(name: &str, packet_id: u16, encoding: Encoding) -> Prompt {
    let bytes = block(name);
    let (topic, id, payload) = publish(&bytes);
    let origin = Origin { site: "mill".parse().unwrap(), gateway: "gw-3".parse().unwrap() };
    assert_eq!(topic, Topic::device(&origin, DeviceTopic::Prompt, &"press-7".parse().unwrap()), "{name}");
    assert_eq!(id, packet_id, "{name}");
    let (prompt, found) = decode_prompt(payload).unwrap();
    assert_eq!(found, encoding, "{name}");
    prompt
}

#[test]
fn both_publishes_ask_the_same() {
    let in_json = check("publish-json", 2, Encoding::Json);
    let in_cbor = check("publish-cbor", 3, Encoding::Cbor);
    assert_eq!(in_json, in_cbor);
    let expected = Prompt {
        id: Some("b3f1-7".parse().unwrap()),
        deadline_ms: tidegate_schemas::DeadlineMs::new(30_000),
        ..Prompt::bare("Is the press too hot?")
    };
    assert_eq!(in_json, expected);
}

#[test]
fn the_subscription_is_to_the_answers() {
    let bytes = block("subscribe");
    let name = std::str::from_utf8(&bytes[6..bytes.len() - 1]).unwrap();
    let Topic::Device { what, .. } = Topic::parse(name).unwrap() else { panic!("{name}") };
    assert_eq!(what, DeviceTopic::Answer);
}
