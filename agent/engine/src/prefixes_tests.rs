//! The tree against a list that is searched from end to end.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn tokens(text: &str) -> Vec<LlamaToken> {
    text.bytes().map(|byte| LlamaToken(i32::from(byte))).collect()
}

fn sequence_of(prefixes: &mut Prefixes, text: &str) -> i32 {
    prefixes.place(&tokens(text), Pin::ByUse).unwrap().sequence
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut prefixes = Prefixes::new(4..6, 100, Sharing::Parts);
    let first = sequence_of(&mut prefixes, "aaaaa");
    let second = sequence_of(&mut prefixes, "bbbbb");
    assert_eq!(prefixes.longest(&tokens("aaaaax")), Some(Part { sequence: first, tokens: 5 }));
    let place = prefixes.place(&tokens("ccccc"), Pin::ByUse);
    assert_eq!(place, Some(Place { sequence: second, clear: vec![second], shared: None }));
    assert_eq!(prefixes.longest(&tokens("bbbbb")), None);
    assert_eq!(prefixes.place(&tokens("aaaaa"), Pin::ByUse), None, "it stands");
    assert_eq!(prefixes.place(&tokens(&"d".repeat(101)), Pin::ByUse), None, "it never fits");
    assert_eq!(Prefixes::new(4..4, 100, Sharing::Parts).place(&tokens("a"), Pin::ByUse), None, "no sequence");
}

#[test]
fn a_common_begin_is_found_shared_and_counted_once() {
    let mut prefixes = Prefixes::new(0..4, 12, Sharing::Parts);
    let cat = sequence_of(&mut prefixes, "you are a ");
    assert_eq!(prefixes.longest(&tokens("you are not")), Some(Part { sequence: cat, tokens: 8 }));
    let place = prefixes.place(&tokens("you are ox"), Pin::ByUse).unwrap();
    assert_eq!((place.shared, place.clear), (Some(Part { sequence: cat, tokens: 8 }), vec![]));
    assert_eq!(prefixes.held(), 12);
    // A prefix of what stands costs no cell.
    let short = prefixes.place(&tokens("you"), Pin::ByUse).unwrap();
    assert_eq!((short.shared.map(|part| part.tokens), prefixes.held()), (Some(3), 12));
    prefixes.remove(cat);
    assert_eq!((prefixes.held(), prefixes.longest(&tokens("you are a")).unwrap().tokens), (10, 8));
}

#[test]
fn what_cannot_be_cut_is_found_whole_only() {
    let mut prefixes = Prefixes::new(0..4, 100, Sharing::Whole);
    let short = sequence_of(&mut prefixes, "abc");
    let long = sequence_of(&mut prefixes, "abcdef");
    assert_eq!(prefixes.held(), 9, "nothing is shared");
    assert_eq!(prefixes.longest(&tokens("abcdexx")), Some(Part { sequence: short, tokens: 3 }));
    assert_eq!(prefixes.longest(&tokens("abcdefx")), Some(Part { sequence: long, tokens: 6 }));
    assert_eq!(prefixes.longest(&tokens("abx")), None);
}

#[test]
fn what_is_pinned_stays() {
    let mut prefixes = Prefixes::new(0..2, 10, Sharing::Parts);
    let pinned = prefixes.place(&tokens("aaaa"), Pin::Pinned).unwrap().sequence;
    for other in ["bbbb", "cccc", "dddd"] {
        assert!(prefixes.place(&tokens(other), Pin::ByUse).is_some(), "{other}");
    }
    assert_eq!(prefixes.place(&tokens("eeeeeee"), Pin::ByUse), None, "more than is left");
    assert_eq!(prefixes.longest(&tokens("aaaa")), Some(Part { sequence: pinned, tokens: 4 }));
    // What was kept by use becomes pinned in its place; then both sequences are taken for good.
    assert!(prefixes.stands(&tokens("dddd"), Pin::Pinned).is_some());
    assert_eq!(prefixes.place(&tokens("e"), Pin::ByUse), None);
    prefixes.forget();
    assert!(prefixes.place(&tokens("e"), Pin::ByUse).is_some());
}

/// What stands, as a list.
#[derive(Default)]
struct Plain(Vec<(Vec<LlamaToken>, i32)>);

impl Plain {
    fn longest(&self, tokens: &[LlamaToken]) -> usize {
        let common = |kept: &[LlamaToken]| kept.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.0.iter().map(|(kept, _)| common(kept)).max().unwrap_or(0)
    }

    fn begins(&self) -> usize {
        let begins = self.0.iter().flat_map(|(kept, _)| (1..=kept.len()).map(|len| kept[..len].to_vec()));
        begins
            .map(|begin| begin.iter().map(|t| t.0).collect::<Vec<_>>())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    }
}

proptest! {
    #[test]
    fn the_tree_says_what_a_list_says(asked in prop::collection::vec(("[ab]{1,9}", any::<bool>()), 1..60)) {
        let (mut prefixes, mut plain) = (Prefixes::new(10..15, 24, Sharing::Parts), Plain::default());
        let mut pinned = Vec::new();
        for (text, pin) in asked {
            let text = tokens(&text);
            let found = prefixes.longest(&text);
            prop_assert_eq!(found.map_or(0, |part| part.tokens), plain.longest(&text));
            if let Some(part) = found {
                let (kept, _) = plain.0.iter().find(|(_, sequence)| *sequence == part.sequence).unwrap();
                prop_assert_eq!(&kept[..part.tokens], &text[..part.tokens]);
            }
            let pin = if pin && pinned.len() < 2 { Pin::Pinned } else { Pin::ByUse };
            if let Some(place) = prefixes.place(&text, pin) {
                plain.0.retain(|(_, sequence)| !place.clear.contains(sequence));
                prop_assert!(plain.0.iter().all(|(_, sequence)| *sequence != place.sequence));
                prop_assert_eq!(place.shared.map_or(0, |part| part.tokens), plain.longest(&text));
                plain.0.push((text.clone(), place.sequence));
            }
            if pin == Pin::Pinned && prefixes.stands(&text, pin).is_some() {
                pinned.push(text);
            }
            prop_assert_eq!(prefixes.held(), plain.begins());
            prop_assert!(prefixes.held() <= 24 && plain.0.len() + prefixes.free.len() == 5);
            prop_assert!(pinned.iter().all(|text| plain.0.iter().any(|(kept, _)| kept == text)));
        }
    }
}
