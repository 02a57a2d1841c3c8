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
/// Code, tables and buffers beside the model.
const PROCESS_BYTES: u64 = 12 * 1024 * 1024;
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
    /// Sequences at once.
    pub(crate) slots: u64,
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
    /// The file, mapped, and what is copied out of it.
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

impl Memory {
    /// Predicts; sizes that the metadata lacks count as zero.
    pub(crate) fn predict(head: &Head, file_bytes: u64, plan: Plan) -> Self {
        let size = |key| head.size(key).unwrap_or(0);
        let (width, forward) = (size("embedding_length"), size("feed_forward_length"));
        let vocabulary = match head.values.get("tokenizer.ggml.tokens") {
            Some(Value::Array(len)) => *len,
            _ => size("vocab_size"),
        };
        let repacked: u64 = REPACKED.iter().filter_map(|kind| head.tensor_bytes.get(kind)).sum();
        let row = product(&[width, ROWS_WIDTH]).saturating_add(product(&[forward, ROWS_FORWARD]));
        let rows = product(&[plan.batch, row.saturating_add(plan.cells)]);
        let logits = product(&[plan.batch + plan.slots, vocabulary]);
        let cells = plan.cells.next_multiple_of(CELLS_STEP);
        Self {
            weights: file_bytes.saturating_add(repacked),
            cache: product(&[cell_bytes(head, plan.cache), cells]),
            working: product(&[rows.saturating_add(logits), NUMBER_BYTES]).saturating_add(PROCESS_BYTES),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.working)
    }

    /// One sentence with the figures, for when they are over `max`.
    pub(crate) fn over(&self, max: u64) -> Option<String> {
        (self.total() > max).then(|| {
            format!(
                "it needs about {} MiB of memory (weights {}, keys and values {}, working space {}), limit is {} MiB; \
                 fewer slots or a smaller context need less",
                self.total().div_ceil(MIB),
                self.weights.div_ceil(MIB),
                self.cache.div_ceil(MIB),
                self.working.div_ceil(MIB),
                max / MIB
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
        Head { values, tensor_bytes: BTreeMap::new() }
    }

    #[test]
    fn the_cache_of_a_known_shape() {
        let plan = Plan { cells: 4_096, batch: 64, slots: 4, cache: CacheType::F16 };
        let memory = Memory::predict(&head(16), 1_000 * MIB, plan);
        // Llama 3.2 1B: 16 layers × 8 heads × (64 + 64) × 2 bytes = 32 KiB per token.
        assert_eq!(memory.cache, 4_096 * 32 * 1024);
        let small = Memory::predict(&head(16), 1_000 * MIB, Plan { cache: CacheType::Q8_0, ..plan });
        assert_eq!(small.cache, 4_096 * 32 * 1024 * 34 / 64);
        assert_eq!(memory.weights, 1_000 * MIB);
        assert_eq!(memory.over(memory.total()), None);
        let refusal = memory.over(memory.total() - 1).unwrap_or_default();
        assert!(refusal.contains("weights 1000, keys and values 128,"), "{refusal}");
    }

    #[test]
    fn absurd_sizes_are_over_every_limit() {
        let plan = Plan { cells: u64::from(u32::MAX), batch: 64, slots: 64, cache: CacheType::F16 };
        let memory = Memory::predict(&head(u64::MAX / 2), 1, plan);
        assert!(memory.over(u64::MAX / 2).is_some());
    }
}
