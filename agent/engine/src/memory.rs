//! How much memory a model will take, predicted from its metadata before anything is loaded.

use crate::gguf::{Head, Value};
use crate::protocol::CacheType;

/// Cells of the key-value cache are laid out in multiples of this.
const CELLS_STEP: u64 = 256;
/// Numbers of a block of keys and values.
const KV_BLOCK: u64 = 32;
/// Bytes of one number of the computation (f32).
const NUMBER_BYTES: u64 = 4;
/// Rows of the width of the model that a layer's computation holds at once.
const ROWS_WIDTH: u64 = 8;
/// Rows of the width of the feed-forward part that it holds at once.
const ROWS_FORWARD: u64 = 3;
/// Pages of the program and its libraries that a working engine has touched: 13 to 14 MiB of a program of 21 MB.
const PROGRAM_BYTES: u64 = 27 * MIB / 2;
/// What any process and any model take of the heap: 5 MiB were measured beside everything else.
const HEAP_BYTES: u64 = 5 * MIB;
/// Heap of one token, and of one merge, in llama.cpp's tables of the vocabulary: texts, two hash maps. Fitted over
/// vocabularies of 4,000 to 152,000 tokens with as many merges, where both together took 270 to 320 bytes.
const VOCABULARY_BYTES: u64 = 150;
/// Heap of one token in llguidance's tables, made for the first schema: 540 to 571 bytes over the same vocabularies.
const SCHEMA_BYTES: u64 = 570;
/// Copies of one output's logits: of the computation, and for whoever reads them.
const LOGITS_COPIES: u64 = 2;
/// GGML types that llama.cpp copies into another layout for this processor: Q4_0, Q4_K, IQ4_NL.
const REPACKED: [u32; 3] = [2, 12, 20];
const MIB: u64 = 1024 * 1024;

/// What is going to be loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Cells of the key-value cache, in tokens of all sequences together.
    pub(crate) cells: u64,
    /// Tokens of one step.
    pub(crate) batch: u64,
    /// Places whose logits are read in one step.
    pub(crate) outputs: u64,
    /// How keys and values are stored.
    pub(crate) cache: CacheType,
}

/// Bytes of a block of 32 numbers of keys and values (ggml's block_q8_0: 32 numbers and a half-precision scale).
fn block_bytes(cache: CacheType) -> u64 {
    match cache {
        CacheType::F16 => 2 * KV_BLOCK,
        CacheType::Q8_0 => 34,
    }
}

/// A prediction, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Tensors of the file, mapped, and what is copied out of it.
    pub(crate) weights: u64,
    /// Keys and values.
    pub(crate) cache: u64,
    /// The computation and the process.
    pub(crate) working: u64,
}

/// Bytes of the keys and values of one token; 0 where the metadata lacks a size.
pub(crate) fn cell_bytes(head: &Head, cache: CacheType) -> u64 {
    let size = |key| head.size(key).unwrap_or(0);
    let heads = size("attention.head_count").max(1);
    let kv_heads = head.size("attention.head_count_kv").unwrap_or(heads);
    let width = size("embedding_length") / heads;
    let key = head.size("attention.key_length").unwrap_or(width);
    let value = head.size("attention.value_length").unwrap_or(width);
    let numbers = product(&[size("block_count"), kv_heads, key.saturating_add(value)]);
    product(&[numbers, block_bytes(cache)]) / KV_BLOCK
}

/// Whether the keys and the values of a head fill whole blocks.
pub(crate) fn fits_blocks(head: &Head) -> bool {
    let width = head.size("embedding_length").unwrap_or(0) / head.size("attention.head_count").unwrap_or(1).max(1);
    let whole = |key| head.size(key).unwrap_or(width).is_multiple_of(KV_BLOCK);
    whole("attention.key_length") && whole("attention.value_length")
}

