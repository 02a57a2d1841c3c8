//! Prompts and control messages: what is taken, what is refused, and in which words; the same in JSON and CBOR.

use serde_json::{Value, json};
use tidegate_schemas::{
    ControlOp, DecodeError, Encoding, Input, PROMPT_BYTES_MAX, Prompt, Role, cbor, decode_control, decode_prompt,
};

/// The payload in both structured encodings.
fn both(message: &Value) -> [(Encoding, Vec<u8>); 2] {
    [(Encoding::Json, serde_json::to_vec(message).unwrap()), (Encoding::Cbor, cbor::to_vec(message))]
}

fn refuse(message: &Value, sentence: &str) {
    for (encoding, payload) in both(message) {
        let error = decode_prompt(&payload).expect_err(sentence);
        assert_eq!(error.to_string(), sentence, "{encoding:?}");
    }
}

#[test]
fn wrong_values_are_named_with_the_value_and_what_is_allowed() {
    let table = [
        ("deadline_ms", json!(0), "deadline_ms is 0, allowed are 1 to 2592000000"),
        ("deadline_ms", json!(-5), "deadline_ms is -5, allowed are 1 to 2592000000"),
        ("deadline_ms", json!(2_592_000_001_u64), "deadline_ms is 2592000001, allowed are 1 to 2592000000"),
        ("deadline_ms", json!("soon"), "deadline_ms is a string, needed is an integer"),
        ("deadline_ms", json!(1.5), "deadline_ms is a fraction, needed is an integer"),
        ("deadline_ms", json!([1]), "deadline_ms is an array, needed is an integer"),
        ("deadline_ms", json!(u64::MAX), "deadline_ms is 18446744073709551615, needed is an integer"),
        ("priority", json!(10), "priority is 10, allowed are 0 to 9"),
        ("priority", json!(-1), "priority is -1, allowed are 0 to 9"),
        ("priority", json!("high"), "priority is a string, needed is an integer"),
        ("priority", json!(true), "priority is a boolean, needed is an integer"),
        ("priority", json!(null), "priority is null, needed is an integer"),
        ("max_tokens", json!(0), "max_tokens is 0, allowed are 1 to 32768"),
        ("max_tokens", json!(32_769), "max_tokens is 32769, allowed are 1 to 32768"),
        ("max_tokens", json!({"n": 1}), "max_tokens is a map, needed is an integer"),
        ("max_bytes", json!(0), "max_bytes is 0, allowed are 1 to 4294967295"),
        ("max_bytes", json!(4_294_967_296_u64), "max_bytes is 4294967296, allowed are 1 to 4294967295"),
        ("v", json!(2), "v is 2, spoken is 1"),
        ("v", json!("1"), "v is a string, needed is an integer"),
        ("stream", json!("yes"), "stream is a string, needed is a boolean"),
        ("stream", json!(1), "stream is an integer, needed is a boolean"),
        ("local", json!({}), "local is a map, needed is a boolean"),
        ("task", json!(7), "task is an integer, needed is a string"),
        ("task", json!(""), "task is empty, allowed are 1 to 64 of A-Z a-z 0-9 _ . -"),
        ("id", json!("x".repeat(65)), "id is 65 bytes, allowed are 1 to 64 of A-Z a-z 0-9 _ . -"),
        ("id", json!("a/b"), "id has '/', allowed are 1 to 64 of A-Z a-z 0-9 _ . -"),
        ("id", json!(7), "id is an integer, needed is a string"),
    ];
    for (field, value, sentence) in table {
        let mut message = json!({"input": "hello"});
        message[field] = value;
        refuse(&message, sentence);
    }
}

#[test]
fn the_text_must_be_there_once_and_in_shape() {
    let many: Vec<Value> = vec![json!({"role": "user", "content": "x"}); 65];
    let table = [
        (json!({}), "message has neither input nor messages, one of them is needed"),
        (json!({"input": ""}), "message has an input that is empty or blank"),
        (json!({"input": " \n"}), "message has an input that is empty or blank"),
        (json!({"input": "x", "messages": []}), "message has both input and messages, only one of them is allowed"),
        (json!({"messages": []}), "message has 0 entries in messages, allowed are 1 to 64"),
        (json!({"messages": many}), "message has 65 entries in messages, allowed are 1 to 64"),
        (json!({"messages": [{"role": "user", "content": ""}]}), "message has messages that are all empty or blank"),
        (json!({"messages": "x"}), "messages is a string, needed is an array"),
        (json!({"messages": [["user", "x"]]}), "messages[0] is an array, needed is a map"),
        (json!({"messages": [{"role": "user"}]}), "messages[0] has no content, which is needed"),
        (json!({"messages": [{"content": "x"}]}), "messages[0] has no role, which is needed"),
        (
            json!({"messages": [{"role": "robot", "content": "x"}]}),
            "messages[0].role is an unknown word, known are system, user, assistant",
        ),
        (
            json!({"messages": [{"role": {"user": "x"}, "content": "x"}]}),
            "messages[0].role.user is a string, needed is the word alone",
        ),
        (
            json!({"messages": [{"role": "user", "content": [1]}]}),
            "messages[0].content is an array, needed is a string",
        ),
        (json!({"input": {"a": 1}}), "input is a map, needed is a string"),
        (json!({"input": 7}), "input is an integer, needed is a string"),
    ];
    for (message, sentence) in table {
        refuse(&message, sentence);
    }
}

