//! Which settings would let a model into a limit of memory.
//!
//! Invariant: what is advised was predicted to fit, and nothing in it can be left out.

use crate::gguf::Head;
use crate::load::plan;
use crate::memory::{Memory, fits_blocks};
use crate::protocol::{CacheType, Start};

const MIB: u64 = 1024 * 1024;
/// Smallest window that is advised, in tokens: a short command and its answer.
const CONTEXT_LEAST: u32 = 256;
/// Room for kept prefixes that is advised before none at all, in bytes.
const PREFIX_LEAST: u64 = 4 * MIB;

/// A setting that takes less memory, and what it was.
type Step = fn(&mut Start);

/// In the order in which they are missed the least, after [`SMALL_CACHE`].
const STEPS: [Step; 6] = [
    |start| start.prefix_bytes_max = start.prefix_bytes_max.min(PREFIX_LEAST),
    |start| start.slots = start.slots.div_ceil(2),
    |start| start.context_tokens = (start.context_tokens / 2).max(CONTEXT_LEAST.min(start.context_tokens)),
    |start| start.slots = 1,
    |start| start.context_tokens = CONTEXT_LEAST.min(start.context_tokens),
    |start| start.prefix_bytes_max = 0,
];

/// For models whose heads fill whole blocks.
const SMALL_CACHE: Step = |start| start.cache = CacheType::Q8_0;

/// The words after a refusal: settings with which the model fits into `max` bytes, or that there are none.
pub(crate) fn advice(head: &Head, file_bytes: u64, start: &Start, max: u64) -> String {
    let needs = |start: &Start| Memory::predict(head, file_bytes, plan(start, head, start.context_tokens));
    let first = fits_blocks(head).then_some(SMALL_CACHE);
    let steps: Vec<Step> = first.into_iter().chain(STEPS).collect();
    let Some(fitting) = fitting(start, &steps, &|start| needs(start).total() <= max) else {
        let mut least = start.clone();
        steps.iter().for_each(|step| step(&mut least));
        let least = needs(&least).total().div_ceil(MIB);
        return format!("no settings make it fit, as the smallest take {least} MiB: name a smaller model");
    };
    format!("{} would fit, at {} MiB", changes(start, &fitting), needs(&fitting).total().div_ceil(MIB))
}

/// As few of the steps as are enough.
fn fitting(start: &Start, all: &[Step], fits: &dyn Fn(&Start) -> bool) -> Option<Start> {
    let with = |steps: &[Step]| {
        let mut changed = start.clone();
        steps.iter().for_each(|step| step(&mut changed));
        changed
    };
    let enough = (0..=all.len()).find(|count| fits(&with(&all[..*count])))?;
    let mut steps = all[..enough].to_vec();
    for at in (0..enough).rev() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        if fits(&with(&fewer)) {
            steps = fewer;
        }
    }
    Some(with(&steps))
}

/// The changed settings as the configuration writes them.
fn changes(from: &Start, to: &Start) -> String {
    let mut words = Vec::new();
    if from.prefix_bytes_max != to.prefix_bytes_max {
        words.push(format!("prefix_mib_max = {}", to.prefix_bytes_max / MIB));
    }
    if from.cache != to.cache {
        words.push("kv_type = \"q8_0\"".to_owned());
    }
    if from.slots != to.slots {
        words.push(format!("slots = {}", to.slots));
    }
    if from.context_tokens != to.context_tokens {
        words.push(format!("context_tokens = {}", to.context_tokens));
    }
    if words.is_empty() { "these settings".to_owned() } else { words.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start { slots: 4, context_tokens: 2_048, ..Start::new("model.gguf") }
    }

    #[test]
    fn the_least_change_that_is_enough_is_advised() {
        let cost = |start: &Start| {
            let kv = if start.cache == CacheType::Q8_0 { 1 } else { 2 };
            u64::from(start.slots * start.context_tokens) * kv + start.prefix_bytes_max / MIB
        };
        for (max, expect) in [
            (20_000, "these settings"),
            (16_390, "kv_type = \"q8_0\""),
            (10_000, "kv_type = \"q8_0\""),
            (5_000, "kv_type = \"q8_0\" and slots = 2"),
            (3_000, "kv_type = \"q8_0\" and slots = 2 and context_tokens = 1024"),
            (2_000, "kv_type = \"q8_0\" and slots = 1 and context_tokens = 1024"),
        ] {
            let steps: Vec<Step> = [SMALL_CACHE].into_iter().chain(STEPS).collect();
            let found = fitting(&start(), &steps, &|start| cost(start) <= max).map(|to| changes(&start(), &to));
            assert_eq!(found.as_deref(), Some(expect), "{max}");
        }
        let found = fitting(&start(), &STEPS, &|start| cost(start) <= 16_390).map(|to| changes(&start(), &to));
        assert_eq!(found.as_deref(), Some("prefix_mib_max = 4"), "where there are no small keys and values");
        assert_eq!(fitting(&start(), &STEPS, &|start| cost(start) < 10), None);
    }
}
