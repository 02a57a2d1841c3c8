//! Vocabularies of the true sizes for byte-level BPE: bytes, the signs of JSON as tokenizers join them, made-up words
//! with and without a space before them, and characters of three bytes. A mask over such a vocabulary has the tree of
//! prefixes, and the work, of a real one.
//!
//! Invariants: every token but the control ones is a byte or the merge of two earlier tokens; no two are the same.

use crate::engine::blocks::Random;
use crate::engine::gguf::Value;
use std::collections::HashSet;

/// Whose tokenizer and chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    SmolLm,
    Qwen2,
    Llama3,
}

/// Letters as English has them, the most frequent first.
const LETTERS: &str = "etaoinshrdlucmfwypvbgkqjxz";
/// Signs that tokenizers join, each of two earlier tokens.
const SIGNS: [(&str, &str); 20] = [
    ("{", "\""),
    ("\"", ":"),
    ("\":", "\""),
    ("\"", ","),
    ("\",", "\""),
    ("\"", "}"),
    ("\"", "]"),
    ("}", ","),
    ("},", "{\""),
    ("[", "{\""),
    ("[", "\""),
    ("\":", "{\""),
    ("\":", "["),
    ("\":", "[\""),
    ("}", "}"),
    ("]", "}"),
    ("\"]", "}"),
    (",", "\""),
    ("},", "\""),
    ("\"", "},"),
];
/// Longest made-up word, in letters.
const WORD_LETTERS_MAX: u64 = 12;
/// One token in so many is a word of two characters of three bytes, after the single characters.
const WIDE_SHARE: usize = 8;
/// Such characters in a vocabulary at most: those of two thirds of it.
const WIDE_CHARACTERS: usize = 6_000;
/// The stand-in of a space.
const SPACE: char = 'Ġ';

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const LLAMA3: &str = "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}\
    <|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

impl Family {
    /// `tokenizer.ggml.pre`.
    fn cut(self) -> &'static str {
        match self {
            Self::SmolLm => "smollm",
            Self::Qwen2 => "qwen2",
            Self::Llama3 => "llama-bpe",
        }
    }

    /// Control tokens with a name: the first begins a text, the second ends a message, and how many places they have
    /// with the unused ones.
    fn control(self) -> (&'static [&'static str], usize) {
        match self {
            Self::SmolLm => (&["<|endoftext|>", "<|im_end|>", "<|im_start|>"], 17),
            Self::Qwen2 => (&["<|endoftext|>", "<|im_end|>", "<|im_start|>"], 293),
            Self::Llama3 => (
                &["<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"],
                256,
            ),
        }
    }

    fn template(self) -> &'static str {
        if self == Self::Llama3 { LLAMA3 } else { CHATML }
    }
}

/// A tokenizer.
pub(crate) struct Vocabulary {
    family: Family,
    tokens: Vec<String>,
    merges: Vec<String>,
    /// Tokens from here on are control tokens.
    control: usize,
}

impl Vocabulary {
    /// One of `size` tokens, always the same.
    pub(crate) fn of(family: Family, size: usize) -> Self {
        let (names, places) = family.control();
        let control = size - places;
        let mut growing = Growing::new(control);
        growing.signs();
        growing.wide();
        growing.words();
        let mut tokens = growing.tokens;
        tokens.extend(names.iter().map(|name| (*name).to_owned()));
        tokens.extend((names.len()..places).map(|n| format!("<|reserved_special_token_{n}|>")));
        Self { family, tokens, merges: growing.merges, control }
    }

    /// What the file says of it.
    pub(crate) fn metadata(self) -> Vec<(String, Value)> {
        /// Token types of `llama.h`.
        const NORMAL: i32 = 1;
        const CONTROL: i32 = 3;
        let kinds = (0..self.tokens.len()).map(|i| if i < self.control { NORMAL } else { CONTROL }).collect();
        let id = |n: usize| Value::U32(u32::try_from(self.control + n).expect("a vocabulary is smaller"));
        let of = |key: &str, value| (format!("tokenizer.{key}"), value);
        vec![
            of("ggml.model", Value::Text("gpt2".to_owned())),
            of("ggml.pre", Value::Text(self.family.cut().to_owned())),
            of("ggml.bos_token_id", id(0)),
            of("ggml.eos_token_id", id(1)),
            of("ggml.padding_token_id", id(0)),
            of("ggml.add_bos_token", Value::Bool(self.family == Family::Llama3)),
            of("ggml.token_type", Value::I32s(kinds)),
            of("chat_template", Value::Text(self.family.template().to_owned())),
            of("ggml.merges", Value::Texts(self.merges)),
            of("ggml.tokens", Value::Texts(self.tokens)),
        ]
    }
}

