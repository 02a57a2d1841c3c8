//! Identifiers: what is one, and what the refusal says.

use tidegate_schemas::{DeviceId, IdError, ModelName, PromptId, TaskName};

#[test]
fn the_alphabet_and_the_bounds_are_taken() {
    for good in ["a", "Z", "0", "_", ".", "-", "b3f1-7", "press.7_a-B", &"x".repeat(64)] {
        let id: PromptId = good.parse().unwrap();
        assert_eq!((id.as_str(), id.to_string().as_str(), format!("{id:?}").as_str()), (good, good, good));
    }
}

#[test]
fn everything_else_is_refused_with_the_limit() {
    let table: [(&str, IdError); 8] = [
        ("", IdError::Empty { what: "id" }),
        (&"x".repeat(65), IdError::TooLong { what: "id", len: 65 }),
        ("a b", IdError::Character { what: "id", found: ' ' }),
        ("a/b", IdError::Character { what: "id", found: '/' }),
        ("a+", IdError::Character { what: "id", found: '+' }),
        ("#", IdError::Character { what: "id", found: '#' }),
        ("naïve", IdError::Character { what: "id", found: 'ï' }),
        ("a\0", IdError::Character { what: "id", found: '\0' }),
    ];
    for (bad, error) in table {
        assert_eq!(bad.parse::<PromptId>(), Err(error.clone()), "{bad:?}");
        assert!(error.to_string().ends_with("allowed are 1 to 64 of A-Z a-z 0-9 _ . -"), "{error}");
    }
}

#[test]
fn each_kind_names_itself() {
    let says = |e: IdError| e.to_string().split(' ').next().unwrap().to_owned();
    assert_eq!(says("".parse::<DeviceId>().unwrap_err()), "device");
    assert_eq!(says("".parse::<TaskName>().unwrap_err()), "task");
    assert_eq!(says("".parse::<ModelName>().unwrap_err()), "model");
}

proptest::proptest! {
    #[test]
    fn any_text_is_an_identifier_exactly_when_it_matches_the_pattern(text in "[A-Za-z0-9_.\\-/+# é]{0,70}") {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        proptest::prop_assert_eq!(text.parse::<DeviceId>().is_ok(), fits);
    }
}
