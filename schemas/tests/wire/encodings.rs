//! How a payload's encoding is told, and what CBOR is refused although serde would take it.

use serde_json::json;
use tidegate_schemas::{DecodeError, Encoding, Input, cbor, decode_escalation, decode_prompt, decode_resolution};

#[test]
fn the_first_bytes_tell_the_encoding() {
    let table: [(&[u8], Result<Encoding, DecodeError>); 15] = [
        (b"{}", Ok(Encoding::Json)),
        (b" \t\r\n{", Ok(Encoding::Json)),
        (b"hello", Ok(Encoding::Text)),
        (b"[1]", Ok(Encoding::Text)),
        (b"\"quoted\"", Ok(Encoding::Text)),
        ("\u{a0}{brace after a no-break space".as_bytes(), Ok(Encoding::Text)),
        ("Grüße".as_bytes(), Ok(Encoding::Text)),
        (&[0xa0], Ok(Encoding::Cbor)),
        (&[0xbf, 0xff], Ok(Encoding::Cbor)),
        (&[0xd9, 0xd9, 0xf7, 0xa0], Ok(Encoding::Cbor)),
        (b"", Err(DecodeError::Empty)),
        (b" \r\n", Err(DecodeError::Empty)),
        (&[0xc3], Err(DecodeError::Unknown { first: 0xc3 })),
        (&[0x80], Err(DecodeError::Unknown { first: 0x80 })),
        (&[b'a', 0xff], Err(DecodeError::Unknown { first: b'a' })),
    ];
    for (payload, encoding) in table {
        assert_eq!(Encoding::of(payload), encoding, "{payload:02x?}");
    }
}

#[test]
fn bare_text_is_the_prompt_itself() {
    for text in ["turn it off", "  spaces stay  ", "line\nline", "0", "Grüße"] {
        let (prompt, encoding) = decode_prompt(text.as_bytes()).unwrap();
        assert_eq!(encoding, Encoding::Text);
        let Input::Input(found) = prompt.input else { panic!("an input expected") };
        assert_eq!(found.reveal(), text);
    }
}

#[test]
fn an_empty_payload_says_what_is_needed() {
    let sentence = "payload is empty or blank, a message in CBOR, JSON or UTF-8 text is needed";
    assert_eq!(decode_prompt(b"").unwrap_err().to_string(), sentence);
    assert_eq!(decode_prompt(b"\n").unwrap_err().to_string(), sentence);
    let unknown = decode_prompt(&[0x80, 1]).unwrap_err().to_string();
    assert_eq!(unknown, "payload starts with byte 0x80 and is neither CBOR map, JSON object nor UTF-8 text");
}

fn refused(payload: &[u8]) -> String {
    decode_prompt(payload).expect_err("must be refused").to_string()
}

#[test]
fn cbor_of_other_shapes_than_a_map_of_text_keys_is_refused() {
    assert_eq!(refused(b"\xa1\x03\x65hello"), "message has an integer for a key, needed is text");
    assert_eq!(refused(b"\xa1\x45input\x65hello"), "message has a byte string for a key, needed is text");
    assert_eq!(refused(b"\xa1\x80\x65hello"), "message has an array for a key, needed is text");
    assert_eq!(refused(b"\xd9\xd9\xf7\x81\x01"), "message is an array, needed is a map");
    assert_eq!(refused(b"\xd9\xd9\xf7\x65hello"), "message is a string, needed is a map");
    // messages: [["user", "x"]], each turn a positional array
    assert_eq!(refused(b"\xa1\x68messages\x81\x82\x64user\x61x"), "messages[0] is an array, needed is a map");
    // messages: [{"role": 1, "content": "x"}], the variant as a number
    let numbered = b"\xa1\x68messages\x81\xa2\x64role\x01\x67content\x61x";
    assert_eq!(refused(numbered), "messages[0].role is an integer, needed is one of system, user, assistant");
    // messages: [{"role": ["user"], …}], serde_cbor's older form of an enum
    let listed = b"\xa1\x68messages\x81\xa2\x64role\x81\x64user\x67content\x61x";
    assert_eq!(refused(listed), "messages[0].role is an array, needed is one of system, user, assistant");
    assert_eq!(decode_escalation(&[0x80]).unwrap_err().to_string(), "message is an array, needed is a map");
    assert_eq!(decode_resolution(&[0x01]).unwrap_err().to_string(), "message is an integer, needed is a map");
}