/// A vocabulary on its way to its size.
struct Growing {
    tokens: Vec<String>,
    merges: Vec<String>,
    known: HashSet<String>,
    size: usize,
    random: Random,
}

impl Growing {
    fn new(size: usize) -> Self {
        let tokens: Vec<String> = (0..=255_u8).map(|byte| visible(byte).to_string()).collect();
        let known = tokens.iter().cloned().collect();
        Self { tokens, merges: Vec::new(), known, size, random: Random::new(7) }
    }

    /// Adds the merge of two tokens, where it is new and there is room; whether it was added.
    fn merge(&mut self, left: &str, right: &str) -> bool {
        let joined = format!("{left}{right}");
        let new = self.tokens.len() < self.size && !self.known.contains(&joined);
        if new {
            self.merges.push(format!("{left} {right}"));
            self.known.insert(joined.clone());
            self.tokens.push(joined);
        }
        new
    }

    fn signs(&mut self) {
        for (left, right) in SIGNS {
            self.merge(left, right);
        }
    }

    /// Characters of three bytes, and words of two of them.
    fn wide(&mut self) {
        let count = WIDE_CHARACTERS.min(self.size / WIDE_SHARE / 2);
        let mut characters = Vec::with_capacity(count);
        for code in (0x4e00_u32..).take(count) {
            let character = char::from_u32(code).expect("these are ideographs").to_string();
            let bytes: Vec<String> = character.bytes().map(|byte| visible(byte).to_string()).collect();
            let begin = bytes[..2].concat();
            self.merge(&bytes[0], &bytes[1]);
            self.merge(&begin, &bytes[2]);
            characters.push(begin + &bytes[2]);
        }
        let mut words = (self.size / WIDE_SHARE).saturating_sub(count);
        while words > 0 && !characters.is_empty() {
            let left = self.random.below_small_first(count);
            let right = self.random.below_small_first(count);
            words -= usize::from(self.merge(&characters[left].clone(), &characters[right].clone()));
        }
    }

    /// Words of letters, half of them with a space before.
    fn words(&mut self) {
        let mut words: Vec<String> = LETTERS.chars().map(String::from).collect();
        while self.tokens.len() < self.size {
            let longest = 2 + self.random.next() % (WORD_LETTERS_MAX - 1);
            let left = words[self.random.below_small_first(words.len())].clone();
            let right = words[self.random.below_small_first(words.len())].clone();
            if (left.len() + right.len()) as u64 <= longest && self.merge(&left, &right) {
                let word = left + &right;
                self.merge(&SPACE.to_string(), &word);
                words.push(word);
            }
        }
    }
}

/// GPT-2's visible stand-in for a byte: itself where it is printable, else a character from U+0100 on.
fn visible(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !printable(*b)).count();
    char::from_u32(256 + u32::try_from(before).expect("68 at most")).expect("U+0100 to U+0143 are characters")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_space_and_a_line_have_their_stand_ins() {
        assert_eq!((visible(b' '), visible(b'\n'), visible(b'a'), visible(0xad)), (SPACE, 'Ċ', 'a', 'Ń'));
    }

    #[test]
    fn every_token_is_once_there_and_made_of_earlier_ones() {
        for family in [Family::SmolLm, Family::Qwen2, Family::Llama3] {
            let vocabulary = Vocabulary::of(family, 20_000);
            assert_eq!(vocabulary.tokens.len(), 20_000);
            assert_eq!(vocabulary.tokens.iter().collect::<HashSet<_>>().len(), 20_000);
            let mut known: HashSet<String> = (0..=255).map(|byte| visible(byte).to_string()).collect();
            for (merge, token) in vocabulary.merges.iter().zip(&vocabulary.tokens[256..]) {
                let (left, right) = merge.split_once(' ').unwrap();
                assert!(known.contains(left) && known.contains(right), "{merge}");
                assert_eq!(&format!("{left}{right}"), token);
                known.insert(token.clone());
            }
            assert_eq!(vocabulary.merges.len() + 256, vocabulary.control);
            assert!(vocabulary.tokens[vocabulary.control].starts_with("<|"));
        }
    }

    #[test]
    fn words_are_as_long_as_words_are() {
        let vocabulary = Vocabulary::of(Family::Qwen2, 151_936);
        let letters: usize = vocabulary.tokens.iter().map(|token| token.chars().count()).sum();
        let mean = letters as f64 / 151_936.0;
        assert!((4.0..9.0).contains(&mean), "{mean}");
        assert!(vocabulary.tokens.iter().any(|token| token == "\",\""));
    }
}