#[test]
fn a_whole_prompt_is_read_and_unknown_fields_are_ignored() {
    let message = json!({
        "v": 1, "id": "b3f1-7", "task": "no-such-task", "colour": {"deep": [1, {"x": null}]},
        "messages": [{"role": "system", "content": "brief", "name": "x"}, {"role": "user", "content": "lights?"}],
        "max_tokens": 32_768, "max_bytes": 1, "priority": 9, "deadline_ms": 2_592_000_000_u64, "stream": true,
        "local": true,
    });
    for (encoding, payload) in both(&message) {
        let (prompt, found) = decode_prompt(&payload).unwrap();
        assert_eq!(found, encoding);
        assert_eq!(prompt.id.as_ref().unwrap().as_str(), "b3f1-7");
        assert_eq!(prompt.task.as_ref().unwrap().as_str(), "no-such-task");
        assert_eq!((prompt.max_tokens, prompt.max_bytes, prompt.priority.get()), (Some(32_768), Some(1), 9));
        assert_eq!((prompt.deadline_ms.unwrap().get(), prompt.stream, prompt.local), (2_592_000_000, true, true));
        let Input::Messages(list) = &prompt.input else { panic!("messages expected") };
        assert_eq!((list[0].role, list[1].content.reveal()), (Role::System, "lights?"));
        assert_eq!(prompt.text_bytes(), "brief".len() + "lights?".len());
    }
}

#[test]
fn what_is_absent_or_null_has_its_default() {
    for message in [json!({"input": "x"}), json!({"input": "x", "id": null, "task": null, "deadline_ms": null})] {
        for (_, payload) in both(&message) {
            assert_eq!(decode_prompt(&payload).unwrap().0, Prompt::bare("x"));
        }
    }
    assert_eq!(Prompt::bare("x").priority.get(), 4);
}

#[test]
fn the_id_is_told_where_it_could_be_read() {
    let id_of = |message: Value| match decode_prompt(&serde_json::to_vec(&message).unwrap()) {
        Err(DecodeError::Field { id, .. }) => id.map(|id| id.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(id_of(json!({"id": "b3f1-7", "input": 7})).as_deref(), Some("b3f1-7"));
    assert_eq!(id_of(json!({"input": 7, "id": "b3f1-7"})).as_deref(), Some("b3f1-7"));
    assert_eq!(id_of(json!({"id": "b3f1/7", "input": 7})), None);
    assert_eq!(id_of(json!({"input": 7})), None);
}

#[test]
fn a_payload_over_the_limit_is_refused_before_it_is_looked_at() {
    let fits = "x".repeat(PROMPT_BYTES_MAX);
    assert_eq!(decode_prompt(fits.as_bytes()).unwrap().1, Encoding::Text);
    let error = decode_prompt(&[0xff; PROMPT_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(error, DecodeError::TooLarge { len: 65_537, max: 65_536 });
    assert_eq!(error.to_string(), "payload is 65537 bytes, limit is 65536");
}

#[test]
fn control_has_an_operation_and_an_id() {
    for (op, word) in [(ControlOp::Cancel, "cancel"), (ControlOp::Fetch, "fetch")] {
        for (encoding, payload) in both(&json!({"op": word, "id": "b3f1-7", "more": 1})) {
            let (control, found) = decode_control(&payload).unwrap();
            assert_eq!((control.op, control.id.as_str(), found), (op, "b3f1-7", encoding));
        }
    }
    let table = [
        (json!({"op": "stop", "id": "a"}), "op is an unknown word, known are cancel, fetch"),
        (json!({"op": {"cancel": "x"}, "id": "a"}), "op.cancel is a string, needed is the word alone"),
        (json!({"op": 1, "id": "a"}), "op is an integer, needed is one of cancel, fetch"),
        (json!({"op": "cancel"}), "message has no id, which is needed"),
        (json!({"id": "a"}), "message has no op, which is needed"),
    ];
    for (message, sentence) in table {
        for (encoding, payload) in both(&message) {
            assert_eq!(decode_control(&payload).unwrap_err().to_string(), sentence, "{encoding:?}");
        }
    }
    let text = decode_control(b"cancel b3f1-7").unwrap_err();
    assert_eq!(text.to_string(), "message is bare text, needed is a CBOR map or JSON object");
}

#[test]
fn the_content_hash_is_of_the_content_alone() {
    let hash = |message: Value| decode_prompt(&serde_json::to_vec(&message).unwrap()).unwrap().0.content_hash();
    let plain = hash(json!({"input": "lights off"}));
    let known = "the bytes on disk of an earlier version must still mean the same content";
    assert_eq!(format!("{:02x?}", &plain.0[..4]), HASH_OF_LIGHTS_OFF, "{known}");
    assert_eq!(plain, hash(json!({"input": "lights off", "id": "b3f1-7"})));
    assert_eq!(plain, hash(json!({"deadline_ms": 5000, "v": 1, "input": "lights off"})));
    let in_cbor = decode_prompt(&cbor::to_vec(&json!({"input": "lights off"}))).unwrap().0;
    assert_eq!(plain, in_cbor.content_hash());
    for other in [
        json!({"input": "lights on"}),
        json!({"input": "lights off", "task": "intent"}),
        json!({"input": "lights off", "max_tokens": 5}),
        json!({"input": "lights off", "local": true}),
        json!({"messages": [{"role": "user", "content": "lights off"}]}),
    ] {
        assert_ne!(plain, hash(other.clone()), "{other}");
    }
}

const HASH_OF_LIGHTS_OFF: &str = "[8f, d5, 58, 26]";