impl Memory {
    /// Predicts; sizes that the metadata lacks count as zero.
    pub(crate) fn predict(head: &Head, file_bytes: u64, plan: Plan) -> Self {
        let size = |key| head.size(key).unwrap_or(0);
        let (width, forward) = (size("embedding_length"), size("feed_forward_length"));
        let length = |key| match head.values.get(key) {
            Some(Value::Array(len)) => *len,
            _ => 0,
        };
        let vocabulary = length("tokenizer.ggml.tokens").max(size("vocab_size"));
        let tensors = head.tensor_bytes.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let repacked: u64 = REPACKED.iter().filter_map(|kind| head.tensor_bytes.get(kind)).sum();
        let row = product(&[width, ROWS_WIDTH]).saturating_add(product(&[forward, ROWS_FORWARD]));
        let rows = product(&[plan.batch, row.saturating_add(plan.cells)]);
        // More room is set aside, but pages that nobody writes to are not there.
        let logits = product(&[LOGITS_COPIES, plan.outputs, vocabulary]);
        let entries = vocabulary.saturating_add(length("tokenizer.ggml.merges"));
        let tables = product(&[entries, VOCABULARY_BYTES]).saturating_add(product(&[vocabulary, SCHEMA_BYTES]));
        let tables = tables.saturating_add(PROGRAM_BYTES + HEAP_BYTES);
        let cells = plan.cells.next_multiple_of(CELLS_STEP);
        Self {
            // The head of the file is read, not mapped.
            weights: tensors.min(file_bytes).saturating_add(repacked),
            cache: product(&[cell_bytes(head, plan.cache), cells]),
            working: product(&[rows.saturating_add(logits), NUMBER_BYTES]).saturating_add(tables),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.working)
    }

    /// One sentence with the figures and what would help, for when they are over `max`.
    pub(crate) fn over(&self, max: u64, advice: impl Fn() -> String) -> Option<String> {
        (self.total() > max).then(|| {
            format!(
                "it needs about {} MiB of memory (weights {}, keys and values {}, working space {}), limit is {} MiB; \
                 {}",
                self.total().div_ceil(MIB),
                self.weights.div_ceil(MIB),
                self.cache.div_ceil(MIB),
                self.working.div_ceil(MIB),
                max / MIB,
                advice()
            )
        })
    }
}

/// A product that stops at the largest number: the factors come from a file.
fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |a, b| a.saturating_mul(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn head(layers: u64) -> Head {
        let numbers = [
            ("llama.block_count", layers),
            ("llama.embedding_length", 2_048),
            ("llama.feed_forward_length", 8_192),
            ("llama.attention.head_count", 32),
            ("llama.attention.head_count_kv", 8),
        ];
        let mut values: BTreeMap<String, Value> =
            numbers.iter().map(|(key, n)| ((*key).to_owned(), Value::Number(*n))).collect();
        values.insert("general.architecture".to_owned(), Value::Text("llama".to_owned()));
        values.insert("tokenizer.ggml.tokens".to_owned(), Value::Array(128_256));
        // 8-bit weights, and 4-bit ones that are copied.
        Head { values, tensor_bytes: BTreeMap::from([(8, 700 * MIB), (2, 100 * MIB)]) }
    }

    #[test]
    fn the_cache_of_a_known_shape() {
        let plan = Plan { cells: 4_096, batch: 64, outputs: 4, cache: CacheType::F16 };
        let memory = Memory::predict(&head(16), 1_000 * MIB, plan);
        // Llama 3.2 1B: 16 layers × 8 heads × (64 + 64) × 2 bytes = 32 KiB per token.
        assert_eq!(memory.cache, 4_096 * 32 * 1024);
        let small = Memory::predict(&head(16), 1_000 * MIB, Plan { cache: CacheType::Q8_0, ..plan });
        assert_eq!(small.cache, 4_096 * 32 * 1024 * 34 / 64);
        assert_eq!(memory.weights, 900 * MIB);
        let advice = || "less".to_owned();
        assert_eq!(memory.over(memory.total(), advice), None);
        let refusal = memory.over(memory.total() - 1, advice).unwrap_or_default();
        assert!(refusal.contains("weights 900, keys and values 128,") && refusal.ends_with("; less"), "{refusal}");
    }

    #[test]
    fn absurd_sizes_are_over_every_limit() {
        let plan = Plan { cells: u64::from(u32::MAX), batch: 64, outputs: 64, cache: CacheType::F16 };
        let memory = Memory::predict(&head(u64::MAX / 2), 1, plan);
        assert!(memory.over(u64::MAX / 2, String::new).is_some());
    }
}