#[test]
fn the_outcome_of_a_resolution_is_a_map_of_one() {
    let said = |outcome: serde_json::Value| {
        let golden = tidegate_schemas::encode(&crate::samples::resolution());
        let mut message: serde_json::Value = cbor::from_slice(&golden, 4096).unwrap();
        message["outcome"] = outcome;
        decode_resolution(&cbor::to_vec(&message)).err().map(|e| e.to_string())
    };
    let text = json!({"text": "x"});
    assert_eq!(said(json!({"answer": text})), None);
    assert_eq!(said(json!({"error": {"code": "cut", "message": "x"}})), None);
    let table = [
        (json!({"error": ["cut", "x"]}), "outcome.error is an array, needed is a map"),
        (json!({"error": {"code": "cut"}}), "outcome.error has no message, which is needed"),
        (json!({}), "outcome is an empty map, needed is one entry"),
        (json!(["answer", text]), "outcome is an array, needed is one of answer, error"),
        (json!({"answer": {"prose": "x"}}), "outcome.answer is an unknown word, known are text, json"),
    ];
    for (outcome, sentence) in table {
        assert_eq!(said(outcome).as_deref(), Some(sentence));
    }
    let two = said(json!({"answer": text, "error": 1})).unwrap();
    assert_eq!(two, "outcome is a map of several entries, needed is one entry");
}

#[test]
fn broken_cbor_and_json_say_where() {
    assert_eq!(refused(b"\xa1\x65input\x65he"), "message: EOF while parsing a value at offset 10");
    assert_eq!(refused(b"\xa2\x65input\x65hello"), "message: EOF while parsing a value at offset 13");
    assert_eq!(refused(b"\xa1\x65input\x65hello\x00"), "message: trailing data at offset 14");
    assert_eq!(refused(b"\xa2\x65input\x61x\x65input\x61x"), "message has input twice");
    assert_eq!(refused(br#"{"input":"x""#), "message: EOF while parsing an object at line 1 column 12");
    assert_eq!(refused(br#"{"input":"x"} {}"#), "message: trailing characters at line 1 column 15");
    assert_eq!(refused(br#"{"input":"x","input":"y"}"#), "message has input twice");
}

#[test]
fn indefinite_lengths_and_the_self_description_are_taken() {
    let plain = decode_prompt(b"\xa1\x65input\x65hello").unwrap();
    let table: [&[u8]; 4] = [
        b"\xbf\x65input\x65hello\xff",
        b"\xbf\x65input\x7f\x62he\x63llo\xff\xff",
        b"\xd9\xd9\xf7\xa1\x65input\x65hello",
        b"\xb9\x00\x01\x78\x05input\x79\x00\x05hello",
    ];
    for payload in table {
        assert_eq!(decode_prompt(payload).unwrap(), plain, "{payload:02x?}");
    }
}

#[test]
fn the_callers_limit_is_held() {
    let error = cbor::from_slice::<serde_json::Value>(&[0x00, 0x00, 0x00], 2).unwrap_err();
    assert_eq!(error.to_string(), "message is 3 bytes, limit is 2");
}

#[test]
fn nesting_ends_in_an_error_not_in_the_stack() {
    let deep = [b"{\"x\":".repeat(10_000), b"1".to_vec()].concat();
    assert!(refused(&deep).contains("recursion limit"), "{}", refused(&deep));
    let deep = [b"\xa1\x61x".repeat(10_000), vec![0x01]].concat();
    assert!(refused(&deep).contains("recursion limit"), "{}", refused(&deep));
}
